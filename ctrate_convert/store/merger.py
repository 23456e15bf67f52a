"""Merge all records into ``manifest.json``, which can be rebuilt from them at any time."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence

from ctrate_convert.errors import DamageError, environment_problem
from ctrate_convert.store.card import keep_card, lists_of
from ctrate_convert.store.durable import replace
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import (
    Ledger,
    recorded_numbers,
)
from ctrate_convert.store.locks import locked
from ctrate_convert.store.plan_copies import PLAN_FILE
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.privacy import keep_private
from ctrate_convert.store.records.manifest import GIB, MIB, Manifest, ManifestShard
from ctrate_convert.store.records.manifest_search import lists_shard
from ctrate_convert.store.records.plan import Plan, shard_name
from ctrate_convert.store.records.record import ShardRecord

_log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 120.0
_SMALL_BYTES = 20_000
"""A set whose merge costs less than that of so many bytes, some 60 shards, is merged after each."""
_PLAN_PART = 12
"""A planned shard, some 360 bytes of ``plan.json``, costs a merge as much as a part of so many of
them of the manifest."""
_BYTES_PER_S = 1_000_000
"""A larger one is merged once in the time that it takes at this rate: a merge is some ten times as
fast, so that merging takes a tenth of the time at most."""


def merge(
    dataset: Dataset,
    plans: Sequence[Plan],
    anew: Sequence[ShardRecord] = (),
    again: Collection[int] = (),
) -> Manifest:
    """Bring ``manifest.json`` up to date with the records and return it. Idempotent.

    One call takes in the records of all workers. Records that were merged before are not read
    again, except those of the shards ``again``. A damaged record affects only its shard: its
    earlier entry in the manifest stays, and `Ledger.damaged` reports it.

    ``anew`` are records that this process has just written. They replace an entry that the manifest
    still has of an earlier, lost record.

    The lock only saves work: after writing, the function lists the records again and repeats until
    there is no new one.

    Raises:
        EnvironmentProblem: the manifest cannot be written.
    """
    keep_private(dataset)
    # Without the lock the merge goes on all the same: whoever writes last has listed the records
    # again.
    with locked(dataset.lock("manifest"), timeout_s=LOCK_TIMEOUT_S):
        while True:
            ledger = Ledger(dataset, plans)
            merged = _merge_once(ledger, anew, again)
            if recorded_numbers(dataset) == ledger.recorded:
                return merged


def _merge_once(
    ledger: Ledger, anew: Sequence[ShardRecord], again: Collection[int] = ()
) -> Manifest:
    """Merge the records that the ledger lists."""
    dataset, plans = ledger.dataset, ledger.plans
    old = dict(ledger.merged)
    for index in again:
        old.pop(shard_name(index), None)
    for record in anew:
        old[shard_name(record.shard)] = entry_of(record, frozenset())
    merged = sum_up(plans, current_entries(ledger, old))
    try:
        if merged != ledger.manifest:
            _log.info("%s: %d shards", dataset.manifest, merged.num_shards)
            replace(dataset.manifest, merged.to_pretty_json())
        if merged.num_shards:
            keep_card(dataset, plans)
    except OSError as error:
        raise environment_problem(error, "writing the manifest") from error
    return merged


def merge_when_due(dataset: Dataset, record: ShardRecord | None) -> bool:
    """Merge, unless the set is large and was just merged; return True if it was merged.

    A merge looks at all planned shards, and reads and writes the whole manifest. Done after every
    shard of a large set, that would cost the square of its size. So two merges are a second apart
    for each megabyte of the manifest and for each 33,000 planned shards. What is left out until
    then is merged by a later call, at the latest by the finaliser or at the end of a run.

    ``record``, if any, is one that this process has just written: a worker waits for no other
    process that merges.

    Raises:
        DamageError: a plan was changed.
        EnvironmentProblem: the manifest cannot be written.
    """
    # An entry of an earlier, lost record would make the new record seem damaged.
    must = record is not None and _has_an_earlier(dataset, record)
    if not must and _may_wait(dataset):
        return False
    patience_s = LOCK_TIMEOUT_S if must or record is None else 0.0
    with locked(dataset.lock("manifest"), timeout_s=patience_s) as mine:
        # Whoever held the lock meanwhile may have merged.
        if not must and (_may_wait(dataset) or not (mine or record is None)):
            return False
        # Once: where hundreds of tasks publish, there is always a new record after it.
        _merge_once(Ledger(dataset, load_plans(dataset)), [record] if record else [])
    return True


def _may_wait(dataset: Dataset) -> bool:
    try:
        status = dataset.manifest.stat()
    except OSError:
        return False
    cost_bytes = status.st_size + _plan_bytes(dataset) // _PLAN_PART
    age_s = time.time() - status.st_mtime
    return cost_bytes >= _SMALL_BYTES and 0 <= age_s < cost_bytes / _BYTES_PER_S


def _plan_bytes(dataset: Dataset) -> int:
    """Return the size of all plans: a worker that is not going to merge parses none."""
    sizes = 0
    with contextlib.suppress(OSError):
        for folder in dataset.plans.iterdir():
            sizes += (folder / PLAN_FILE).stat().st_size
    return sizes


def _has_an_earlier(dataset: Dataset, record: ShardRecord) -> bool:
    try:
        return lists_shard(dataset.manifest, record.shard)
    except FileNotFoundError:
        return False
    except (OSError, DamageError):
        return True


def current_entries(ledger: Ledger, old: Mapping[str, ManifestShard]) -> list[ManifestShard]:
    """Return the manifest's entry for each recorded shard, reusing those in ``old``.

    A shard with a damaged record has no entry unless ``old`` has one.
    """
    entries = []
    for index in ledger.known:
        gone = ledger.superseded.get(index, frozenset())
        entry = old.get(shard_name(index))
        if entry is None or set(entry.superseded) != gone:
            try:
                record = ledger.record(index)
            except (DamageError, OSError):
                if entry is None:
                    continue
                entry = _with_superseded(entry, gone)
            else:
                entry = entry_of(record, gone)
        entries.append(entry)
    return entries


def _with_superseded(entry: ManifestShard, gone: frozenset[str]) -> ManifestShard:
    samples = entry.samples + len(entry.superseded) - len(gone)
    return entry.model_copy(update={"samples": samples, "superseded": tuple(sorted(gone))})


def entry_of(record: ShardRecord, superseded: frozenset[str]) -> ManifestShard:
    """Return the manifest's entry for a shard, by its record and its ``superseded`` samples."""
    return ManifestShard(
        name=shard_name(record.shard),
        samples=sum(1 for sample in record.converted if sample.key not in superseded),
        failed=len(record.failed),
        size_bytes=record.tar.size_bytes if record.tar else 0,
        sha256=record.tar.sha256 if record.tar else None,
        record_sha256=record.stored_sha256(),
        superseded=tuple(sorted(superseded)),
    )


