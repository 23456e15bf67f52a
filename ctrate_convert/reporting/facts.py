"""All that the page tells, gathered in one pass over the files of the dataset."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from ctrate_convert.checking.gallery import choose
from ctrate_convert.checking.report import Report, freed_sources, report, span_of
from ctrate_convert.checking.timeline import Freed
from ctrate_convert.deleting.consents import load_consents
from ctrate_convert.errors import CtrateError, DamageError
from ctrate_convert.looking.look import Look
from ctrate_convert.looking.words import count
from ctrate_convert.reading.look import look_at
from ctrate_convert.reporting.course import ShardRun
from ctrate_convert.reporting.volumes import VolumeFacts
from ctrate_convert.store.attempts import PastAttempt, load_attempts
from ctrate_convert.store.journals import consent_named, is_done, read_journal
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, Recorded
from ctrate_convert.store.merger import current_entries, sum_up
from ctrate_convert.store.plans import load_excluded
from ctrate_convert.store.records.audit import AuditSummary
from ctrate_convert.store.records.base import read
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.damage import Damage
from ctrate_convert.store.records.plan import ExcludedSample, Plan
from ctrate_convert.store.records.record import FailedSample

NAMED = 50
"""How many failed and excluded volumes, and damaged files, are named."""

_PICTURES = 6
_DETAIL = re.compile(r"( \(|: |, expected ).*", re.DOTALL)


@dataclass(frozen=True)
class Used:
    """A consent, with the sources that journals say have gone under it, trash included."""

    consent: Consent
    gone: int
    gone_bytes: int


@dataclass(frozen=True)
class Filed:
    """An audit in the dataset's folder; ``summary`` is None if this version cannot read it."""

    name: str
    summary: AuditSummary | None


@dataclass
class Facts:
    """What the page tells.

    ``samples`` has the states of `merge`. ``failed_why`` and the plan's ``excluded`` count reasons;
    ``failed`` and ``excluded`` are the first of them.
    """

    out: str
    time: datetime
    plans: Sequence[Plan]
    report: Report
    damage: Sequence[Damage]
    samples: dict[str, int]
    runs: list[ShardRun] = field(default_factory=list)
    tasks: dict[int, int] = field(default_factory=dict)
    attempts: Sequence[PastAttempt] = ()
    freed: list[Freed] = field(default_factory=list)
    volumes: VolumeFacts = field(default_factory=VolumeFacts)
    failed_why: Counter[str] = field(default_factory=Counter)
    failed: Sequence[FailedSample] = ()
    excluded: Sequence[ExcludedSample] = ()
    consents: Sequence[Used] = ()
    audits: Sequence[Filed] = ()
    looks: list[Look] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """One sentence: converted or not, and whatever a person must look at first."""
        planned = self.samples["total"] - self.samples["excluded"]
        converted, failed, pending = (
            self.samples[state] for state in ("converted", "failed", "pending")
        )
        parts = [f"{converted:,} of {planned:,} planned volumes are converted"]
        if converted == planned:
            parts = [f"All {planned:,} planned volumes are converted"]
        if failed:
            kept = "its source is" if failed == 1 else "their sources are"
            parts.append(f"{failed:,} failed ({kept} kept)")
        if pending:
            parts.append(f"{pending:,} pending")
        if self.damage:
            parts.append(f"damage: {count(len(self.damage), 'file')} of plans or records")
        return ", ".join(parts) + "."

    @property
    def state(self) -> Literal["good", "pending", "bad"]:
        """``bad`` if a volume failed or a file is damaged, ``good`` if all are converted."""
        if self.damage or self.samples["failed"]:
            return "bad"
        return "pending" if self.samples["pending"] else "good"


def gather(ledger: Ledger, damage: Sequence[Damage]) -> Facts:
    """Return the facts; no volume is read but for the pictures.

    Raises:
        OSError: a file cannot be read.
    """
    dataset, plans = ledger.dataset, ledger.plans
    facts = Facts(
        out=str(dataset.out.resolve()),
        time=datetime.now(UTC).replace(microsecond=0),
        plans=plans,
        report=report(ledger),
        damage=damage,
        samples=sum_up(plans, current_entries(ledger, dict(ledger.merged))).samples,
        tasks={index: shard.task for index, (_, shard) in ledger.planned.items()},
        attempts=load_attempts(dataset),
    )
    failing = set()
    gone: Counter[str] = Counter()
    gone_bytes: Counter[str] = Counter()
    for one in ledger.readable():
        facts.runs.append(_run(one))
        facts.volumes.add(dataset, one)
        if one.record.failed:
            failing.add(one.shard.index)
        facts.freed += freed_sources(dataset, one.shard.index)
        newest = {line.key: line for line in read_journal(dataset, one.shard.index)}
        for line in filter(is_done, newest.values()):
            gone[consent_named(line.authorised_by)] += 1
            gone_bytes[consent_named(line.authorised_by)] += line.size_bytes
    facts.notes += facts.volumes.notes[:NAMED]
    failed = ledger.failed_samples(failing)
    facts.failed_why = Counter(_DETAIL.sub("", sample.reason) for sample in failed.values())
    facts.failed = list(failed.values())[:NAMED]
    facts.consents = [
        Used(one, gone[one.name], gone_bytes[one.name]) for one in load_consents(dataset)
    ]
    facts.audits = _audits(dataset)
    _add_excluded(facts, dataset)
    _add_looks(facts, dataset)
    return facts


def _run(one: Recorded) -> ShardRun:
    record, span = one.record, span_of(one.record)
    return ShardRun(
        attempt=span.attempt,
        host=record.worker.host,
        shard=one.shard.index,
        task=one.shard.task,
        started_s=span.started_s,
        elapsed_s=span.elapsed_s,
        source_bytes=record.source_bytes,
        output_bytes=span.output_bytes,
        failed=len(record.failed),
    )


def _audits(dataset: Dataset) -> list[Filed]:
    """Return the audits that were filed, oldest first."""
    found = []
    for path in sorted((dataset.run / "audits").glob("*/summary.json")):
        try:
            found.append(Filed(path.parent.name, read(AuditSummary, path)))
        except (DamageError, OSError):
            found.append(Filed(path.parent.name, None))
    return found


def _add_excluded(facts: Facts, dataset: Dataset) -> None:
    try:
        facts.excluded = load_excluded(dataset, facts.plans[-1])[:NAMED]
    except (DamageError, OSError) as error:
        facts.notes.append(f"The list of excluded volumes cannot be told: {error}")


def _add_looks(facts: Facts, dataset: Dataset) -> None:
    if not facts.volumes.number:
        return
    try:
        chosen = choose(dataset.out, (), _PICTURES)
    except CtrateError as error:
        facts.notes.append(f"No pictures: {error}")
        return
    for stored in chosen:
        try:
            facts.looks.append(look_at(stored))
        except CtrateError as error:
            facts.notes.append(f"No picture of {stored.key}: {error}")
