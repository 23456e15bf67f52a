"""Plan → submit → status → done on three nodes; the shards are those of a local run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.testbed import Cluster
from tests.cluster.site import Site, site
from tests.support import plan_words


@pytest.fixture
def six(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    with site(cluster, tmp_path, tasks=6) as one:
        yield one


@pytest.fixture
def without_accounting(real_slurm: None, tmp_path: Path) -> Iterator[Site]:
    with (
        Cluster(tmp_path / "cluster", accounting=False) as cluster,
        site(cluster, tmp_path, tasks=3) as one,
    ):
        yield one


def shards(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("shard-*.tar")}


def assert_same_as_local_run(one: Site, elsewhere: Path) -> None:
    one.ok(*plan_words(one.made, elsewhere, "--samples_per_shard", 1))
    one.ok("run", elsewhere, "--num_workers", 2)
    assert shards(one.out) == shards(elsewhere)


def test_six_tasks_over_three_nodes_give_the_shards_of_a_local_run(
    six: Site, tmp_path: Path
) -> None:
    six.submit()
    facts = six.wait_until_settled()
    assert facts["samples"] == {"converted": 6, "failed": 0, "pending": 0, "excluded": 1}
    assert facts["unavailable"] == []
    assert [(t["state"], t["evidence"], t["attempts"]) for t in facts["tasks"]] == [
        ("done", "record", 1)
    ] * 6
    assert {task["node"] for task in facts["tasks"]} == set(six.cluster.nodes)
    assert_same_as_local_run(six, tmp_path / "local")


def test_an_element_whose_payload_others_could_write_is_not_started(six: Site) -> None:
    """It ends at once with exit code 4, says why in its log, and converts nothing."""
    logs = six.dataset.logs / "0001" / "00"
    six.submit("--setup", f"chmod g+w '{logs}'")
    facts = six.wait_until_settled()
    assert [task["state"] for task in facts["tasks"]] == ["failed"] * 6
    said = [path.read_text() for path in logs.glob("*_log.out")]
    assert len(said) == 6
    for text in said:
        assert "error: this element was not started" in text and str(logs) in text
    assert not shards(six.out)


def test_what_slurm_writes_is_as_private_as_the_dataset(six: Site) -> None:
    """Logs, payloads and results; the cluster's folder is one that only its user reaches."""
    six.submit()
    six.wait_until_settled()
    assert six.dataset.run.stat().st_mode & 0o777 == 0o700
    paths = [path for path in six.out.rglob("*") if not path.is_symlink()]
    assert [path for path in paths if path.name.endswith("_log.out")]
    assert not [path for path in paths if path.stat().st_mode & 0o077]


def test_json_has_exactly_the_promised_keys(six: Site) -> None:
    before = six.status()
    promised = {"schema_number", "samples", "planned", "tasks", "stuck", "failed_samples",
                "unavailable", "consents", "damage", "source_bytes_per_s", "eta_s",
                "freed_bytes"}  # fmt: skip
    assert set(before) == promised
    assert {tuple(task) for task in before["tasks"]} == {
        (
            "task",
            "state",
            "reason",
            "evidence",
            "attempts",
            "job",
            "node",
            "cause",
            "elapsed_s",
            "time_limit_s",
            "max_rss_bytes",
            "requested_bytes",
            "cpu_share",
            "is_straggler",
        )
    }
    assert before["planned"] == sum(before["samples"].values())
    assert [task["state"] for task in before["tasks"]] == ["pending"] * 6


def test_the_finaliser_verifies_and_reports_after_all_arrays(six: Site) -> None:
    six.submit()
    report = six.dataset.submissions / "0001" / "report.json"
    deadline = time.monotonic() + 90
    while not report.exists():
        assert time.monotonic() < deadline
        time.sleep(0.5)
    facts = json.loads(report.read_text())
    assert facts["tasks"] == {"done": 6}
    assert facts["samples_checked"] == 6
    assert facts["damage"] == []
    assert "6 done" in six.ok("history", six.out).stdout


def test_dry_run_shows_the_script_and_every_element_and_submits_nothing(six: Site) -> None:
    text = six.submit("--dry_run", "--partition", "short").stdout
    assert "#SBATCH --array=0-5%6" in text
    assert "#SBATCH --partition=short" in text
    assert "#SBATCH --time=5" in text  # the partition grants no more
    assert "element 5: task 5" in text
    assert "1 array, 6 tasks" in text
    assert not list(six.dataset.submissions.glob("*"))
    assert set(six.states().values()) == {"pending"}


def test_blanks_and_quotes_in_the_path_are_no_trouble(cluster: Cluster, tmp_path: Path) -> None:
    with site(cluster, tmp_path / 'it\'s a "disk" $HOME', tasks=1) as one:
        one.submit()
        assert [task["state"] for task in one.wait_until_settled()["tasks"]] == ["done"]


def test_a_run_by_hand_leaves_live_tasks_alone(six: Site) -> None:
    six.submit("--setup", "sleep 30")
    done = six.ok("run", six.out, "--num_workers", 1)
    assert "6 tasks left to Slurm" in done.stderr
    assert not shards(six.out)
    six.ok("cancel", six.out)
    six.wait(lambda facts: all(task["state"] == "cancelled" for task in facts["tasks"]))
    six.ok("run", six.out, "--num_workers", 1)
    assert set(six.states().values()) == {"done"}


def test_status_is_right_without_accounting(without_accounting: Site, tmp_path: Path) -> None:
    one = without_accounting
    one.submit("--setup", "sleep 2")
    live = one.status()
    assert {task["state"] for task in live["tasks"]} <= {"pending", "running"}
    assert {task["evidence"] for task in live["tasks"]} == {"squeue"}
    assert len(live["unavailable"]) == 1
    assert live["unavailable"][0].startswith("sacct: ")
    assert "disabled" in live["unavailable"][0]
    facts = one.wait_until_settled()
    assert [task["evidence"] for task in facts["tasks"]] == ["record"] * 3
    assert_same_as_local_run(one, tmp_path / "local")
