"""A defect that was found in what lies on disk."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """A defect that was found: the affected sample (None: the whole shard), and a description."""

    shard: str
    key: str | None
    what: str
