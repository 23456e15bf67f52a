"""One finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing tried: how it was found, what was seen, and what follows.

    ``weaker`` is safe, and costs time or work. ``not tested`` is never taken for good.
    """

    what: str
    verdict: Literal["good", "weaker", "bad", "not tested"]
    seen: str
    consequence: str = ""
