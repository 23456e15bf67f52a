"""Verifications, audits and deletions as arrays: as one machine does them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.deleting.consents import load_consents
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.journals import read_journal
from slurm.testbed import Cluster
from tests.cluster.faults import Faults
from tests.cluster.site import Site, site
from tests.cluster.user import UsersSite, require_two_users, users_site
from tests.support import read_dataset, sources_left

TASKS = 4


@pytest.fixture
def done(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    """Four shards of one sample each, converted here."""
    with site(cluster, tmp_path, tasks=TASKS) as one:
        one.ok("run", one.out, "--keep_source_files")
        yield one


def wait_for_jobs(one: Site) -> dict[str, Any]:
    """The status once nothing of the dataset is in the queue."""
    return one.wait(
        lambda facts: (
            not any(w["is_open"] or w["jobs"] for w in facts["other_work"])
            and not one.cluster.run("squeue", "--noheader").stdout.strip()
        )
    )


def profile(one: Site, *lines: str) -> tuple[str, Path]:
    path = one.out.with_name("profile.toml")
    path.write_text("\n".join(["mem_gb = 0.25", *lines]) + "\n")
    return "--profile", path


def damage(one: Site, shard: int) -> None:
    """Flip one byte in the middle of a shard."""
    path = one.dataset.shard(shard)
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_verify_by_jobs_says_what_verify_says(done: Site) -> None:
    damage(done, 2)
    said = done.ok("verify", done.out, "--full", "--submit", *profile(done))
    assert f"{TASKS} tasks (verify --full)" in said.stdout
    assert f"ctrate-convert verify {done.out} --result" in said.stdout
    facts = wait_for_jobs(done)
    assert {task["state"] for task in facts["tasks"]} == {"done"}
    here = done.cli("verify", done.out, "--full", "--json")
    there = done.cli("verify", done.out, "--result", "--json")
    assert there.code == here.code == ExitCode.DAMAGE
    differ = dict.fromkeys(("read_from", "read_until"))
    assert {**there.json(), **differ} == {**here.json(), **differ}
    assert f"{TASKS} of {TASKS} results" in done.ok("status", done.out).stdout
    (array,) = done.ok("history", done.out, "--json").json()["arrays"]
    assert (array["command"], len(array["tasks"]), array["outcome"]) == ("verify --full", TASKS, {})


def test_what_is_not_checked_is_not_vouched_for(done: Site, faults: Faults) -> None:
    """An element that ends without a word leaves its shard unchecked; the same command goes on."""
    faults.at(1, "exit")
    setup = f"setup = {json.dumps(faults.words()[1::2])}"
    done.ok("verify", done.out, "--full", "--submit", *profile(done, setup))
    wait_for_jobs(done)
    part = done.cli("verify", done.out, "--result")
    assert part.code == ExitCode.ENVIRONMENT
    assert "NOT CHECKED yet, 1 shard: shard-000001.tar" in part.stdout
    assert "No damage found in the rest." in part.stdout
    status = done.ok("status", done.out).stdout
    assert "over with 3 of 4 results" in status
    assert f"go on with: ctrate-convert verify {done.out} --full --submit" in status
    assert done.cli("status", done.out, "--watch").code == ExitCode.SAMPLES_FAILED
    faults.clear()
    again = done.ok("verify", done.out, "--full", "--submit", *profile(done))
    assert "1 task (verify --full)" in again.stdout
    assert "3 of 4 results are there" in again.stdout
    wait_for_jobs(done)
    whole = done.ok("verify", done.out, "--result")
    assert "No damage found." in whole.stdout


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path / "faults")


def test_an_audit_by_jobs_is_filed_whole_or_not_at_all(done: Site) -> None:
    done.ok("delete", done.out, "--yes")
    damage(done, 1)
    missing = done.cli("audit", done.out, "--result")
    assert missing.code == ExitCode.USAGE
    assert "no `audit` was submitted" in missing.stderr
    done.ok("audit", done.out, "--submit", "--seed", 7, *profile(done))
    audits = done.dataset.run / "audits"
    assert not audits.exists()
    wait_for_jobs(done)
    there = done.cli("audit", done.out, "--result", "--json")
    here = done.cli("audit", done.out, "--seed", 7, "--json")
    assert there.code == here.code == ExitCode.DAMAGE
    differ = ("time", "list_sha256", "read_from", "read_until", "verdict")
    one, other = there.json()["summary"], here.json()["summary"]
    assert {k: one[k] for k in one if k not in differ} == {
        k: other[k] for k in other if k not in differ
    }
    assert there.json()["sources"] == here.json()["sources"]


def test_an_audit_compares_the_sources_by_jobs(done: Site) -> None:
    source = sorted(done.made.sources.values())[0]
    source.write_bytes(source.read_bytes()[:-1])
    done.ok("audit", done.out, "--against_sources", "--submit", *profile(done))
    wait_for_jobs(done)
    summary = done.cli("audit", done.out, "--result", "--json").json()["summary"]
    compared = summary["against_sources"]
    assert (compared["there"], compared["equal"], len(compared["unreadable"])) == (4, 3, 1)


def test_delete_by_jobs_asks_once_and_frees_the_disk(done: Site) -> None:
    refused = done.cli("delete", done.out, "--submit", *profile(done))
    assert refused.code == ExitCode.REFUSED
    assert "there is no terminal to ask at" in refused.stderr
    assert not list(done.dataset.submissions.glob("*"))
    changed = sorted(done.made.sources.values())[3]
    with changed.open("ab") as stream:
        stream.write(b"more")
    done.ok("delete", done.out, "--submit", "--yes", *profile(done))
    facts = wait_for_jobs(done)
    assert {task["state"] for task in facts["tasks"]} == {"done"}
    assert sources_left(done.made) == {changed.stem}
    assert len(read_dataset(done.out)) == TASKS
    (consent,) = load_consents(done.dataset)
    lines = [line for shard in range(3) for line in read_journal(done.dataset, shard)]
    assert {line.authorised_by for line in lines} == {f"delete --yes (consent {consent.name})"}
    left = done.ok("delete", done.out, "--dry_run", "--json").json()
    assert left["totals"]["deleted"]["files"] == 3
    assert left["totals"]["deletable"]["files"] == 1
    (stays,) = [source for source in left["sources"] if source["stayed"]]
    assert stays["key"] == changed.stem
    assert "bytes-after" in stays["reason"]
    assert f"it stayed: {changed.name}" in done.ok("delete", done.out, "--dry_run").stdout


def test_a_second_one_is_refused_while_one_is_at_work(done: Site) -> None:
    """Elements that wait in the queue are live; `cancel` takes them out, and it can go on."""
    later = profile(done, "[additional_parameters]", 'begin = "now+1hour"')
    done.ok("verify", done.out, "--full", "--submit", *later)
    refused = done.cli("verify", done.out, "--full", "--submit", *later)
    assert refused.code == ExitCode.REFUSED
    assert "at work on the cluster already" in refused.stderr
    assert "4 waiting" in done.ok("status", done.out).stdout
    assert len(list(done.dataset.checks.iterdir())) == 1
    done.ok("cancel", done.out)
    wait_for_jobs(done)
    done.ok("verify", done.out, "--full", "--submit", *profile(done))
    wait_for_jobs(done)
    assert done.ok("verify", done.out, "--result").code == ExitCode.DONE
    assert len(list(done.dataset.checks.iterdir())) == 1


def test_a_conversion_takes_no_notice_of_them(done: Site) -> None:
    """A relaunch goes on with the conversion's profile; nothing is pending or failed."""
    done.ok("verify", done.out, "--full", "--submit", *profile(done, "warning_s = 77"))
    wait_for_jobs(done)
    nothing = done.cli("relaunch", done.out)
    assert nothing.code == ExitCode.REFUSED
    assert "nothing failed" in nothing.stderr


