"""Print reports: plain lines and small tables for people, JSON for programs.

All that the command line prints goes through here, so that nothing in it can command a terminal.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import click
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ctrate_convert.cli.language import translated, word
from ctrate_convert.cli.terminal import ask, is_unicode, json_shown, line, note, shown_in_line
from ctrate_convert.cli.wrap import wrap
from ctrate_convert.errors import CtrateError
from ctrate_convert.looking.words import count, duration, size, speed

__all__ = [
    "as_json",
    "ask",
    "console",
    "count",
    "duration",
    "error_as_json",
    "line",
    "note",
    "say",
    "size",
    "some",
    "speed",
    "table",
    "wrapped",
]


def console() -> Console:
    """Return standard output as a console, wide enough for a table if it is no terminal."""
    width = None if sys.stdout.isatty() else 160
    return Console(width=width, highlight=False, soft_wrap=not sys.stdout.isatty())


def wrapped(text: str, indent: int = 2) -> None:
    """Print a sentence; at a terminal its words stay whole, and further lines are indented."""
    if not sys.stdout.isatty():
        line(text)
        return
    # What a terminal would obey is escaped first, so that a line is not longer than it seems.
    for part in wrap(shown_in_line(text), width=max(40, console().width), rest=" " * indent):
        line(part)


def say(text: str) -> None:
    """Print one line of a report, in the reader's language if the catalog has the sentence."""
    line(translated(text))


def some(texts: Iterable[str], most: int = 20) -> None:
    """Print the first lines, and how many more there are."""
    lines = list(texts)
    for text in lines[:most]:
        line(text)
    if len(lines) > most:
        line(f"  … and {len(lines) - most:,} more (--json names all)")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a small table.

    A column marked ``>name`` is right-aligned, as numbers should be. It and one marked ``=name``
    keep their words in one piece where the terminal is narrow; the others are folded. A cell may be
    a ``Text`` with a style, of words that are no one else's.
    """
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        kept = column[0] in "=>"
        grid.add_column(word(column.lstrip("=>")), justify=justify, overflow="fold", no_wrap=kept)
    for row in rows:
        # Text, since rich would take brackets in a plain string for a style.
        cells = (c if isinstance(c, Text) else Text(shown_in_line(str(c))) for c in row)
        grid.add_row(*cells)
    console().print(grid)


JSON_SCHEMA_NUMBER = 1
"""The schema of every ``--json`` report and error.

Raise it when a field is renamed, removed or redefined.
"""


def as_json(report: Any) -> None:
    """Print ``report``, a record or mapping, as indented JSON that names its schema number."""
    plain = {"schema_number": JSON_SCHEMA_NUMBER, **_plain(report)}
    text = json.dumps(plain, indent=1, ensure_ascii=not is_unicode(), allow_nan=False)
    click.echo(json_shown(text))


def error_as_json(error: CtrateError) -> None:
    """Print ``error`` as JSON: its kind, its exit code and its facts."""
    facts = ("what", "where", "seen", "expected", "next_command")
    as_json(
        {
            "error": {
                "kind": type(error).__name__,
                "exit_code": int(error.exit_code),
                **{name: getattr(error, name) for name in facts},
            }
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return json.loads(value.model_dump_json())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
