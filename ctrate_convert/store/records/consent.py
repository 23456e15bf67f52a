"""The consent record: a person's permission to delete the sources of named shards."""

from __future__ import annotations

from typing import Literal

from ctrate_convert.store.records.base import Record, Sha256, SizeBytes


class Consent(Record):
    """``consents/NAME.json``: who allowed which deletion, when, where and by which command.

    ``shards`` are ranges that include their first and last number. ``plans`` maps the id of each
    plan to the largest error that it accepts (None: its default bound). ``files``, ``size_bytes``
    and ``rounding`` are the numbers that the question showed. ``trash`` is the folder to which
    sources are moved instead (empty: they are deleted). ``copies`` are folders that must hold each
    shard too.
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
        """Return True if the consent allows deletions of this shard's sources."""
        return any(first <= shard <= last for first, last in self.shards)

    def words(self) -> str:
        """Return one line for reports: who allowed what, when, where and by which command."""
        what = f"move to {self.trash}" if self.trash else "delete"
        shards = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in self.shards)
        return (
            f"{self.user} on {self.host}, {self.time}, by `{self.command}`: {what} up to "
            f"{self.files:,} files ({self.size_bytes:,} bytes) of shards {shards}"
        )
