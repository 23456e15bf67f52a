"""The doctor's finding about one thing that it tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor tried: its verdict, what it saw, and what follows.

    ``weaker`` is safe, at the cost of time or work. ``not tested`` never counts as good.
    """

    what: str
    verdict: Literal["good", "weaker", "bad", "not tested"]
    seen: str
    consequence: str = ""
