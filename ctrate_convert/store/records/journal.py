"""The deletion journal: one line an event, an intent before every step, never rewritten."""

from __future__ import annotations

from typing import Literal

from ctrate_convert.store.records.base import Key, Record, RelativePath, SizeBytes

Event = Literal["intent", "deleted", "found_gone", "kept", "undecided", "trashed", "restored"]


class JournalLine(Record):
    """One line: what was intended or done with one source file.

    ``intent`` comes before a source is touched, ``deleted`` after it is gone. ``found_gone`` closes
    an intent whose file a killed process had removed. ``kept`` gives the reason why a file stays
    for good, ``undecided`` why it stays for now: the next command tries again. ``trashed`` stands
    for ``deleted`` where the file was moved, ``restored`` for its way back; ``trash`` is the place
    it was moved to, in an intent the place it is going to. ``inode`` and ``mtime_ns`` identify a
    moved file (0: as in the shard's record). ``folder_inode``, of an intent, identifies the folder
    that the source was in (0: not known).
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
    inode: int = 0
    mtime_ns: int = 0
    folder_inode: int = 0
