"""The lines of docs/reading.md, run as they stand there."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reading.md"


def lines_of(title: str) -> str:
    """The first program below a heading."""
    text = PAGE.read_text()
    found = re.search(rf"^###? {re.escape(title)}\n(?:(?!^#).*\n)*?```py(?:thon)?\n", text, re.M)
    assert found, title
    return text[found.end() : text.index("\n```", found.end())]


def run_lines(title: str, encoding: str = "npy", *, importable: bool = False) -> dict[str, Any]:
    """Run them in this process and return their names; ``volume.npy`` is that of the encoding.

    ``importable`` makes them a module, so that forked workers can pickle what is of its classes.
    Ray's workers are not forked, and get what is of no module by value. Paths become absolute ones:
    Ray's workers have another working directory, and DALI keeps a file mapped by its path, which
    the next test has too.
    """
    program = lines_of(title).replace("volume.npy", f"volume.{encoding}")
    program = re.sub(r'"(?=(shards|for-\w+)/?)', f'"{Path.cwd()}/', program)
    module = types.ModuleType(f"documented_{re.sub(r'[^a-z]', '_', title.lower())}")
    if importable:
        sys.modules[module.__name__] = module
    exec(compile(program, str(PAGE), "exec", dont_inherit=True), vars(module))
    return vars(module)