@pytest.fixture
def users(cluster: Cluster) -> Iterator[UsersSite]:
    require_two_users()
    with users_site(cluster, tasks=3) as one:
        yield one


def test_an_ordinary_user_sees_and_cancels_them(users: UsersSite) -> None:
    """Jobs of a user in the queue are found by their names, as the administrator's are."""
    users.ok("run", users.out, "--keep_source_files")
    later = profile(users, "[additional_parameters]", 'begin = "now+1hour"')
    for words in (["verify", "--full"], ["audit", "--against_sources"], ["delete", "--yes"]):
        users.ok(words[0], users.out, *words[1:], "--submit", *later)
        refused = users.cli(words[0], users.out, *words[1:], "--submit", *later)
        assert refused.code == ExitCode.REFUSED, refused.text
        assert "at work on the cluster already" in refused.stderr
    facts = users.status()
    assert [(one["command"], one["waiting"]) for one in facts["other_work"]] == [
        ("verify --full", 3), ("audit --against_sources", 3), ("delete", 3),
    ]  # fmt: skip
    assert {task["state"] for task in facts["tasks"]} == {"done"}
    users.ok("cancel", users.out)
    wait_for_jobs(users)
    assert len(sources_left(users.made)) == 3


def test_what_does_not_go_together_is_refused(done: Site) -> None:
    for words in (
        ("verify", done.out, "--submit", "--result"),
        ("verify", done.out, "--full", "--result"),
        ("verify", done.out, "--full", "--repair", "--submit"),
        ("verify", done.out, "--submit", "--num_workers", 2),
        ("audit", done.out, "--submit", "--result"),
        ("audit", done.out, "--result", "--seed", 3),
        ("delete", done.out, "--submit", "--dry_run"),
    ):
        refused = done.cli(*words)
        assert refused.code == ExitCode.USAGE, words
        assert "do not go together" in refused.stderr
    refused = done.cli("verify", done.out, *profile(done))
    assert refused.code == ExitCode.USAGE
    assert "--profile goes with --submit" in refused.stderr


