"""The table of the tasks: as many columns as the terminal has room for, and states in colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from ctrate_convert.cli import show
from ctrate_convert.cli.language import word
from ctrate_convert.cluster.states.evidence import State
from ctrate_convert.cluster.states.status import TaskLine, fold

_FOLD_ABOVE = 40
_REASON_COLUMNS = 26
"""The reason gets at least so many, so that its words stay whole."""

_COLUMNS = (
    "task", "state", "evidence", "reason", "attempts", "job", "node", "elapsed", "time", "CPU",
    "MaxRSS", "mem", "samples",
)  # fmt: skip
_NUMBERS = frozenset(("task", "attempts", "elapsed", "time", "CPU", "MaxRSS", "mem", "samples"))
_FIRST_TO_GO = ("CPU", "time", "mem", "attempts", "MaxRSS", "elapsed", "evidence", "node")

_COLOURS: dict[State, str] = {
    "done": "green",
    "running": "cyan",
    "pending": "",
    "stuck": "yellow",
    "failed": "red",
    "cancelled": "magenta",
    "unknown": "yellow",
}


def print_tasks(lines: Sequence[TaskLine], *, long: bool) -> None:
    """Print a row for each task.

    Neighbours in the same state share a row where there are many tasks, unless it is to be
    ``long``.
    """
    if len(lines) > _FOLD_ABOVE and not long:
        rows = [_row(name, line, number) for name, line, number in fold(lines)]
    else:
        rows = [_row(str(line.task), line, 1) for line in lines]
    shown = columns_that_fit(rows, show.console().width)
    marked = [_marked(name) for name in shown]
    show.table(marked, [[_cell(name, row[name]) for name in shown] for row in rows])


def columns_that_fit(rows: Sequence[dict[str, str]], width: int) -> list[str]:
    """Return the columns of which ``rows`` have anything to say and that ``width`` has room for."""
    shown = [name for name in _COLUMNS if any(row[name] for row in rows)]
    for name in _FIRST_TO_GO:
        if _width(shown, rows) <= width:
            break
        if name in shown:
            shown.remove(name)
    return shown


def _width(shown: Sequence[str], rows: Sequence[dict[str, str]]) -> int:
    gaps = 2 * (len(shown) - 1)
    return gaps + sum(
        min(
            max([cell_len(word(name)), *(cell_len(row[name]) for row in rows)]),
            _REASON_COLUMNS if name == "reason" else 10**6,
        )
        for name in shown
    )


def _marked(name: str) -> str:
    """Return the column's name as `show.table` takes it: only the reason may be folded."""
    return name if name == "reason" else f">{name}" if name in _NUMBERS else f"={name}"


def _cell(name: str, text: str) -> str | Text:
    if name != "state":
        return text
    styles = (style for state, style in _COLOURS.items() if word(state) == text)
    return next((Text(text, style) for style in styles), text)


def _row(name: str, line: TaskLine, number: int) -> dict[str, str]:
    """Return the cells by column; a row of several tasks tells only what they have in common."""
    state = word(line.state)
    common = {"task": name, "state": state, "evidence": line.evidence, "reason": line.reason}
    if number > 1:
        return {**dict.fromkeys(_COLUMNS, ""), **common, "samples": f"{number:,} tasks"}
    return {
        **common,
        "attempts": str(line.attempts),
        "job": line.job or "",
        "node": line.node or "",
        "elapsed": "" if line.elapsed_s is None else show.duration(line.elapsed_s),
        "time": _percent(line.time_share),
        "CPU": _percent(line.cpu_share),
        "MaxRSS": show.size(line.max_rss_bytes) if line.max_rss_bytes else "",
        "mem": _percent(line.memory_share),
        "samples": f"{line.samples_done}/{line.samples}",
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
