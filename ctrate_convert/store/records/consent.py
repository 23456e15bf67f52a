"""The consent: a person's word that sources of these shards may be deleted, kept as a record."""

from __future__ import annotations

from typing import Literal

from ctrate_convert.store.records.base import Record, Sha256, SizeBytes


class Consent(Record):
    """``consents/NAME.json``: who allowed which deletion, when, where and by which command.

    ``shards`` are ranges, first and last included; ``plans`` the plans that they belong to, with
    the largest error that each accepts (None: its default bound). ``files``, ``size_bytes`` and
    ``rounding`` are what the question said. ``trash`` is the folder that sources are moved to
    instead (empty: they are deleted). ``copies`` are folders that must hold each shard too.
    """

    schema_number: Literal[1] = 1
    name: str
    time: str
    user: str
    uid: int
    host: str
    command: str
    plans: dict[Sha256, float | None]
    shards: tuple[tuple[int, int], ...]
    files: int
    size_bytes: SizeBytes
    rounding: tuple[str, ...]
    discard_members: tuple[str, ...] = ()
    trash: str = ""
    copies: tuple[str, ...] = ()

    def names(self, shard: int) -> bool:
        """Return True if deletions of this shard's sources were allowed."""
        return any(first <= shard <= last for first, last in self.shards)

    def words(self) -> str:
        """Return one line for reports: who allowed what, when, where and by which command."""
        what = f"move to {self.trash}" if self.trash else "delete"
        shards = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in self.shards)
        return (
            f"{self.user} on {self.host}, {self.time}, by `{self.command}`: {what} up to "
            f"{self.files:,} files ({self.size_bytes:,} bytes) of shards {shards}"
        )
