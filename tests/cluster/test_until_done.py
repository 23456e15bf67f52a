"""A finaliser that goes on: it mends what a relaunch mends, and leaves the rest to a person."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm.testbed import Cluster
from tests.cluster.faults import Faults
from tests.cluster.site import Site, site


@pytest.fixture
def three(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    with site(cluster, tmp_path, tasks=3) as one:
        yield one


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path / "faults")


def report_of(one: Site, submission: int, timeout_s: float = 120) -> dict[str, Any]:
    """The report of a submission's finaliser, once it has written one."""
    path = one.dataset.submissions / f"{submission:04d}" / "report.json"
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, one.status()
        time.sleep(0.5)
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def commands(one: Site) -> list[str]:
    return [array["command"] for array in one.ok("history", one.out, "--json").json()["arrays"]]


def test_it_relaunches_with_more_memory_until_all_is_done(three: Site, faults: Faults) -> None:
    """What runs out of memory twice is submitted three times, by one command."""
    faults.at(0, "memory")
    three.submit(*faults.words())
    three.wait(lambda facts: facts["tasks"][0]["state"] == "failed")
    three.ok("relaunch", three.out, "--until_done")
    again = report_of(three, 2)
    assert again["relaunched"] == [0]
    assert again["for_a_person"] == []
    faults.clear()
    assert {task["state"] for task in three.wait_until_settled(120)["tasks"]} == {"done"}
    assert commands(three)[1:] == ["relaunch --until_done"] * (len(commands(three)) - 1)
    last = max(int(path.name) for path in three.dataset.submissions.iterdir())
    assert report_of(three, last)["relaunched"] == []
    assert "Relaunched by itself: task 0." in three.ok("history", three.out).stdout


def test_it_stops_where_only_a_person_can_help(three: Site, faults: Faults) -> None:
    """An error of the disk is not mended by another run; nor is memory that never suffices."""
    faults.at(0, "slow")
    faults.at(1, "slow")
    three.submit(*faults.words(), "--mem_gb", 1)
    three.wait(lambda facts: [task["attempts"] for task in facts["tasks"]] == [1, 1, 1])
    three.ok("relaunch", three.out, "--until_done", "--max_attempts", 2)
    faults.at(0, "memory")
    faults.at(1, "error")
    first = report_of(three, 2)
    assert first["relaunched"] == [0]
    (error,) = first["for_a_person"]
    assert error.startswith("task 1: ")
    assert "Input/output error" in error
    over = report_of(three, 3)
    assert over["relaunched"] == []
    assert "submitted 2 times, as often as allowed" in over["for_a_person"][0]
    time.sleep(3)
    assert len(list(three.dataset.submissions.iterdir())) == 3
    assert three.states() == {0: "failed", 1: "failed", 2: "done"}
    assert "For a person: task 0: OUT_OF_MEMORY" in three.ok("history", three.out).stdout


def test_more_than_the_partition_has_is_not_asked_for_again(three: Site, faults: Faults) -> None:
    faults.at(0, "memory")
    three.submit(*faults.words(), "--mem_gb", 3.5)
    three.wait(lambda facts: facts["tasks"][0]["state"] == "failed", timeout_s=120)
    three.ok("relaunch", three.out, "--until_done")  # 4,000 MB, all that a node has
    over = report_of(three, 2)
    assert over["relaunched"] == []
    assert any("grants no more" in line for line in over["for_a_person"]), over


def test_it_waits_for_what_is_live_already(three: Site, faults: Faults) -> None:
    """Nothing has failed when the command is given; the finaliser comes after all live arrays."""
    faults.at(2, "slow")
    three.submit(*faults.words())
    three.wait(lambda facts: facts["tasks"][2]["state"] == "running")
    done = three.ok("relaunch", three.out, "--until_done")
    assert "nothing failed so far" in done.stdout
    faults.at(2, "memory")
    assert report_of(three, 2)["relaunched"] == [2]
    faults.clear()
    assert {task["state"] for task in three.wait_until_settled(120)["tasks"]} == {"done"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_of_it_loses_nothing_and_starts_nothing_twice(
    three: Site, faults: Faults, tmp_path: Path, when: str
) -> None:
    """Killed right before or right after it called sbatch; a requeue lets it go on."""
    shims = tmp_path / "shims"
    shims.mkdir()
    armed = shims / "armed"
    real = shutil.which("sbatch")
    submits = f'{real} "$@" > /dev/null; ' if when == "after" else ""
    (shims / "sbatch").write_text(
        f'#!/bin/sh\nif [ -n "$SLURM_JOB_ID" ] || [ -e {armed}.here ] && [ -e {armed} ]; then\n'
        f"  rm {armed}; {submits}kill -9 $PPID; exit 1\nfi\n"
        f'exec {real} "$@"\n'
    )
    (shims / "sbatch").chmod(0o755)
    faults.at(0, "memory")
    three.submit(*faults.words(), "--mem_gb", 1)
    three.wait(lambda facts: facts["tasks"][0]["state"] == "failed")
    three.environment["PATH"] = f"{shims}{os.pathsep}{os.environ['PATH']}"
    done = three.ok("relaunch", three.out, "--until_done", "--json").json()
    (shims / "armed.here").touch()
    armed.touch()  # from now on it is the finaliser that calls sbatch
    finaliser = done["arrays"][-1]["job"]
    deadline = time.monotonic() + 120
    while armed.exists():
        assert time.monotonic() < deadline, three.status()
        time.sleep(0.5)
    faults.clear()
    time.sleep(2)
    three.cluster.run("scontrol", "requeue", f"{finaliser}_0", check=False)
    three.cluster.run("scontrol", "update", f"jobid={finaliser}_0", "starttime=now+2", check=False)
    told = three.wait(
        lambda facts: {task["state"] for task in facts["tasks"]} == {"done"}, timeout_s=180
    )
    assert told["tasks"][0]["attempts"] == 3  # the first, the relaunch, and once by itself
