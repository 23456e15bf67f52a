"""Report: compare what the plans promised with what the records prove, by shard and in sum."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ctrate_convert.checking import timeline
from ctrate_convert.checking.timeline import Freed, Span
from ctrate_convert.planning.estimate import peak_extra_bytes
from ctrate_convert.planning.intensity import error_in_hu
from ctrate_convert.store.attempts import PastAttempt, load_attempts
from ctrate_convert.store.card import lists_of, unrecorded_lists
from ctrate_convert.store.journals import read_journal
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, Planned
from ctrate_convert.store.records.plan import Plan, PlannedShard
from ctrate_convert.store.records.record import ShardRecord
from ctrate_convert.store.records.volume_list import GenerationLists


@dataclass(frozen=True)
class ShardFacts:
    """The facts of one recorded shard.

    ``array_bytes`` is the size of its volumes in their sources' types. ``predicted_cpu_s`` is None
    if the plan was made without a probe.
    """

    shard: int
    samples: int
    failed: int
    source_bytes: int
    array_bytes: int
    predicted_bytes: int
    output_bytes: int
    predicted_cpu_s: float | None
    cpu_s: float
    elapsed_s: float


@dataclass(frozen=True)
class AttemptFacts:
    """The facts of all attempts together.

    Attempts without an end record count in no sum of seconds.
    """

    attempts: int
    ended: dict[str, int]
    elapsed_s: float
    max_rss_bytes: int


@dataclass
class Report:
    """The sums over the recorded shards; a sum of predictions is None if one of them is missing.

    ``workers`` is the largest number of workers that ran at once, and ``predicted_wall_s`` is
    computed for that many. ``wall_s`` is the time in which any shard was under way.
    ``predicted_peak_extra_bytes`` is what the plans promise of these shards with as many workers.
    Nobody observed the peak itself: ``recorded_peak_extra_bytes`` is what records and journals add
    up to, without scratch files. ``lists`` has the lists of volumes of every generation,
    ``unrecorded_lists`` the names of those that an earlier version used and did not record.
    ``view`` tells which views these are, and of which dataset; it is empty for other datasets.
    """

    shards_planned: int
    attempts: AttemptFacts
    lists: tuple[GenerationLists, ...]
    unrecorded_lists: dict[int, tuple[str, ...]]
    view: str = ""
    shards: list[ShardFacts] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    predicted_max_error_hu: float | None = None
    max_error_hu: float = 0.0
    predicted_intensities: Counter[str] = field(default_factory=Counter)
    intensities: Counter[str] = field(default_factory=Counter)
    workers: int = 0
    predicted_wall_s: float | None = None
    wall_s: float = 0.0
    predicted_peak_extra_bytes: int = 0
    recorded_peak_extra_bytes: int = 0
    deleted_files: int = 0
    freed_bytes: int = 0

    def total(self, name: str) -> float | None:
        """Return the sum of one of the numbers in `ShardFacts`; None if a shard lacks it."""
        values = [getattr(shard, name) for shard in self.shards]
        return None if None in values else math.fsum(values)


def report(ledger: Ledger) -> Report:
    """Compare every recorded shard with its plan; leave out shards whose record is damaged."""
    attempts = load_attempts(ledger.dataset)
    noted = {one.start.attempt: one.start.workers for one in attempts if one.start.workers}
    found = Report(
        shards_planned=len(ledger.planned),
        attempts=_attempts(attempts),
        lists=lists_of(ledger.plans),
        unrecorded_lists=unrecorded_lists(ledger.plans),
        view=next((plan.settings.view_words for plan in ledger.plans), ""),
    )
    _add_promises(found, ledger.plans)
    spans: list[Span] = []
    freed: list[Freed] = []
    for one in ledger.readable():
        record = one.record
        found.shards.append(_shard_facts(one.plan, one.shard, record))
        spans.append(span_of(record))
        found.failed += [(sample.key, sample.reason) for sample in record.failed]
        for sample in one.live:
            array = sample.array
            found.intensities[array.intensity] += 1
            error_hu = error_in_hu(array.max_abs_error, array.intensity)
            found.max_error_hu = max(found.max_error_hu, error_hu)
        freed += freed_sources(ledger.dataset, one.shard.index)
    found.deleted_files = len(freed)
    found.freed_bytes = sum(one.size_bytes for one in freed)
    if spans:
        done = [ledger.planned[shard.shard] for shard in found.shards]
        found.workers = timeline.most_workers(spans, noted)
        _add_course(found, done, spans, freed)
    return found


def _add_course(
    found: Report,
    done: Sequence[Planned],
    spans: Sequence[Span],
    freed: Sequence[Freed],
) -> None:
    found.wall_s = timeline.wall_s(spans)
    predicted_cpu_s = found.total("predicted_cpu_s")
    if predicted_cpu_s is not None:
        found.predicted_wall_s = predicted_cpu_s / max(1, found.workers)
    # A consent may allow deletion under a plan that does not propose it. A source that was freed
    # before the last shard was done shows that.
    last_s = max(span.ended_s for span in spans)
    along_the_way = any(one.time_s < last_s for one in freed)
    found.predicted_peak_extra_bytes = peak_extra_bytes(
        [shard for _, shard in done],
        deleting=along_the_way or all(plan.settings.delete_source_files for plan, _ in done),
        workers=found.workers,
    )
    found.recorded_peak_extra_bytes = timeline.peak_extra_bytes(spans, freed)


def _add_promises(found: Report, plans: Sequence[Plan]) -> None:
    probes = [plan.probe for plan in plans if plan.probe]
    if len(probes) == len(plans):
        found.predicted_max_error_hu = max(probe.chosen.max_error_hu for probe in probes)
    for probe in probes:
        found.predicted_intensities.update(probe.intensities)


def _shard_facts(plan: Plan, shard: PlannedShard, record: ShardRecord) -> ShardFacts:
    array_bytes = sum(
        math.prod(sample.array.shape) * np.dtype(sample.source_header.dtype).itemsize
        for sample in record.converted
    )
    predicted_cpu_s = None
    if plan.probe is not None:
        # The probe tells the CPU time of the whole plan; a shard's part follows from its bytes of
        # voxels.
        share = array_bytes / max(1, plan.probe.volume_bytes)
        predicted_cpu_s = plan.probe.chosen.cpu_s * share
    return ShardFacts(
        shard=shard.index,
        samples=len(record.converted),
        failed=len(record.failed),
        source_bytes=record.source_bytes,
        array_bytes=array_bytes,
        predicted_bytes=shard.estimated_output_bytes,
        output_bytes=record.tar.size_bytes if record.tar else 0,
        predicted_cpu_s=predicted_cpu_s,
        cpu_s=record.cpu_s,
        elapsed_s=record.elapsed_s,
    )


def span_of(record: ShardRecord) -> Span:
    """Return when, where and how long the shard was converted."""
    return Span(
        attempt=record.worker.attempt,
        started_s=timeline.seconds_of(record.started),
        elapsed_s=record.elapsed_s,
        output_bytes=record.tar.size_bytes if record.tar else 0,
    )


def freed_sources(dataset: Dataset, index: int) -> Iterator[Freed]:
    """Yield a shard's deleted sources, each once; a source in a trash frees nothing."""
    gone = {
        line.key: Freed(timeline.seconds_of(line.time), line.size_bytes)
        for line in read_journal(dataset, index)
        if line.event in ("deleted", "found_gone")
    }
    yield from gone.values()


def _attempts(attempts: Sequence[PastAttempt]) -> AttemptFacts:
    ends = [attempt.end for attempt in attempts if attempt.end]
    ended = Counter[str](end.outcome for end in ends)
    if len(ends) < len(attempts):
        ended["without a last word"] = len(attempts) - len(ends)
    return AttemptFacts(
        attempts=len(attempts),
        ended=dict(ended),
        elapsed_s=math.fsum(end.elapsed_s for end in ends),
        max_rss_bytes=max((end.max_rss_bytes for end in ends), default=0),
    )
