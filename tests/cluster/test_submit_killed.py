"""A submitter killed at the two worst moments: the next command finds out what became of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.testbed import Cluster
from tests.cluster.site import SMALL_MEMORY_GB, Site, site


@pytest.fixture
def two(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    with site(cluster, tmp_path, tasks=2) as one:
        yield one


def submit_and_be_killed(one: Site, script: str) -> None:
    """Submit with an sbatch of our own that runs ``script``; kill the submitter when it says so."""
    folder = one.out.parent / "bin"
    folder.mkdir()
    told = folder / "told"
    sbatch = folder / "sbatch"
    real = shutil.which("sbatch")
    sbatch.write_text(f"#!/bin/sh\n{script.format(real=real, told=told)}\n")
    sbatch.chmod(sbatch.stat().st_mode | stat.S_IXUSR)
    one.environment["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    process = one.start("submit", one.out, "--mem_gb", SMALL_MEMORY_GB, "--setup", "sleep 5")
    deadline = time.monotonic() + 60
    while not told.exists():
        assert time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    del one.environment["PATH"]


def answer(one: Site) -> dict[str, object]:
    facts: dict[str, object] = json.loads(
        (one.dataset.submissions / "0001" / "array-00.json").read_text()
    )
    return facts


def test_killed_between_intent_and_sbatch_nothing_was_submitted(two: Site) -> None:
    submit_and_be_killed(two, 'touch "{told}"; exec sleep 600')
    early = two.status()
    # The scheduler may still be about to hear of it: neither live nor free.
    assert {(t["state"], t["evidence"]) for t in early["tasks"]} == {("unknown", "intent")}
    assert two.cli("submit", two.out).code == 4
    two.wait(lambda facts: all(task["state"] == "pending" for task in facts["tasks"]))
    assert not (two.dataset.submissions / "0001" / "array-00.json").exists()  # looking writes not
    two.submit()
    assert answer(two)["job_id"] is None
    two.wait_until_settled()
    assert set(two.states().values()) == {"done"}


def test_killed_right_after_sbatch_the_job_is_found_again(two: Site) -> None:
    submit_and_be_killed(two, '"{real}" "$@" > /dev/null; touch "{told}"; exec sleep 600')
    again = two.cli("submit", two.out)
    assert again.code == 4
    assert "live" in again.stderr
    assert answer(two)["found_by"] == "squeue"
    # Its elements can start although the submitter never came to tell them their payload.
    facts = two.wait_until_settled()
    assert [task["state"] for task in facts["tasks"]] == ["done"] * 2
    assert [task["attempts"] for task in facts["tasks"]] == [1, 1]


def test_with_the_scheduler_silent_it_stays_unknown_and_is_refused(two: Site) -> None:
    submit_and_be_killed(two, 'touch "{told}"; exec sleep 600')
    for tool in ("squeue", "sacct"):
        path = two.out.parent / "bin" / tool
        path.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
        path.chmod(0o755)
    two.environment["PATH"] = f"{two.out.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    facts = two.status()
    assert {task["state"] for task in facts["tasks"]} == {"unknown"}
    assert any(problem.startswith("squeue: ") for problem in facts["unavailable"])
    for words in (("submit", two.out), ("relaunch", two.out), ("run", two.out)):
        assert two.cli(*words).code == 4
