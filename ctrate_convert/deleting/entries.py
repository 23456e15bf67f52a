"""Collect the journal's entries for one shard's sources while they are let go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from ctrate_convert.deleting.trash import (
    Identity,
    identity_at,
    is_in_trash,
    last_lines,
    place_in_trash,
    trash_of,
)
from ctrate_convert.store.durable import append_lines, open_beneath
from ctrate_convert.store.fresh import fresh_status
from ctrate_convert.store.journals import (
    by_consent,
    folder_inodes,
    is_done,
    journal_line,
    open_intents,
    read_journal,
)
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.journal import Event, JournalLine
from ctrate_convert.store.records.record import SourceFingerprint

_MISSING = "it is missing, though this program did not delete it"


class Entries:
    """The journal of one shard so far, and the lines that wait to be appended to it."""

    def __init__(self, dataset: Dataset, shard: int, data_folder: Path, consent: Consent) -> None:
        self.lines = read_journal(dataset, shard)
        self._newest = last_lines(self.lines)
        self._path = dataset.journal(shard)
        self._shard = shard
        self._folder = data_folder
        self._trash = Path(consent.trash) if consent.trash else None
        self._authorised_by = by_consent(consent.command, consent.name)
        self._waiting: list[str] = []
        self.folder_inodes = folder_inodes(self.lines)

    def write_intents(self, sources: Sequence[tuple[str, SourceFingerprint]]) -> None:
        """Write durably which sources are about to be touched."""
        for key, source in sources:
            # After a kill, the inode tells the folder from an empty mount point with the same path.
            self.folder_inodes[key] = self._folder_inode(source)
        if sources:
            append_lines(self._path, [self._moved("intent", *source) for source in sources])

    def write_outcomes(self) -> None:
        """Append the collected lines, which say what became of the sources."""
        if self._waiting:
            append_lines(self._path, self._waiting)
            self._waiting = []

    def taken(self, key: str, source: SourceFingerprint) -> None:
        """Note a source that was deleted, or moved to the trash."""
        self._waiting.append(self._moved("trashed" if self._trash else "deleted", key, source))

    def kept(self, event: Event, key: str, source: SourceFingerprint, reason: str) -> None:
        """Note why a source stays: for good (``kept``) or for now (``undecided``)."""
        self._waiting.append(self._line(event, key, source, reason=reason))

    def told_gone(self, key: str) -> bool:
        """Return True if the newest line that places the source says that it was taken away."""
        line = self._newest.get(key)
        return line is not None and is_done(line)

    def missing(self, key: str, source: SourceFingerprint) -> bool:
        """Note a source that was gone before this call; return True if it had an open intent."""
        if key in open_intents(self.lines):
            self.gone(key, source)
            return True
        # Every command finds it missing again. Without this check each one would append the same
        # line.
        told = [line.reason for line in self.lines if line.key == key][-1:] == [_MISSING]
        if not (told or self.told_gone(key)):
            self.kept("kept", key, source, _MISSING)
        return False

    def gone(self, key: str, source: SourceFingerprint) -> None:
        """Note a source that a killed process took away without saying so in the journal."""
        self._waiting.append(
            gone_line(self.lines, self._shard, key, source, authorised_by=self._authorised_by)
        )

    def _folder_inode(self, source: SourceFingerprint) -> int:
        with (
            contextlib.suppress(OSError, ValueError),
            open_beneath(self._folder, source.source) as (directory, _),
        ):
            return os.fstat(directory).st_ino
        return 0

    def _moved(self, event: Event, key: str, source: SourceFingerprint) -> str:
        """Return a line that identifies its file, and names its place in the trash if any."""
        if self._trash is None:
            return self._line(event, key, source)
        place = place_in_trash(self._shard, source.source)
        # An intent describes the file under its old name, an outcome the file in the trash: at any
        # other place there may be another file.
        root, path = (self._folder, source.source) if event == "intent" else (self._trash, place)
        moved: Identity | None = None
        with contextlib.suppress(OSError, ValueError), open_beneath(root, path) as (at, name):
            moved = Identity.of(fresh_status(name, at))
        return self._line(event, key, source, trash=str(self._trash / place), moved=moved)

    def _line(
        self,
        event: Event,
        key: str,
        source: SourceFingerprint,
        *,
        reason: str = "",
        trash: str = "",
        moved: Identity | None = None,
    ) -> str:
        return journal_line(
            event,
            key,
            source.source,
            moved.size_bytes if moved else source.size_bytes,
            self._authorised_by,
            reason=reason,
            trash=trash,
            inode=moved.inode if moved else 0,
            mtime_ns=moved.mtime_ns if moved else 0,
            folder_inode=self.folder_inodes.get(key, 0) if event == "intent" else 0,
        )


def gone_line(
    lines: Sequence[JournalLine],
    shard: int,
    key: str,
    source: SourceFingerprint,
    *,
    authorised_by: str,
) -> str:
    """Return the line for a missing source: ``trashed`` if it is in its trash, else ``found_gone``.

    Raises:
        OSError: the source lies in its trash, and that cannot be made durable.
    """
    place = place_in_trash(shard, source.source)
    for line in reversed(lines):
        trash = trash_of(line, shard) if line.key == key else None
        moved = identity_at(line, source)
        if trash and is_in_trash(trash, place, moved):
            return journal_line(
                "trashed",
                key,
                source.source,
                moved.size_bytes,
                authorised_by,
                trash=line.trash,
                inode=moved.inode,
                mtime_ns=moved.mtime_ns,
            )
    return journal_line("found_gone", key, source.source, source.size_bytes, authorised_by)