def sum_up(plans: Sequence[Plan], entries: Sequence[ManifestShard]) -> Manifest:
    """Return the manifest of ``plans`` with the shard ``entries``."""
    first, newest = plans[0], plans[-1]
    # A repair stores a sample once more, and the totals count each sample once.
    once = {
        shard_name(shard.index): shard.samples
        for plan in plans
        if not plan.repairs
        for shard in plan.shards
    }
    retries = sum(len(plan.retries) for plan in plans)
    outcomes = [entry for entry in entries if entry.name in once]
    converted = sum(entry.samples + len(entry.superseded) for entry in outcomes)
    failed = sum(entry.failed for entry in outcomes)
    planned = sum(once.values())
    # A shard without samples that count is one that no reader opens.
    size_bytes = sum(entry.size_bytes for entry in entries if entry.samples)
    return Manifest(
        num_shards=sum(1 for entry in entries if entry.samples),
        samples_per_shard=first.settings.samples_per_shard,
        total_samples=converted,
        total_size_mb=round(size_bytes / MIB, 3),
        total_size_gb=round(size_bytes / GIB, 6),
        average_sample_size_mb=round(size_bytes / MIB / converted, 3) if converted else 0.0,
        dtype=first.settings.dtype,
        layout=first.settings.layout,
        encoding=first.settings.encoding,
        plans=tuple(plan.plan_id for plan in plans),
        lists=tuple(one for one in lists_of(plans) if one.lists),
        samples={
            "converted": converted,
            # Each retry replaces one failed outcome and is planned a second time.
            "failed": failed - retries,
            "pending": planned - converted - failed,
            "excluded": sum(newest.excluded.values()),
            "total": planned - retries + sum(newest.excluded.values()),
        },
        excluded=dict(newest.excluded),
        shards=tuple(entries),
    )


def manifest_summary(manifest: Manifest) -> dict[str, object]:
    """Return the manifest without its list of shards, for ``--json`` reports."""
    summary: dict[str, object] = json.loads(manifest.model_dump_json(exclude={"shards"}))
    return summary
