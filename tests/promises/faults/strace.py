"""Commands under strace: which calls they make on files that matter, and one of them failing."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from tests.support import TIMEOUT_S

CALLS = {
    "open": ("open", "openat"),
    "write": ("write", "pwrite64"),
    "statx": ("statx",),
    "fsync": ("fsync",),
    "link": ("link", "linkat"),
    "rename": ("rename", "renameat", "renameat2"),
    "unlink": ("unlink", "unlinkat"),
    "close": ("close",),
}
"""What may fail, and the kernel's names for it."""

READS = ("read", "pread64", "preadv")

FAULTS = ("EIO", "ENOSPC", "EDQUOT", "ESTALE", "EINTR", "KILL")

_ENTERED = re.compile(r"(\d+)\s+(\w+)\((.*)")
_KILLED = "+++ killed by SIGKILL +++"


class Fault(NamedTuple):
    """Each process's and thread's ``when``-th ``call`` fails with ``how``."""

    call: str
    when: int
    how: str

    def __str__(self) -> str:
        return f"{self.how} at {self.call} {self.when}"

    @property
    def reason(self) -> str:
        """The system's words for it."""
        return os.strerror(getattr(errno, self.how))


@dataclass(frozen=True)
class Told:
    """How a command ended, what it said, and what strace saw."""

    code: int
    text: str
    log: str = ""

    def met_below(self, folder: Path) -> bool:
        """Whether the fault hit a call on a file below ``folder``, or a kill hit a process."""
        hit = any("(INJECTED)" in line and str(folder) in line for line in self.log.splitlines())
        return hit or _KILLED in self.log


def points(log: str, calls: tuple[str, ...], folder: Path) -> list[tuple[str, int]]:
    """The calls on files below ``folder``, each with its number, in the order of time.

    Only numbers at which every process and thread has such a call, or none: a fault hits them all.
    """
    numbers: Counter[tuple[str, str]] = Counter()
    ours: dict[tuple[str, int], bool] = {}
    for line in log.splitlines():
        if entered := _ENTERED.match(line):
            task, call, words = entered.groups()
            numbers[task, call] += 1
            point = call, numbers[task, call]
            ours[point] = ours.get(point, True) and str(folder) in words
    return [point for point, good in ours.items() if good and point[0] in calls]


class Commands:
    """Runs command lines in forks of one process; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._said, self._log = folder / "said.txt", folder / "strace.txt"
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.promises.faults.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zygote.stdin.close()  # type: ignore[union-attr]
        self._zygote.wait()
        self._zygote.stdout.close()  # type: ignore[union-attr]

    def run(self, words: list[object], *, worker_processes: bool = False) -> Told:
        """Run it, undisturbed."""
        return self._run(words, worker_processes, [])

    def watch(self, words: list[object], *, worker_processes: bool = False) -> Told:
        """Run it, undisturbed, and tell every call that may fail."""
        calls = ",".join((*(name for names in CALLS.values() for name in names), *READS))
        return self._run(words, worker_processes, ["-y", "-s0", "-e", f"trace={calls}"])

    def disturb(self, words: list[object], fault: Fault, *, worker_processes: bool = False) -> Told:
        """Run it; a call fails, or a process is killed there."""
        how = "signal=KILL" if fault.how == "KILL" else f"error={fault.how}"
        inject = f"inject={fault.call}:{how}:when={fault.when}"
        strace = ["-y", "-s0", "-e", f"trace={fault.call}", "-e", inject]
        return self._run(words, worker_processes, strace)

    def _run(self, words: list[object], worker_processes: bool, strace: list[str]) -> Told:
        job = {
            "words": [str(word) for word in words],
            "said": str(self._said),
            "worker_processes": worker_processes,
            "timeout_s": TIMEOUT_S,
        }
        self._said.write_text("")
        pid = self._ask(json.dumps(job))
        if not strace:
            return Told(self._ask("go"), self._said.read_text())
        with subprocess.Popen(
            ["strace", "-f", "-o", str(self._log), "-p", str(pid), *strace],
            stderr=subprocess.PIPE,
            text=True,
        ) as tracer:
            attached = tracer.stderr.readline()  # type: ignore[union-attr]
            code = self._ask("go")
            tracer.communicate()  # it ends with the last process that it follows
        assert "attached" in attached, attached
        return Told(code, self._said.read_text(), self._log.read_text())

    def _ask(self, line: str) -> int:
        self._zygote.stdin.write(line + "\n")  # type: ignore[union-attr]
        self._zygote.stdin.flush()  # type: ignore[union-attr]
        return int(self._zygote.stdout.readline())  # type: ignore[union-attr]
