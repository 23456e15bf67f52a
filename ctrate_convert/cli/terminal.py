"""Make text safe for a terminal: nothing from names, tables, logs and errors can command it.

An escape sequence in a file name can rewrite the screen, the window's title or the clipboard, and a
bidirectional override can make one path look like another.
"""

from __future__ import annotations

import codecs
import io
import re
import sys

import click

_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters except newline and tab, marks of direction, and bytes that are no text."""


def shown(text: str) -> str:
    """Return ``text`` with every character escaped that a terminal would obey, not show."""
    return _COMMANDS.sub(_escaped, text)


def shown_in_line(text: str) -> str:
    """Escape ``text`` for a cell or a name: as `shown` does, and newlines and tabs too."""
    return shown(text).replace("\n", "\\n").replace("\t", "\\t")


def json_shown(text: str) -> str:
    """Return JSON with control characters as JSON's own escapes, so that it means the same."""
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def escape_what_cannot_be_encoded() -> None:
    """Let a stream that is not UTF-8 show what it cannot encode as an escape, and never fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def is_unicode() -> bool:
    """Return True if standard output takes every character."""
    return codecs.lookup(sys.stdout.encoding or "utf-8").name.startswith("utf")


def line(text: str = "") -> None:
    """Print one line of a report."""
    click.echo(shown(text))


def picture_line(text: str, *, colour: bool) -> None:
    """Print one line of a picture that the program drew itself: its colours are obeyed."""
    click.echo(text, color=colour)


def note(text: str) -> None:
    """Print one line on standard error: progress, a warning, an error."""
    click.echo(shown(text), err=True)


def ask(question: str) -> str:
    """Ask ``question`` on standard error and return the answer; empty for a bare Enter."""
    try:
        answer: str = click.prompt(shown(question), default="", show_default=False, err=True)
    except click.Abort:
        note("")  # end the line of the question
        raise
    return answer


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
