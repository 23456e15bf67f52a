"""Show the progress of planning: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ctrate_convert.cli import show

_LINE_EVERY_S = 10.0


class PlanProgress:
    """A display of planning on standard error; a context manager.

    A plan that takes less than a few seconds shows nothing where there is no terminal.
    """

    def __init__(self) -> None:
        self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("plan"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("plan", total=None, facts="looking for volumes")

    def __enter__(self) -> PlanProgress:
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
        """Remove the bar, for what is shown next."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def __call__(self, done: int, total: int) -> None:
        """Show how many volumes were found, while ``total`` is 0, or how many headers were read."""
        facts = f"{done:,}/{total:,} headers read" if total else f"{done:,} volumes found"
        if self._bar:
            self._bar.update(self._task, total=total or None, completed=done, facts=facts)
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            show.note(f"plan: {facts}")
