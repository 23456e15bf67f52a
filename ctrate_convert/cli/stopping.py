"""Stop a run in order at Ctrl+C or SIGTERM: say so at once, and afterwards what was given up."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from ctrate_convert.cli import show
from ctrate_convert.cli.language import translated
from ctrate_convert.running.pool import StopFlag, stop_on_signals
from ctrate_convert.running.result import RunResult

_STDERR = 2


@contextlib.contextmanager
def stoppable() -> Iterator[StopFlag]:
    """Make the signals set the flag within the block, and say that the command is stopping."""
    with stop_on_signals(StopFlag(), on_signal=_say_stopping) as stop:
        yield stop


def _say_stopping(name: str) -> None:
    text = translated(f"stopping ({name}): shards under way are given up within 30 s, none is lost")
    # A bar's last line is open: this takes its place, and the bar is drawn again below.
    begin = "\r\x1b[2K" if sys.stderr.isatty() else ""
    data = f"{begin}{text}\n".encode(sys.stderr.encoding or "utf-8", "backslashreplace")
    # Not through sys.stderr: the signal may have come while it was being written to.
    with contextlib.suppress(OSError):
        os.write(_STDERR, data)


def print_stopped(result: RunResult) -> None:
    """Print what a stopped run gave up, and that the same command goes on."""
    if result.given_up:
        shards = show.count(len(result.given_up), "half-converted shard")
        samples = show.count(sum(result.given_up.values()), "volume")
        show.say(f"Given up: {shards}; converted again next time: {samples}.")
    show.say(f"Stopped by {result.stopped_by}; nothing is lost, the same command goes on.")
