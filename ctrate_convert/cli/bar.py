"""Show how far a command is, on standard error: a bar at a terminal, a line now and then elsewhere.

A command that takes less than a few seconds shows nothing where there is no terminal.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ctrate_convert.cli import show
from ctrate_convert.cli.terminal import shown

_LINE_EVERY_S = 10.0


class Bar:
    """The display of one command; a context manager. ``first`` are its words before any number."""

    def __init__(self, name: str, first: str = "", *, transient: bool = False) -> None:
        self._name = name
        self._last_line = time.monotonic()
        self._first = (0.0, 0, 0)  # when the first number of a total came, and both
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=transient,
            )
            self._task = self._bar.add_task(name, total=None, facts=first)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the bar, for what is shown next."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def update(self, done: int, total: int, facts: str) -> None:
        """Show that ``done`` of ``total`` are done, in the words of ``facts``, and the time left.

        ``total`` is 0 while it is not known.
        """
        if total:
            facts += self._time_left(done, total)
        if self._bar:
            self._bar.update(self._task, total=total or None, completed=done, facts=facts)
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            show.note(f"{self._name}: {facts}")

    def _time_left(self, done: int, total: int) -> str:
        # Counted from the first number on: what came before, as looking for files, tells nothing.
        now = time.monotonic()
        if total != self._first[2]:
            self._first = (now, done, total)
        began, first, _ = self._first
        if not first < done < total:
            return ""
        return f", ETA {show.duration((now - began) / (done - first) * (total - done))}"

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._bar:
            # Without markup, since rich would take brackets in a name for a style.
            self._bar.console.print(shown(text), markup=False)
        else:
            show.note(text)


class ShardBar(Bar):
    """A bar that counts shards; it is called with how many are done, and of how many."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "looking at records", transient=True)

    def __call__(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` shards are done."""
        self.update(done, total, f"{done:,}/{total:,} shards")
