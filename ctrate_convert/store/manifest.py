"""The merger: sums up all records in ``manifest.json``. It can be rebuilt from them at any time."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Mapping, Sequence

from ctrate_convert.errors import DamageError, environment_problem
from ctrate_convert.shards.shard import load_record
from ctrate_convert.store.durable import create_once, read_regular, replace
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.locks import locked
from ctrate_convert.store.privacy import keep_private
from ctrate_convert.store.records.base import read, sha256_hex
from ctrate_convert.store.records.manifest import GIB, MIB, Manifest, ManifestShard
from ctrate_convert.store.records.plan import Plan, PlannedShard, shard_name
from ctrate_convert.store.records.record import ShardRecord

LOCK_TIMEOUT_S = 120.0

_RECORD_NAME = re.compile(r"shard-([0-9]{6,9})\.json")

DATASET_CARD = b"""---
configs:
- config_name: default
  data_files: "shard-*.tar"
---

Chest CT volumes in WebDataset shards. `manifest.json` lists the shards, their SHA-256 and totals.
"""
"""Without it, Hugging Face's ``load_dataset(OUT)`` takes a single shard's manifest for data."""


def planned_shards(plans: Sequence[Plan]) -> dict[int, tuple[Plan, PlannedShard]]:
    """Every planned shard by its number, with the plan that it belongs to."""
    return {shard.index: (plan, shard) for plan in plans for shard in plan.shards}


def recorded_shards(dataset: Dataset) -> frozenset[int]:
    """The numbers of all shards that have a record; one directory listing."""
    numbers = {
        int(name[1]): path
        for path in dataset.records.glob("shard-*.json")
        if (name := _RECORD_NAME.fullmatch(path.name))
    }
    return frozenset(number for number, path in numbers.items() if path == dataset.record(number))


def superseded_samples(dataset: Dataset, plans: Sequence[Plan]) -> dict[int, frozenset[str]]:
    """By shard number: the samples of which a repair has published and recorded another copy.

    Where the record of a repair's shard is damaged, the manifest tells which ones it had.
    """
    found: dict[int, set[str]] = {}
    for plan in plans:
        for shard in plan.shards if plan.repairs else ():
            try:
                keys = {one.key for one in load_record(dataset, plan, shard.index).converted}
            except FileNotFoundError:
                continue
            except (DamageError, OSError):
                keys = _merged_as_superseded(dataset, plan)
            for key in keys & plan.repairs.keys():
                found.setdefault(plan.repairs[key], set()).add(key)
    return {shard: frozenset(keys) for shard, keys in found.items()}


def _merged_as_superseded(dataset: Dataset, plan: Plan) -> set[str]:
    manifest = load_manifest(dataset)
    entries = manifest_shards(manifest) if manifest else {}
    return {
        key
        for key, shard in plan.repairs.items()
        if (entry := entries.get(shard_name(shard))) and key in entry.superseded
    }


def merge(
    dataset: Dataset,
    plans: Sequence[Plan],
    anew: Sequence[ShardRecord] = (),
    again: Collection[int] = (),
) -> Manifest:
    """Bring ``manifest.json`` up to date with the records and return it. Idempotent.

    One call takes in what all workers have finished; records already merged are not read again,
    but for those of the shards ``again``. A damaged record costs its shard alone: what was merged
    from it before stays, and `damaged_records` names it.
    Those of ``anew`` were just written by this process: they count as they are, whatever the
    manifest knows of one that was lost.
    Correct without the lock too: it looks again after writing, until nothing new is there.

    Raises:
        EnvironmentProblem: the manifest cannot be written.
    """
    keep_private(dataset)
    by_index = planned_shards(plans)
    with locked(dataset.lock("manifest"), timeout_s=LOCK_TIMEOUT_S):
        while True:
            manifest = load_manifest(dataset)
            old = manifest_shards(manifest) if manifest else {}
            for index in again:
                old.pop(shard_name(index), None)
            for record in anew:
                old[shard_name(record.shard)] = _entry(record, frozenset())
            recorded = recorded_shards(dataset)
            entries = _entries(dataset, by_index, recorded, old, superseded_samples(dataset, plans))
            merged = _sum_up(plans, entries)
            try:
                if merged != manifest:
                    replace(dataset.manifest, merged.to_pretty_json())
                if merged.num_shards and not dataset.card.exists():
                    create_once(dataset.card, DATASET_CARD)
            except OSError as error:
                raise environment_problem(error, "writing the manifest") from error
            if recorded_shards(dataset) == recorded:
                return merged


def _entries(
    dataset: Dataset,
    by_index: Mapping[int, tuple[Plan, PlannedShard]],
    recorded: frozenset[int],
    old: Mapping[str, ManifestShard],
    superseded: Mapping[int, frozenset[str]],
) -> list[ManifestShard]:
    """The entry of every recorded shard, but of those whose only record is damaged."""
    entries = []
    for index in sorted(recorded & by_index.keys()):
        gone = superseded.get(index, frozenset())
        entry = old.get(shard_name(index))
        if entry is None or set(entry.superseded) != gone:
            try:
                record = load_record(dataset, by_index[index][0], index)
            except (DamageError, OSError):
                if entry is None:
                    continue
                entry = _with_superseded(entry, gone)
            else:
                entry = _entry(record, gone)
        entries.append(entry)
    return entries


def _with_superseded(entry: ManifestShard, gone: frozenset[str]) -> ManifestShard:
    samples = entry.samples + len(entry.superseded) - len(gone)
    return entry.model_copy(update={"samples": samples, "superseded": tuple(sorted(gone))})


def damaged_records(dataset: Dataset, plans: Sequence[Plan]) -> dict[int, str]:
    """The shards whose record cannot be relied on, by number, and why; one that is missing counts
    where the manifest lists it.

    A record whose bytes are those that were merged is not parsed again.
    """
    by_index = planned_shards(plans)
    manifest = load_manifest(dataset)
    merged = {shard.name: shard for shard in manifest.shards} if manifest else {}
    damaged = {}
    for index, (plan, shard) in by_index.items():
        entry = merged.get(shard.name)
        try:
            data = read_regular(dataset.record(index))
            if entry is not None and sha256_hex(data) == entry.record_sha256:
                continue
            record = load_record(dataset, plan, index)
        except FileNotFoundError:
            if entry is not None:
                damaged[index] = "is missing, and the manifest lists its shard"
        except DamageError as error:
            damaged[index] = error.what
        except OSError as error:
            damaged[index] = f"cannot be read: {error.strerror}"
        else:
            if entry is not None and record.stored_sha256() != entry.record_sha256:
                damaged[index] = "was changed after it was merged into the manifest"
    return damaged


def load_manifest(dataset: Dataset) -> Manifest | None:
    """The manifest as it stands; None where it is missing or damaged: it is only a cache."""
    with contextlib.suppress(FileNotFoundError, DamageError):
        return read(Manifest, dataset.manifest)
    return None


def _entry(record: ShardRecord, superseded: frozenset[str]) -> ManifestShard:
    return ManifestShard(
        name=shard_name(record.shard),
        samples=sum(1 for sample in record.converted if sample.key not in superseded),
        failed=len(record.failed),
        size_bytes=record.tar.size_bytes if record.tar else 0,
        sha256=record.tar.sha256 if record.tar else None,
        record_sha256=record.stored_sha256(),
        superseded=tuple(sorted(superseded)),
    )


def _sum_up(plans: Sequence[Plan], entries: list[ManifestShard]) -> Manifest:
    first, newest = plans[0], plans[-1]
    # A repair adds a copy of a sample, not a sample.
    once = {shard.name: shard for plan in plans if not plan.repairs for shard in plan.shards}
    retries = sum(len(plan.retries) for plan in plans)
    outcomes = [entry for entry in entries if entry.name in once]
    converted = sum(entry.samples + len(entry.superseded) for entry in outcomes)
    failed = sum(entry.failed for entry in outcomes)
    planned = sum(shard.samples for shard in once.values())
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
        samples={
            "converted": converted,
            "failed": failed - retries,
            "pending": planned - converted - failed,
            "excluded": sum(newest.excluded.values()),
            "total": planned - retries + sum(newest.excluded.values()),
        },
        excluded=dict(newest.excluded),
        shards=tuple(entries),
    )


def manifest_shards(manifest: Manifest) -> dict[str, ManifestShard]:
    """The manifest's shards by name."""
    return {shard.name: shard for shard in manifest.shards}


def manifest_summary(manifest: Manifest) -> dict[str, object]:
    """The manifest without its list of shards, for ``--json`` reports."""
    summary: dict[str, object] = json.loads(manifest.model_dump_json(exclude={"shards"}))
    return summary
