"""A cluster with narrow limits: small arrays, a queue that forgets, few jobs a user."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.testbed import Cluster
from tests.cluster.faults import Faults
from tests.cluster.site import Site, site
from tests.support import assert_finished, load_originals


@pytest.fixture(scope="module")
def narrow(real_slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(
        tmp_path_factory.mktemp("narrow"),
        max_array_size=11,
        min_job_age_s=2,
        enforce_associations=True,
    ) as running:
        yield running


def wait_until_forgotten(one: Site, timeout_s: float = 180) -> None:
    """Return once squeue knows nothing at all any more, not even what has ended."""
    deadline = time.monotonic() + timeout_s
    while one.cluster.run("squeue", "-h", "-t", "all").stdout:
        assert time.monotonic() < deadline, one.status()
        time.sleep(0.5)


def test_thirty_tasks_go_in_arrays_of_eleven_and_are_told_after_squeue_forgot(
    narrow: Cluster, tmp_path: Path
) -> None:
    """Indices end one below MaxArraySize; what failed is known when only files and sacct are."""
    with site(narrow, tmp_path, tasks=30) as one:
        originals = load_originals(one.made)
        faults = Faults(tmp_path / "faults")
        faults.at(9, "error")  # tasks 9 and 20; the third array has no such element
        faults.at(10, "exit")  # tasks 10 and 21
        text = one.submit(*faults.words(), "--array_parallelism", 7, "--dry_run").stdout
        assert re.findall(r"#SBATCH --array=(\S+)", text) == ["0-10%3", "0-10%2", "0-7%2", "0-0%1"]
        assert "3 arrays, 30 tasks" in text

        one.submit(*faults.words())
        intent = json.loads((one.dataset.submissions / "0001" / "intent.json").read_text())
        arrays = [array["tasks"] for array in intent["arrays"]]
        assert [len(tasks) for tasks in arrays] == [11, 11, 8, 0]
        assert [task for tasks in arrays for task in tasks] == list(range(30))

        wait_until_forgotten(one)
        narrow.wait_until_accounted()
        told = one.status()
        assert told["unavailable"] == []
        failed = {
            task["task"]: (task["evidence"], task["reason"])
            for task in told["tasks"]
            if task["state"] == "failed"
        }
        assert failed.keys() == {9, 10, 20, 21}
        for task in (9, 20):
            assert failed[task] == ("attempt", failed[task][1])
            assert f"converting shard {task}: Input/output error" in failed[task][1]
        for task in (10, 21):
            assert failed[task] == ("sacct", "FAILED, exit code 3:0")
        others = [task for task in told["tasks"] if task["task"] not in failed]
        assert {(task["state"], task["evidence"]) for task in others} == {("done", "record")}

        faults.clear()
        one.ok("relaunch", one.out)
        assert {task["state"] for task in one.wait_until_settled()["tasks"]} == {"done"}
        assert_finished(one.made, originals, one.out)


def test_no_more_is_submitted_than_the_account_may_have_in_the_queue(
    narrow: Cluster, tmp_path: Path
) -> None:
    """Three elements and the finaliser fill MaxSubmitJobs=4; the rest goes when they have ended."""
    narrow.add_account("narrow", "MaxSubmitJobs=4")
    refused = narrow.run(
        "sbatch", "--account=narrow", "--array=0-4", "--wrap", "true", check=False
    )  # fmt: skip
    assert refused.returncode != 0  # the limit is real
    with site(narrow, tmp_path, tasks=5) as one:
        wait_until_forgotten(one)
        faults = Faults(tmp_path / "faults")
        for index in range(3):
            faults.at(index, "slow")
        done = one.submit("--account", "narrow", *faults.words())
        assert "leaves room for 3 of 5 tasks" in done.stdout
        states = one.states()
        assert [states[task] for task in (3, 4)] == ["pending"] * 2

        again = one.cli("submit", one.out, "--account", "narrow")
        assert again.code == 4
        assert "leaves no room" in again.stderr

        faults.clear()
        wait_until_forgotten(one)
        one.submit("--account", "narrow")
        assert {task["state"] for task in one.wait_until_settled()["tasks"]} == {"done"}
        assert [task["attempts"] for task in one.status()["tasks"]] == [1] * 5
