"""The deletion journal: one line an event, an intent before every unlink, never rewritten."""

from __future__ import annotations

from typing import Literal

from ctrate_convert.schemas.base import Key, Record, RelativePath


class JournalLine(Record):
    """What was intended or done with one source file.

    ``intent`` comes before the unlink, ``deleted`` after it. ``found_gone`` closes an intent
    whose file a killed process had removed already. ``kept`` tells why a file stays.
    """

    schema_number: Literal[1] = 1
    event: Literal["intent", "deleted", "found_gone", "kept"]
    key: Key
    source: RelativePath
    size_bytes: int
    time: str
    authorised_by: str
    reason: str = ""
