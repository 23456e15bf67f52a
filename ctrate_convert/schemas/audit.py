"""An audit's lines: the summary first, then one a deleted source."""

from __future__ import annotations

from typing import Literal

from ctrate_convert.schemas.base import Key, Record, RelativePath, Sha256


class AuditSummary(Record):
    """What was accounted for. ``checked_now``: members read again and their digests compared.

    ``in_the_trash`` of the deleted sources were moved, not deleted.
    """

    schema_number: Literal[1] = 1
    program_version: str
    time: str
    plans: tuple[Sha256, ...]
    deleted_sources: int
    deleted_bytes: int
    in_the_trash: int = 0
    in_a_recorded_shard: int
    checked_now: int
    findings: int
    verdict: str


class AuditedSource(Record):
    """One deleted source: when, by whose leave, and the member that holds its volume.

    ``finding`` is empty where nothing is wrong, ``trash`` where the file was not moved to one.
    """

    key: Key
    source: RelativePath
    size_bytes: int
    deleted: str
    authorised_by: str
    shard: str
    member: str
    array_blake3: str
    checked: bool
    finding: str
    trash: str = ""
