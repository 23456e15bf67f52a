"""Find the sources that are gone, by looking on disk for each that plan, record or journal names.

The journal alone is not trusted to name all of them: if one were lost, nothing would be left to
account for. The journal only tells who deleted a source that is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctrate_convert.checking.audit.gathered import Evidence, Place
from ctrate_convert.deleting.trash import (
    identity_at,
    is_in_trash,
    last_lines,
    place_in_trash,
    trash_of,
)
from ctrate_convert.store.journals import is_done, open_intents
from ctrate_convert.store.presence import Presence
from ctrate_convert.store.records.audit import Told, TrashState
from ctrate_convert.store.records.journal import JournalLine
from ctrate_convert.store.records.plan import Plan
from ctrate_convert.store.records.record import ConvertedSample


@dataclass(frozen=True)
class GoneSource:
    """A source that is gone. ``sample`` is None if no record holds it.

    ``line`` is what the journal tells of the source, and ``finding`` what is wrong with it.
    """

    key: str
    data_folder: str
    place: Place
    shard: int
    sample: ConvertedSample | None
    line: JournalLine | None
    told: Told
    trash_state: TrashState
    finding: str


@dataclass
class Gone:
    """All sources that are gone.

    ``put_back`` names the sources that the journal calls deleted, but that are there again.
    """

    sources: list[GoneSource] = field(default_factory=list)
    put_back: list[str] = field(default_factory=list)


def find_gone(plans: Sequence[Plan], evidence: Evidence) -> Gone:
    """Return every source that is not there any more; remark on what cannot be looked at.

    A source that is there is left out, whatever the journal says. Excluded volumes are left out
    too, since they were never converted; and views, which have no source file of their own.
    """
    found = Gone()
    retried = {key: plan.generation for plan in plans for key in plan.retries}
    for index, (plan, _) in evidence.shards.items():
        if plan.settings.view is not None:
            continue
        done = {k: ln for k, ln in last_lines(evidence.journals[index]).items() if is_done(ln)}
        told = {**done, **open_intents(evidence.journals[index])}
        recorded = evidence.recorded.get(index)
        superseded = recorded.superseded if recorded else frozenset()
        converted = {one.key: one for one in recorded.record.converted} if recorded else {}
        for key in dict.fromkeys((*evidence.planned[index], *converted, *told)):
            sample, line = converted.get(key), told.get(key)
            elsewhere = plan.repairs or retried.get(key, -1) > plan.generation
            if key in superseded or (sample is None and line is None and elsewhere):
                continue  # another shard's copy counts
            _look(plan, index, key, sample, line, evidence, found)
    for key, line in last_lines(evidence.strangers).items():
        if is_done(line):
            why = "no shard is known to hold it: no plan knows the shard of its journal"
            place = Place(line.source, line.size_bytes)
            state: TrashState = "not to be told" if line.trash else ""
            found.sources.append(GoneSource(key, "", place, -1, None, line, "journal", state, why))
    _remark_on_missing_folders(evidence, found)
    return found


def _look(
    plan: Plan,
    shard: int,
    key: str,
    sample: ConvertedSample | None,
    line: JournalLine | None,
    evidence: Evidence,
    found: Gone,
) -> None:
    folder = plan.settings.data_folder
    by_record = Place(sample.source.source, sample.source.size_bytes) if sample else None
    by_journal = Place(line.source, line.size_bytes) if line else None
    by_plan = evidence.planned[shard].get(key)
    places = [place for place in (by_record, by_journal, by_plan) if place]
    done = line is not None and is_done(line)
    names = {place.source for place in places}
    # If the journal says that the source went, look again: a run may have deleted it since the
    # first look.
    states = {evidence.presence(folder, name, anew=done) for name in names}
    # A folder that a deletion emptied may have been removed since, and then its sources cannot be
    # seen.
    if Presence.GONE not in states and not (done and states == {Presence.UNSEEN}):
        if Presence.UNSEEN in states:
            what = "it cannot be looked at, so that whether it is gone is not known"
            evidence.remark("source", Path(folder) / places[0].source, what)
        elif done:
            found.put_back.append(places[0].source)
        return
    finding = (
        _disagreement(by_record, by_journal, by_plan)
        if by_record
        else _why_not_held(evidence, shard, key)
    )
    trash_state, doubt = _trash_state(line, shard, sample)
    told: Told = "nothing" if line is None else "journal" if done else "open intent"
    finding = "; ".join(filter(None, (finding, doubt)))
    found.sources.append(
        GoneSource(key, folder, places[0], shard, sample, line, told, trash_state, finding)
    )


def _why_not_held(evidence: Evidence, shard: int, key: str) -> str:
    recorded = evidence.recorded.get(shard)
    if recorded is None:
        return f"no shard is known to hold it: shard {shard} has no record that can be read"
    for failure in recorded.record.failed:
        if failure.key == key:
            return f"no shard holds it: it could not be converted ({failure.reason})"
    return f"no shard is known to hold it: the record of shard {shard} does not name it"


def _disagreement(by_record: Place, by_journal: Place | None, by_plan: Place | None) -> str:
    """Return how journal or plan disagree with the record about the file; empty if they agree."""
    if by_journal and by_journal != by_record:
        return (
            f"the journal tells of {by_journal.source} with {by_journal.size_bytes} bytes, the "
            f"record of {by_record.source} with {by_record.size_bytes}"
        )
    if by_plan and by_plan.source != by_record.source:
        return f"the plan names {by_plan.source}, the record {by_record.source}"
    return ""


def _trash_state(
    line: JournalLine | None, shard: int, sample: ConvertedSample | None
) -> tuple[TrashState, str]:
    """Return whether the file lies in its trash now, and what is wrong with the journal."""
    if line is None or not line.trash:
        return "", ""
    trash = trash_of(line, shard)
    if trash is None:
        return "not to be told", f"the journal names a place that is no trash: {line.trash}"
    if sample is None or line.source != sample.source.source:
        return "not to be told", ""
    try:
        if is_in_trash(trash, place_in_trash(shard, line.source), identity_at(line, sample.source)):
            return "in the trash", ""
    except OSError:  # the file is there, but this user cannot make that durable
        return "not to be told", ""
    # An open intent does not tell whether the file ever came to the trash.
    return ("removed from the trash since" if is_done(line) else "not to be told"), ""


def _remark_on_missing_folders(evidence: Evidence, found: Gone) -> None:
    untold = {source.data_folder for source in found.sources if source.told == "nothing"}
    for folder in sorted(untold):
        if not Path(folder).is_dir():
            what = "this data folder is not there: what no journal tells of counts as gone"
            evidence.remark("source", folder, what)
