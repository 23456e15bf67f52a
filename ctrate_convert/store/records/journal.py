"""The records of a deletion journal: one line for each event, never rewritten."""

from __future__ import annotations

from typing import Literal

from ctrate_convert.store.records.base import Key, Record, RelativePath, SizeBytes

Event = Literal["intent", "deleted", "found_gone", "kept", "undecided", "trashed", "restored"]


class JournalLine(Record):
    """One line of the journal: an intent for a source file, or its outcome.

    ``intent`` is written before a source is touched, ``deleted`` after it is gone. ``found_gone``
    closes an intent whose file a killed process had removed. ``kept`` gives the reason why a file
    stays for good. ``undecided`` gives the reason why it stays for now; the next command tries
    again. ``trashed`` replaces ``deleted`` if the file was moved to a trash, ``restored`` says that
    it came back.

    ``trash`` is the path that the file was moved to, or in an intent will be moved to. ``inode``
    and ``mtime_ns`` identify a moved file (0: as in the shard's record). ``folder_inode``, in an
    intent, identifies the folder that the source was in (0: not known).
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
