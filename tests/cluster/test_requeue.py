"""An element that is warned or pushed aside goes on in another run with what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.testbed import Cluster
from tests.cluster.site import Site, site

SLOW_STORAGE = """\
import os, sys, time
def slow(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".npz") and "SLURM_JOB_ID" in os.environ:
        time.sleep(2)
sys.addaudithook(slow)
"""


@pytest.fixture
def slow(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    """One task of four shards, and storage that takes two seconds to open a volume."""
    with site(cluster, tmp_path, tasks=4, plan=("--shards_per_task", 4)) as one:
        hook = tmp_path / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(SLOW_STORAGE)
        one.environment["PYTHONPATH"] = str(hook)
        one.submit("--cpus_per_task", 1)
        yield one


def begun(one: Site) -> str:
    """Wait until one of the four shards is published; the element's job."""
    facts = one.wait(lambda facts: facts["samples"]["converted"] >= 1)
    (task,) = facts["tasks"]
    assert task["state"] == "running"
    job: str = task["job"]
    return job


def assert_goes_on(one: Site, job: str, words: str) -> None:
    facts = one.wait(lambda facts: facts["tasks"][0]["state"] == "pending")
    (task,) = facts["tasks"]
    assert (task["evidence"], task["job"]) == ("squeue", job)
    assert words in task["reason"]
    assert one.cli("submit", one.out).code == 4  # it is live: requeued, not lost
    assert one.cli("relaunch", one.out).code == 4
    one.cluster.start_now(job)
    (task,) = one.wait_until_settled()["tasks"]
    assert (task["state"], task["evidence"], task["attempts"]) == ("done", "record", 2)
    by = Counter(
        (path.parent / "end.json").exists() for path in one.dataset.attempts.glob("*/start.json")
    )
    assert by == {True: 2}


def test_at_the_warning_it_stops_and_is_requeued_with_what_is_left(slow: Site) -> None:
    job = begun(slow)
    slow.cluster.run("scancel", "--signal=USR2", job)
    assert_goes_on(slow, job, "requeued")


def test_pushed_aside_by_a_more_urgent_job_it_goes_on_later(slow: Site) -> None:
    job = begun(slow)
    for node in slow.cluster.nodes:
        slow.cluster.run(
            "sbatch", "--partition=urgent", "--cpus-per-task=2", "--mem=100", "--output=/dev/null",
            f"--nodelist={node}", "--time=1", "--wrap=sleep 1",
        )  # fmt: skip
    assert_goes_on(slow, job, "requeued after PREEMPTED")
