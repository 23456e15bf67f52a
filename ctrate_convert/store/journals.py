"""Read and write deletion journals: each step has an intent before it and an outcome after it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ctrate_convert.errors import DamageError
from ctrate_convert.store.durable import read_regular
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.base import parse
from ctrate_convert.store.records.journal import Event, JournalLine

_DONE: frozenset[Event] = frozenset(("deleted", "found_gone", "trashed"))
_CLOSED: frozenset[Event] = _DONE | {"kept", "restored"}
_NAME = re.compile(r"shard-([0-9]{6,9})\.jsonl")
_BY_CONSENT = re.compile(r"\(consent (\S+)\)\Z")


def by_consent(command: str, name: str) -> str:
    """Return the ``authorised_by`` text of a journal line: the command and the consent."""
    return f"{command} (consent {name})"


def consent_named(authorised_by: str) -> str:
    """Return the consent that an ``authorised_by`` text names; empty if it names none."""
    found = _BY_CONSENT.search(authorised_by)
    return found[1] if found else ""


def journals_of(dataset: Dataset) -> frozenset[int]:
    """Return the numbers of the shards that have a journal, from one directory listing."""
    return frozenset(
        number
        for path in dataset.journals.glob("shard-*.jsonl")
        if (name := _NAME.fullmatch(path.name))
        # shard-0000001.jsonl would also give the number 1: only the exact name counts.
        and path == dataset.journal(number := int(name[1]))
    )


def journal_line(
    event: Event,
    key: str,
    source: str,
    size_bytes: int,
    authorised_by: str,
    *,
    reason: str = "",
    trash: str = "",
    inode: int = 0,
    mtime_ns: int = 0,
    folder_inode: int = 0,
) -> str:
    """Return one journal line with the current time."""
    return JournalLine(
        event=event,
        key=key,
        source=source,
        size_bytes=size_bytes,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        authorised_by=authorised_by,
        reason=reason,
        trash=trash,
        inode=inode,
        mtime_ns=mtime_ns,
        folder_inode=folder_inode,
    ).model_dump_json()


def is_done(line: JournalLine) -> bool:
    """Return True if the line says that the source was deleted or moved away."""
    return line.event in _DONE


def read_journal(dataset: Dataset, shard: int) -> list[JournalLine]:
    """Return the readable lines of the journal; a line that a crash cut short is skipped."""
    path: Path = dataset.journal(shard)
    lines: list[JournalLine] = []
    with contextlib.suppress(FileNotFoundError):
        for raw in read_regular(path).splitlines():
            with contextlib.suppress(DamageError):
                lines.append(parse(JournalLine, raw, path))
    return lines


def open_intents(journal: Sequence[JournalLine]) -> dict[str, JournalLine]:
    """Return, by key, the intents that no later line of the same key has closed."""
    found: dict[str, JournalLine] = {}
    for line in journal:
        if line.event == "intent":
            found[line.key] = line
        else:
            found.pop(line.key, None)
    return found


def closed_keys(journal: Sequence[JournalLine]) -> set[str]:
    """Return the keys whose source is gone, or is kept for a permanent reason.

    An undecided source (``undecided`` or an open intent) is not closed: the next command tries
    again.
    """
    newest = {line.key: line for line in journal}
    return {key for key, line in newest.items() if line.event in _CLOSED}


def restored_lines(journal: Sequence[JournalLine]) -> dict[str, JournalLine]:
    """Return, by key, the line that explains why a source that is there again must be kept.

    A person restored the source, so it is kept from then on. If the journal has only a ``trashed``
    line, a person moved the source back by hand, or a `restore` was killed before it could write
    its line.
    """
    restored = {line.key: line for line in journal if line.event == "restored"}
    trashed = {line.key: line for line in journal if line.event == "trashed"}
    return {**trashed, **restored}


def restored_words(line: JournalLine) -> str:
    """Return the reason why a source that `restored_lines` names is kept."""
    if line.event == "restored":
        return f"restored from the trash, {line.time}"
    return f"it is back from the trash, where it was moved {line.time}"


def folder_inodes(journal: Sequence[JournalLine]) -> dict[str, int]:
    """Return, by key, the inode of the folder that held a source with an open intent."""
    return {key: line.folder_inode for key, line in open_intents(journal).items()}
