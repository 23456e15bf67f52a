"""The deletion journal of each shard: an intent before every step, its outcome after it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from ctrate_convert.errors import DamageError
from ctrate_convert.store.durable import read_regular
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.base import parse
from ctrate_convert.store.records.journal import Event, JournalLine

_DONE: frozenset[Event] = frozenset(("deleted", "found_gone", "trashed"))
_CLOSED: frozenset[Event] = _DONE | {"kept", "restored"}
_BY_CONSENT = re.compile(r"\(consent (\S+)\)\Z")


def by_consent(command: str, name: str) -> str:
    """Return the words by which a line says under which consent it was written."""
    return f"{command} (consent {name})"


def consent_named(authorised_by: str) -> str:
    """Return the name of the consent in such words; empty where they name none."""
    found = _BY_CONSENT.search(authorised_by)
    return found[1] if found else ""


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
    """Return one line of a journal, stamped with the time of now."""
    return JournalLine(
        event=event,
        key=key,
        source=source,
        size_bytes=size_bytes,
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        authorised_by=authorised_by,
        reason=reason,
        trash=trash,
        inode=inode,
        mtime_ns=mtime_ns,
        folder_inode=folder_inode,
    ).model_dump_json()


def is_done(line: JournalLine) -> bool:
    """Return True if the line says that the source was taken away."""
    return line.event in _DONE


def read_journal(dataset: Dataset, shard: int) -> list[JournalLine]:
    """Return the journal's readable lines; a line that a crash cut short is passed over."""
    path: Path = dataset.journal(shard)
    lines: list[JournalLine] = []
    with contextlib.suppress(FileNotFoundError):
        for raw in read_regular(path).splitlines():
            with contextlib.suppress(DamageError):
                lines.append(parse(JournalLine, raw, path))
    return lines


def open_intents(journal: Sequence[JournalLine]) -> dict[str, JournalLine]:
    """Return by key the intents that no later line of their key has closed."""
    found: dict[str, JournalLine] = {}
    for line in journal:
        if line.event == "intent":
            found[line.key] = line
        else:
            found.pop(line.key, None)
    return found


def closed_keys(journal: Sequence[JournalLine]) -> set[str]:
    """Return the keys whose source was taken away, or is kept for a reason that will not pass.

    What could not be decided (``undecided``, an open intent) is tried again by the next command.
    """
    newest = {line.key: line for line in journal}
    return {key for key, line in newest.items() if line.event in _CLOSED}


def restored_lines(journal: Sequence[JournalLine]) -> dict[str, JournalLine]:
    """Return by key the line that says why a source that is there is kept: it was brought back.

    The person wanted it, so it is kept from then on. Where the journal's last word is that it was
    moved, somebody moved it back by hand, or by a `restore` that was killed before it could say so.
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
    """Return by key the folder in which a source with an open intent was."""
    return {key: line.folder_inode for key, line in open_intents(journal).items()}
