"""The deletion journal: one line an event, an intent before every step, never rewritten."""

from __future__ import annotations

from typing import Literal

from ctrate_convert.schemas.base import Key, Record, RelativePath, SizeBytes

Event = Literal["intent", "deleted", "found_gone", "kept", "trashed", "restored"]


class JournalLine(Record):
    """What was intended or done with one source file.

    ``intent`` comes before the unlink, ``deleted`` after it. ``found_gone`` closes an intent
    whose file a killed process had removed already. ``kept`` tells why a file stays. ``trashed``
    stands for ``deleted`` where the file was moved instead, ``restored`` for its way back;
    ``trash`` is where it was moved to, and of an intent where it is going to be.
    """

    schema_number: Literal[1] = 1
    event: Event
    key: Key
    source: RelativePath
    size_bytes: SizeBytes
    time: str
    authorised_by: str
    reason: str = ""
    trash: str = ""
