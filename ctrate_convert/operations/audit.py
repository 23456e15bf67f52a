"""Audit: for every source ever deleted, where its sample is now, with the digests looked at anew.

Deleted sources are found in the journals, their samples in the records, and the bytes in the
shards. The summary is kept under ``.run/audits`` and never overwritten.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ctrate_convert import __version__
from ctrate_convert.conversion.deletion import is_done, read_journal
from ctrate_convert.conversion.manifest import planned_shards
from ctrate_convert.conversion.readback import Damage, check_members
from ctrate_convert.conversion.shard import load_record
from ctrate_convert.conversion.trash import last_lines
from ctrate_convert.durable import create_once, make_directories
from ctrate_convert.errors import DamageError
from ctrate_convert.operations.attempts import now_text
from ctrate_convert.operations.run import load
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.audit import AuditedSource, AuditSummary
from ctrate_convert.schemas.journal import JournalLine
from ctrate_convert.schemas.plan import Plan
from ctrate_convert.schemas.record import ConvertedSample


@dataclass(frozen=True)
class _ShardAudit:
    plan: Plan
    shard: int
    deleted: tuple[JournalLine, ...]


def audit(
    dataset: Dataset, *, share: float, num_workers: int
) -> tuple[AuditSummary, tuple[AuditedSource, ...], Path]:
    """Account for every deleted source; check the members of a random ``share`` of them (0 to 1).

    Returns the summary, all deleted sources, and the file that now holds both.

    Raises:
        SettingsError: there is no plan.
        DamageError: a plan was changed.
        OSError: the summary cannot be written.
    """
    shards = list(_shards_with_deletions(dataset))
    with ThreadPoolExecutor(num_workers) as pool:
        parts = list(pool.map(lambda one: _audit_shard(dataset, one, share), shards))
    sources = tuple(source for part in parts for source in part)
    bad = [source for source in sources if source.finding]
    summary = AuditSummary(
        program_version=__version__,
        time=now_text(),
        plans=tuple(plan.plan_id for plan in load(dataset)),
        deleted_sources=len(sources),
        deleted_bytes=sum(source.size_bytes for source in sources),
        in_the_trash=sum(1 for source in sources if source.trash),
        in_a_recorded_shard=sum(1 for source in sources if source.shard),
        checked_now=sum(1 for source in sources if source.checked),
        findings=len(bad),
        verdict="every deleted source is accounted for" if not bad else "NOT accounted for",
    )
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
    path = dataset.run / "audits" / f"{stamp}.jsonl"
    make_directories(path.parent)
    create_once(path, b"".join(entry.to_json() + b"\n" for entry in (summary, *sources)))
    return summary, sources, path


def _shards_with_deletions(dataset: Dataset) -> Iterator[_ShardAudit]:
    for index, (plan, _) in planned_shards(load(dataset)).items():
        newest = last_lines(read_journal(dataset, index))
        deleted = {key: line for key, line in newest.items() if is_done(line)}
        if deleted:
            yield _ShardAudit(plan, index, tuple(deleted.values()))


def _audit_shard(dataset: Dataset, one: _ShardAudit, share: float) -> list[AuditedSource]:
    try:
        record = load_record(dataset, one.plan, one.shard)
    except (DamageError, FileNotFoundError) as error:
        return [
            _source(line, None, one.shard, False, f"no record: {error}") for line in one.deleted
        ]
    samples = {sample.key: sample for sample in record.converted}
    chosen = [
        samples[line.key]
        for line in one.deleted
        if line.key in samples and (share >= 1 or random.random() < share)
    ]
    damage = _check(dataset, one, chosen)
    checked = {sample.key for sample in chosen}
    return [
        _source(
            line,
            samples.get(line.key),
            one.shard,
            line.key in checked,
            damage.get(line.key) or damage.get(None),
        )
        for line in one.deleted
    ]


def _check(
    dataset: Dataset, one: _ShardAudit, chosen: Sequence[ConvertedSample]
) -> dict[str | None, str]:
    """What is wrong, by key; under None what hits the whole shard."""
    path = dataset.shard(one.shard)
    try:
        found: list[Damage] = check_members(path, chosen, one.plan.settings.layout)
    except OSError as error:
        return {None: f"{path.name} cannot be read: {error.strerror}"}
    return {damage.key: damage.what for damage in found}


def _source(
    line: JournalLine,
    sample: ConvertedSample | None,
    shard: int,
    checked: bool,
    finding: str | None,
) -> AuditedSource:
    if sample is None and not finding:
        finding = "the shard's record does not hold this sample"
    return AuditedSource(
        key=line.key,
        source=line.source,
        size_bytes=line.size_bytes,
        deleted=line.time,
        authorised_by=line.authorised_by,
        shard=f"shard-{shard:06d}.tar" if sample else "",
        member=sample.array.name if sample else "",
        array_blake3=sample.array.blake3 if sample else "",
        checked=checked,
        finding=finding or "",
        trash=line.trash,
    )
