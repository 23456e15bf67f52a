"""A small process that takes the testbed down when its starter dies without doing so.

It reads a pipe whose other end only the starter holds: a byte means that the testbed was stopped
properly, the end of the pipe that the starter is dead, however it died.
"""

import os
import sys
from pathlib import Path

from slurm.testbed.processes import reap, start_ticks, wait_until
from slurm.testbed.requirements import search_path
from slurm.testbed.teardown import take_down

REPOSITORY = Path(__file__).resolve().parents[2]


class Guard:
    """Watches over one testbed on behalf of the process that makes this object."""

    def __init__(self, directory: Path, output: Path) -> None:
        read_end, self._write_end = os.pipe()
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-m", "slurm.testbed", "guard", str(directory)],
                {"PATH": search_path(), "PYTHONPATH": str(REPOSITORY)},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, read_end, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
            )
        finally:
            os.close(read_end)

    def dismiss(self) -> None:
        """Let the guard go: the testbed was taken down."""
        try:
            os.write(self._write_end, b"x")
        except BrokenPipeError:
            pass  # the guard is gone already
        finally:
            os.close(self._write_end)

        def gone() -> bool:
            reap(self._pid)
            return start_ticks(self._pid) is None

        wait_until(gone, timeout_s=10, what="the end of the testbed's guard")


def watch(directory: Path) -> None:
    """Block until the starter stops the testbed or dies; in the latter case take it down."""
    if os.read(0, 1) == b"":
        take_down(directory)
