"""Evaluate the text of a Python literal, in one thread at a time."""

from __future__ import annotations

import ast
import threading
from typing import Any

_ONE_AT_A_TIME = threading.Lock()
"""Python 3.11 counts the depth of all threads' syntax trees together, and raises SystemError if two
threads build one at once. Plans read headers in many threads."""


def literal(text: str) -> Any:
    """Return the value of a literal, such as ``[0.75, 0.75]``.

    Raises:
        ValueError, SyntaxError, TypeError, MemoryError, RecursionError: ``text`` is none.
    """
    with _ONE_AT_A_TIME:
        return ast.literal_eval(text)
