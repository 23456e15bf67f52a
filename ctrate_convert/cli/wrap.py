"""Wrap text at the width of a terminal, where a Chinese character takes two cells."""

from __future__ import annotations

import re
import textwrap

from rich.cells import cell_len

WIDTH = 80

_WIDE = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
_PIECE = re.compile(
    rf"\s+|[（“《]*(?:/[^\s，。；：、）]+|[{_WIDE}]|[^\s{_WIDE}]+)[，。；：、！？）”》]*"
)
"""What stays in one line: a path, a word or a wide character, with brackets and stops; blanks."""


def wrap(text: str, *, first: str = "", rest: str = "", width: int = WIDTH) -> list[str]:
    """Return ``text`` in lines of at most ``width`` cells, but paths and options in one piece.

    The first line begins with ``first``, the others with ``rest``.
    """
    if cell_len(text) == len(text):
        return textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent=rest,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    lines, line, is_empty = [], first, True
    for piece in _PIECE.findall(text):
        if not is_empty and cell_len(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line, is_empty = rest, True
        if not (is_empty and piece.isspace()):
            line, is_empty = line + piece, False
    return [*lines, line.rstrip()]
