"""Three hundred tasks in one array: a refresh asks squeue once and sacct once, and all adds up."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import termios
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm.testbed import Cluster
from tests.cluster.faults import Faults
from tests.cluster.site import Site, site
from tests.support import command, read_dataset

TASKS = 300
BROKEN = (100, 101, 102)
PATIENCE_S = 900


@pytest.fixture
def wide(real_slurm: None, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "wide", cpus_per_node=4) as running:
        yield running


class Counted:
    """squeue and sacct on PATH, each leaving a mark whenever it is called."""

    def __init__(self, one: Site, folder: Path) -> None:
        self._marks = folder / "marks"
        folder.mkdir()
        for tool in ("squeue", "sacct"):
            script = folder / tool
            script.write_text(
                f'#!/bin/sh\necho {tool} >> "{self._marks}"\nexec "{shutil.which(tool)}" "$@"\n'
            )
            script.chmod(0o755)
        one.environment["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def take(self) -> dict[str, int]:
        """How often each was called since the last time."""
        text = self._marks.read_text() if self._marks.exists() else ""
        self._marks.write_text("")
        return dict(Counter(text.split()))


def at_terminal(one: Site, *words: object) -> str:
    """What a command prints on a terminal of 200 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    try:
        with subprocess.Popen(
            command(*words), env=one.env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
        ) as process:
            os.close(theirs)
            text = b""
            while True:
                try:
                    text += os.read(ours, 65536)
                except OSError:  # the terminal's other end is closed
                    break
        assert process.returncode == 0, text
    finally:
        os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).replace("\r\n", "\n")


def totals(text: str) -> Counter[str]:
    (line,) = re.findall(r"^Tasks: (.*)\.$", text, re.MULTILINE)
    return Counter({state: int(number) for number, state in re.findall(r"(\d+) (\w+)", line)})


def rows(text: str) -> list[tuple[range, str]]:
    """The table's rows: the tasks that each stands for, and their state."""
    state = "done|running|pending|failed|unknown"
    found = re.findall(rf"^ *(\d+)(?:-(\d+))? +({state}) ", text, re.MULTILINE)
    return [(range(int(first), int(last or first) + 1), name) for first, last, name in found]


def assert_adds_up(facts: dict[str, Any], text: str) -> None:
    """Every task stands in exactly one row, every row's state is in the totals, all sums agree."""
    assert [task["task"] for task in facts["tasks"]] == list(range(TASKS))
    assert sum(facts["samples"].values()) == TASKS + 1  # one row of the tables has no volume
    folded = rows(text)
    assert [task for tasks, _ in folded for task in tasks] == list(range(TASKS))
    by_state: Counter[str] = Counter()
    for tasks, state in folded:
        by_state[state] += len(tasks)
    assert by_state == totals(text)
    (samples,) = re.findall(r"^Samples: (.*)\.$", text, re.MULTILINE)
    parts, _, total = samples.partition(" = ")
    assert sum(int(part.split()[0]) for part in parts.split(" + ")) == int(total) == TASKS + 1


def test_three_hundred_tasks_are_one_squeue_and_one_sacct_a_refresh(
    wide: Cluster, tmp_path: Path
) -> None:
    """The scheduler is asked as little about three hundred tasks as about one."""
    with site(wide, tmp_path, tasks=TASKS, shape=(4, 4, 2)) as one:
        faults = Faults(tmp_path / "faults")
        for index in BROKEN:
            faults.at(index, "exit")
        one.submit(*faults.words())
        assert len(one.jobs_named()) == 2  # one array, and its finaliser
        calls = Counted(one, tmp_path / "bin")
        deadline = time.monotonic() + PATIENCE_S
        seen: set[str] = set()
        while True:
            facts = one.status()
            states = Counter(task["state"] for task in facts["tasks"])
            seen |= states.keys()
            assert facts["unavailable"] == []
            if not states["pending"] and not states["running"]:
                break
            assert calls.take() == {"squeue": 1, "sacct": 1}
            text = at_terminal(one, "status", one.out)
            assert calls.take() == {"squeue": 1, "sacct": 1}
            assert_adds_up(facts, text)
            assert time.monotonic() < deadline, states
            time.sleep(10)
        assert seen == {"pending", "running", "done", "failed"}
        wide.wait_until_accounted()

        calls.take()
        text = at_terminal(one, "status", one.out)
        assert calls.take() == {"squeue": 1, "sacct": 1}
        assert_adds_up(one.status(), text)
        assert rows(text) == [
            (range(100), "done"),
            (range(100, 103), "failed"),
            (range(103, TASKS), "done"),
        ]
        assert totals(text) == {"done": 297, "failed": 3}
        assert len(read_dataset(one.out)) == TASKS - len(BROKEN)
