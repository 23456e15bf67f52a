"""Two who submit at the same time make one array; so do two one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.testbed import Cluster
from tests.cluster.site import SMALL_MEMORY_GB, Site, site


@pytest.fixture
def four(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    with site(cluster, tmp_path, tasks=4) as one:
        yield one


def test_two_processes_at_once_make_one_array(four: Site) -> None:
    words = ("submit", four.out, "--mem_gb", SMALL_MEMORY_GB, "--setup", "sleep 20")
    both = [four.start(*words) for _ in range(2)]
    texts = [process.communicate(timeout=120) for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 4], texts
    assert len(list(four.dataset.submissions.iterdir())) == 1
    assert len(four.jobs_named()) == 2  # the array and its finaliser


def test_two_processes_make_one_array_where_locks_exclude_nobody(four: Site) -> None:
    # filelock that never locks: what a mount with local locks amounts to.
    hook = four.out.parent / "sitecustomize.py"
    hook.write_text(
        "import filelock\n"
        "filelock.FileLock.acquire = lambda self, *a, **k: None\n"
        "filelock.FileLock.release = lambda self, *a, **k: None\n"
    )
    four.environment["PYTHONPATH"] = str(hook.parent)
    words = ("submit", four.out, "--mem_gb", SMALL_MEMORY_GB, "--setup", "sleep 20")
    several = [four.start(*words) for _ in range(4)]
    texts = [process.communicate(timeout=120) for process in several]
    assert sorted(process.returncode for process in several) == [0, 4, 4, 4], texts
    assert len(four.jobs_named()) == 2


def test_a_second_submit_of_live_tasks_is_refused(four: Site) -> None:
    four.submit("--setup", "sleep 20")
    again = four.cli("submit", four.out)
    assert again.code == 4
    assert "4 tasks are live" in again.stderr
    assert four.cli("relaunch", four.out).code == 4
    assert len(list(four.dataset.submissions.iterdir())) == 1
