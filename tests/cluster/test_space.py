"""Elements watch the free space at the output as a run does; submit looks before it submits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.testbed import Cluster
from tests.cluster.site import Site, site

FREE_AS_TOLD = """\
import os, shutil
really = shutil.disk_usage
def as_told(path):
    with open(os.environ["FREE_BYTES_FILE"]) as told:
        return really(path)._replace(free=int(told.read()))
shutil.disk_usage = as_told
"""


@pytest.fixture
def full(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    """Two tasks, and an output at which a file tells how much is free: little."""
    hook = tmp_path / "hook"
    hook.mkdir()
    with site(cluster, tmp_path, tasks=2) as one:
        (hook / "sitecustomize.py").write_text(FREE_AS_TOLD)
        (tmp_path / "free").write_text("1000")
        one.environment |= {"PYTHONPATH": str(hook), "FREE_BYTES_FILE": str(tmp_path / "free")}
        yield one


def paused(one: Site) -> list[str]:
    """The jobs of the tasks that are paused now."""
    return [
        task["job"]
        for task in one.wait(
            lambda facts: all("; paused: too little space" in t["reason"] for t in facts["tasks"])
        )["tasks"]
    ]


def test_elements_pause_for_want_of_space_obey_the_warning_and_go_on(
    full: Site, tmp_path: Path
) -> None:
    """Refused without min_free_gb; with it begun, paused, requeued at the warning, and finished."""
    refused = full.cli("submit", full.out)
    assert refused.code == 5
    assert "what is pending does not fit at the output" in refused.stderr
    assert set(full.states().values()) == {"pending"}

    assert "pauses below --min_free_gb" in full.submit("--min_free_gb", 0.001).stdout
    jobs = paused(full)
    assert not list(full.out.glob("*.tar")) and not list(full.out.glob(".*.partial"))
    full.cluster.run("scancel", "--signal=USR2", jobs[0])
    facts = full.wait(lambda facts: "pending" in {task["state"] for task in facts["tasks"]})
    (warned,) = [task for task in facts["tasks"] if task["state"] == "pending"]
    assert (warned["evidence"], warned["job"]) == ("squeue", jobs[0])

    (tmp_path / "free").write_text(str(2**40))
    full.cluster.start_now(jobs[0])
    assert {task["state"] for task in full.wait_until_settled()["tasks"]} == {"done"}
    log = full.ok("logs", full.out, 1).stdout
    assert "paused: 1000 bytes stay free at the output" in log
    assert "going on: 1.00 TiB stay free at the output" in log
