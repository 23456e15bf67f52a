"""The lines of docs/reading.md, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reading.md"


def lines_of(title: str) -> str:
    """The first program below a heading."""
    text = PAGE.read_text()
    found = re.search(rf"^###? {re.escape(title)}\n(?:(?!^#).*\n)*?```py(?:thon)?\n", text, re.M)
    assert found, title
    return text[found.end() : text.index("\n```", found.end())]


def run_lines(title: str, encoding: str = "npy") -> dict[str, Any]:
    """Run them in this process and return their names; ``volume.npy`` is that of the encoding.

    Paths become absolute ones: Ray's workers have another working directory, and DALI keeps a file
    mapped by its path, which the next test has too.
    """
    names: dict[str, Any] = {"__name__": "documented"}
    program = lines_of(title).replace("volume.npy", f"volume.{encoding}")
    program = re.sub(r'"(?=(shards|for-\w+)/?)', f'"{Path.cwd()}/', program)
    exec(compile(program, str(PAGE), "exec", dont_inherit=True), names)
    return names
