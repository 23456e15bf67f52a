"""Finish what a killed deletion left: give files their names back, complete the journal.

Nothing is deleted, so nobody is asked: this only notes what has happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctrate_convert.deleting.aside import put_back
from ctrate_convert.deleting.entries import gone_line
from ctrate_convert.errors import DamageError, environment_problem
from ctrate_convert.store.durable import append_lines, fsync_open_directory, open_beneath
from ctrate_convert.store.journals import (
    folder_inodes,
    journals_of,
    open_intents,
    read_journal,
)
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.locks import locked
from ctrate_convert.store.presence import Presence, presence
from ctrate_convert.store.records.journal import JournalLine
from ctrate_convert.store.records.plan import Plan
from ctrate_convert.store.records.record import SourceFingerprint


def finish_deletions(dataset: Dataset, plans: Sequence[Plan]) -> None:
    """Finish the interrupted deletions of all shards that no other process is working on.

    Raises:
        EnvironmentProblem: a journal cannot be read or written, or a folder cannot be synced.
    """
    ledger = Ledger(dataset, plans)
    # One listing instead of a look for each shard's journal: a dataset has many shards, few
    # journals.
    for index in sorted(journals_of(dataset) & ledger.planned.keys()):
        try:
            if not _open_ends(read_journal(dataset, index)):
                continue
            # A shard whose lock is taken belongs to another process that is at it now.
            with locked(dataset.lock(f"shard-{index:06d}"), timeout_s=0) as mine:
                if mine:
                    _finish(ledger, index)
        except OSError as error:
            raise environment_problem(error, "finishing an interrupted deletion") from error


def _open_ends(journal: Sequence[JournalLine]) -> list[JournalLine]:
    """Return the newest line of each key whose file a command may have left aside or taken."""
    newest = {line.key: line for line in journal}
    # An undecided source may still be aside: another file may have had its name at that moment.
    return [line for line in newest.values() if line.event in ("intent", "undecided")]


def _finish(ledger: Ledger, index: int) -> None:
    dataset = ledger.dataset
    folder = Path(ledger.planned[index].plan.settings.data_folder)
    # Read again under the lock: its last holder may have closed the intents.
    journal = read_journal(dataset, index)
    for line in _open_ends(journal):
        put_back(folder, line.source)
    intents = open_intents(journal)
    sources = _recorded_sources(ledger, index) if intents else {}
    inodes = folder_inodes(journal)
    noted = []
    for key, line in intents.items():
        source = sources.get(key)
        if source is None or source.source != line.source:
            continue  # the journal alone is not trusted: the record must name the same file
        if presence(folder, source.source, inodes.get(key, 0)) is Presence.GONE:
            # First the folder, then the journal: a power loss must not undo what the journal says.
            _sync_folder_of(folder, source.source)
            # Under the consent that the intent names: nobody is asked anew.
            noted.append(gone_line(journal, index, key, source, authorised_by=line.authorised_by))
    if noted:
        append_lines(dataset.journal(index), noted)


def _recorded_sources(ledger: Ledger, index: int) -> dict[str, SourceFingerprint]:
    try:
        record = ledger.record(index)
    except (FileNotFoundError, DamageError):
        return {}
    return {sample.key: sample.source for sample in record.converted}


def _sync_folder_of(folder: Path, source: str) -> None:
    """Fsync the folder that held the source, so that its removal is durable."""
    with open_beneath(folder, source) as (directory, _):
        fsync_open_directory(directory)
