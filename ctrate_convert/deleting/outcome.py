"""The outcome of a deletion: the sources that went, and those that stay with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kept:
    """A source that stays, and the reason."""

    key: str
    source: str
    size_bytes: int
    reason: str


@dataclass
class Deletion:
    """The outcome for the sources of one or more shards: counts, bytes, and the kept ones."""

    deleted_files: int = 0
    freed_bytes: int = 0
    trashed_files: int = 0
    trashed_bytes: int = 0
    trashes: set[str] = field(default_factory=set)
    kept: list[Kept] = field(default_factory=list)

    def add(self, other: Deletion) -> None:
        """Add the counts and kept sources of ``other`` to this outcome."""
        self.deleted_files += other.deleted_files
        self.freed_bytes += other.freed_bytes
        self.trashed_files += other.trashed_files
        self.trashed_bytes += other.trashed_bytes
        self.trashes |= other.trashes
        self.kept.extend(other.kept)
