"""Gather the evidence of an audit: the sources' presence, the journals and the records.

The evidence is read in the reverse order of a run's own steps. If the audit sees that a source is
gone, the intent is already in the journal, which is read later; and the record was written before
the intent. So an audit may be made while a run deletes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ctrate_convert.errors import DamageError
from ctrate_convert.store.durable import read_regular
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, Planned, Recorded, planned_shards
from ctrate_convert.store.plans import load_samples
from ctrate_convert.store.presence import Presence, presence
from ctrate_convert.store.records.audit import AuditRemark, RemarkKind
from ctrate_convert.store.records.base import parse
from ctrate_convert.store.records.journal import JournalLine
from ctrate_convert.store.records.plan import Plan, PlannedShard


class Place(NamedTuple):
    """A source's path below its data folder, and its size."""

    source: str
    size_bytes: int


@dataclass
class Evidence:
    """The planned sources, journals and records by shard number; and what is amiss.

    ``planned`` has the sources of a shard by key. ``strangers`` are lines of journals whose shards
    no plan knows.
    """

    shards: Mapping[int, Planned]
    planned: dict[int, dict[str, Place]] = field(default_factory=dict)
    journals: dict[int, list[JournalLine]] = field(default_factory=dict)
    recorded: dict[int, Recorded] = field(default_factory=dict)
    strangers: list[JournalLine] = field(default_factory=list)
    remarks: list[AuditRemark] = field(default_factory=list)
    _seen: dict[tuple[str, str], Presence] = field(default_factory=dict)

    def remark(self, kind: RemarkKind, where: object, what: str) -> None:
        """Record something that a reader of the audit must know."""
        place = as_text(where)
        self.remarks.append(AuditRemark(kind=kind, where=place, what=what))

    def presence(self, folder: str, source: str, *, anew: bool = False) -> Presence:
        """Return whether the source is there, as first seen; look again if ``anew``."""
        if anew or (folder, source) not in self._seen:
            seen = presence(Path(folder), source)
            # If the data folder itself is missing, its sources count as gone here: the audit then
            # looks for their samples in the shards. No deletion rests on this.
            away = seen is Presence.UNSEEN and not os.path.lexists(folder)
            self._seen[folder, source] = Presence.GONE if away else seen
        return self._seen[folder, source]


def gather(dataset: Dataset, plans: Sequence[Plan]) -> Evidence:
    """Look at every planned source, then read all journals, then all records.

    Whatever cannot be read becomes a remark; nothing is raised for it.
    """
    found = Evidence(planned_shards(plans))
    for index, (plan, shard) in found.shards.items():
        found.planned[index] = _planned(dataset, plan, shard, found)
        if plan.settings.view is not None:
            continue  # shards of another dataset, which nothing here lets go
        for place in found.planned[index].values():
            found.presence(plan.settings.data_folder, place.source)
    for index in found.shards:
        # Only now, after all sources were looked at: see the module's docstring.
        found.journals[index] = _read_journal(dataset.journal(index), found)
    known = {dataset.journal(index).name for index in found.shards}
    for path in sorted(dataset.journals.glob("*.jsonl")):
        if path.name not in known:
            found.remark("journal", path, "a journal of a shard that no plan knows")
            found.strangers += _read_journal(path, found)
    _load_records(dataset, plans, found)
    return found


def as_text(value: object) -> str:
    """Return ``value`` as text that JSON can hold, even if it is a path that is not UTF-8."""
    return str(value).encode(errors="surrogateescape").decode(errors="backslashreplace")


def _planned(
    dataset: Dataset, plan: Plan, shard: PlannedShard, found: Evidence
) -> dict[str, Place]:
    try:
        samples = load_samples(dataset, plan, shard)
    except (DamageError, OSError) as error:
        found.remark("plan", f"the planned samples of {shard.name}", _told(error))
        return {}
    return {one.key: Place(one.source, one.source_size_bytes) for one in samples}


def _read_journal(path: Path, found: Evidence) -> list[JournalLine]:
    """Return the journal's lines; remark on each line that cannot be read."""
    try:
        data = read_regular(path)
    except FileNotFoundError:
        return []
    except (DamageError, OSError) as error:
        found.remark("journal", path, _told(error))
        return []
    lines = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            if raw:
                lines.append(parse(JournalLine, raw, path))
        except DamageError as error:
            what = f"it cannot be read: {error.what}"
            found.remark("journal", f"{as_text(path)}, line {number}", what)
    return lines


def _load_records(dataset: Dataset, plans: Sequence[Plan], found: Evidence) -> None:
    ledger = Ledger(dataset, plans)
    for index in sorted(ledger.recorded - ledger.planned.keys()):
        found.remark("record", dataset.record(index), "a record that no plan knows")
    for one in ledger.shards():
        if isinstance(one, Recorded):
            found.recorded[one.shard.index] = one
        else:
            found.remark("record", dataset.record(one.shard.index), _told(one.error))


def _told(error: DamageError | OSError) -> str:
    if isinstance(error, OSError):
        return f"it cannot be read: {error.strerror}"
    return error.one_line()
