"""Processes as /proc shows them: which are ours, and ending exactly those.

A process id alone proves nothing, ids are reused. A process is taken for ours when its start time
is the recorded one, when its environment carries our mark, or when it holds our files open.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from slurm.testbed.errors import TestbedError

PROC = Path("/proc")
POLL_INTERVAL_S = 0.02


def wait_until(
    condition: Callable[[], bool],
    *,
    timeout_s: float,
    what: str,
    interval_s: float = POLL_INTERVAL_S,
    explain: Callable[[], str] = str,
) -> None:
    """Return once the condition holds; after `timeout_s` raise with `what` and `explain()`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            details = explain()
            message = f"waited {timeout_s:g} s in vain: {what}"
            raise TestbedError(f"{message}\n{details}" if details else message)
        time.sleep(interval_s)


def start_ticks(pid: int) -> int | None:
    """When the live process started, in clock ticks since boot; None for none or a zombie."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may itself hold blanks and parentheses: count from the last one.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def is_running(pid: int, started_ticks: int) -> bool:
    """Whether that very process still runs, not another one that was given its id."""
    reap(pid)
    return start_ticks(pid) == started_ticks


def reap(pid: int) -> None:
    """Collect the exit status of a child that ended; of others nothing happens."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def kill(pid: int, signal_number: int = signal.SIGKILL) -> None:
    """Send the signal; a process that is gone already is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal_number)


def process_ids() -> Iterator[int]:
    """Every process of this machine but the present one."""
    own = os.getpid()
    for entry in PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != own:
            yield int(entry.name)


def environment_of(pid: int) -> dict[str, str]:
    """What the process was started with; empty if it is gone, or somebody else's."""
    try:
        data = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.partition("=") for entry in os.fsdecode(data).split("\0"))
    return {name: value for name, equals, value in pairs if equals}


def name_of(pid: int) -> str:
    """The program's name as the kernel keeps it, at most 15 letters; empty if it is gone."""
    try:
        return (PROC / str(pid) / "comm").read_text().rstrip("\n")
    except OSError:
        return ""


def open_files(pid: int) -> set[str]:
    """The paths the process holds open; empty if it is gone, or somebody else's."""
    paths = set()
    with contextlib.suppress(OSError):
        for entry in (PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                paths.add(str(entry.readlink()))
    return paths


def is_step_daemon(pid: int, log_files: set[str]) -> bool:
    """Whether it is a slurmstepd that writes one of these logs.

    Its environment cannot be asked: slurmstepd overwrites it with its title.
    """
    return name_of(pid) == "slurmstepd" and not log_files.isdisjoint(open_files(pid))


def end_all(find: Callable[[], Iterable[int]], *, timeout_s: float) -> int:
    """Kill what `find` finds until it finds nothing; the number of processes killed."""
    killed: dict[int, int] = {}

    def nothing_left() -> bool:
        left = {pid: ticks for pid in find() if (ticks := start_ticks(pid)) is not None}
        for pid in left:
            kill(pid)
        killed.update(left)
        return not left and not any(is_running(*process) for process in killed.items())

    wait_until(nothing_left, timeout_s=timeout_s, what="all processes of the testbed gone")
    return len(killed)
