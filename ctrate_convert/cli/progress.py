"""Show the progress of a run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ctrate_convert.cli import show
from ctrate_convert.cli.terminal import shown
from ctrate_convert.errors import Interrupted
from ctrate_convert.running.pool import Message
from ctrate_convert.running.result import RunResult
from ctrate_convert.running.worker import ShardFailed

_LINE_EVERY_S = 10.0


class RunProgress:
    """A display of a run on standard error: samples, MB/s, freed space, time left.

    It is a context manager.
    """

    def __init__(self, verb: str = "convert") -> None:
        self._verb = verb
        self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(verb, total=None, facts="")

    def __enter__(self) -> RunProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, result: RunResult, message: Message) -> None:
        """Show ``message``; ``result`` is the sum so far."""
        if isinstance(message, ShardFailed) and not isinstance(message.error, Interrupted):
            self._say(f"shard {message.shard}: {message.error.one_line()}")
        facts = _facts(result)
        if self._bar:
            self._bar.update(
                self._task,
                total=result.samples_total,
                completed=result.samples_done,
                facts=facts,
            )
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            show.note(f"{self._verb}: {facts}")

    def paused(self, paused: bool, free_bytes: int) -> None:
        """Say that no shard is begun for want of space, or that the run goes on."""
        free = f"{show.size(max(0, free_bytes))} stay free at the output"
        self._say(f"paused: {free}" if paused else f"going on: {free}")

    def warn(self, text: str) -> None:
        """Say what a person should know before the first shard."""
        self._say(f"WARNING: {text}")

    def _say(self, text: str) -> None:
        if self._bar:
            # Without markup, since rich would take brackets in a name for a style.
            self._bar.console.print(shown(text), markup=False)
        else:
            show.note(text)


def _facts(result: RunResult) -> str:
    speed = result.array_bytes / max(result.elapsed_s, 1e-6) / 1e6
    text = f"{result.samples_done:,}/{result.samples_total:,} samples, {speed:,.0f} MB/s"
    if result.deletion.freed_bytes:
        text += f", {show.size(result.deletion.freed_bytes)} freed"
    if result.samples_done:
        left = result.elapsed_s * (result.samples_total / result.samples_done - 1)
        text += f", ETA {show.duration(left)}"
    return text