def test_a_submission_that_never_began_hides_nothing(done: Site) -> None:
    damage(done, 0)
    done.ok("verify", done.out, "--full", "--submit", *profile(done))
    wait_for_jobs(done)
    assert done.cli("verify", done.out, "--result").code == ExitCode.DAMAGE
    refused = done.cli("verify", done.out, "--full", "--submit", *profile(done, 'partition = "no"'))
    assert refused.code == ExitCode.USAGE
    assert done.cli("verify", done.out, "--result").code == ExitCode.DAMAGE


def test_a_deletion_is_no_word_on_the_conversion(cluster: Cluster, tmp_path: Path) -> None:
    """One shard of a task is published, the other not: the task stays free to be submitted."""
    with site(cluster, tmp_path, tasks=2, plan=("--shards_per_task", 2)) as one:
        one.ok("run", one.out, "--keep_source_files")
        one.dataset.record(1).unlink()
        one.dataset.shard(1).unlink()
        one.dataset.manifest.unlink()
        for attempt in one.dataset.attempts.iterdir():
            shutil.rmtree(attempt)
        one.ok("delete", one.out, "--submit", "--yes", *profile(one))
        facts = wait_for_jobs(one)
        assert [task["state"] for task in facts["tasks"]] == ["pending"]
        assert len(sources_left(one.made)) == 1
        one.submit()
        assert {task["state"] for task in one.wait_until_settled()["tasks"]} == {"done"}


def test_cancel_stops_the_deletion_of_a_task(done: Site) -> None:
    later = profile(done, "[additional_parameters]", 'begin = "now+1hour"')
    done.ok("delete", done.out, "--submit", "--yes", *later)
    said = done.ok("cancel", done.out, 1).stdout
    assert "Cancelled what jobs did of delete." in said
    assert "relaunch" not in said
    (work,) = done.status()["other_work"]
    assert work["tasks"] == [0, 2, 3]
    done.ok("cancel", done.out)
    wait_for_jobs(done)
    assert len(sources_left(done.made)) == TASKS


def test_requeued_elements_do_only_what_is_left(cluster: Cluster, tmp_path: Path) -> None:
    """A result of a unit stands: a second run of the element leaves the file as it is."""
    with site(cluster, tmp_path, tasks=2, plan=("--shards_per_task", 2)) as one:
        one.ok("run", one.out, "--keep_source_files")
        one.ok("verify", one.out, "--full", "--submit", *profile(one))
        wait_for_jobs(one)
        first, second = sorted(one.dataset.check(1).glob("verify-shard-*.json"))
        second.unlink()
        inode = first.stat().st_ino
        assert "1 of 2 results" in one.ok("status", one.out).stdout
        one.ok("verify", one.out, "--full", "--submit", *profile(one))
        wait_for_jobs(one)
        assert second.exists()
        assert first.stat().st_ino == inode
        assert one.ok("verify", one.out, "--result").code == ExitCode.DONE
