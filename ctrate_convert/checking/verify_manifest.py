"""Verify, of the manifest: it says what plans and records say, and its sums are right.

It is a cache: missing, it is only told of. Present, readers rest on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ctrate_convert.checking.damage import told
from ctrate_convert.checking.verify_files import FileFindings
from ctrate_convert.errors import DamageError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.manifest import manifest_shards
from ctrate_convert.store.records.base import read
from ctrate_convert.store.records.manifest import GIB, MIB, Manifest, ManifestShard
from ctrate_convert.store.records.plan import Plan, shard_name
from ctrate_convert.store.records.record import ShardRecord

_NAME = "manifest.json"
_NOT_KNOWN = "whether records were changed since is not known"


def readable_manifest(dataset: Dataset, found: FileFindings) -> Manifest | None:
    """The manifest; None, and why, where it cannot be read or is not there."""
    try:
        return read(Manifest, dataset.manifest)
    except FileNotFoundError:
        if any(dataset.records.glob("shard-*.json")):
            found.notes.append(f"{_NAME} is missing: {_NOT_KNOWN}. Make it with: {_merge(dataset)}")
    except (DamageError, OSError) as error:
        found.damaged(_NAME, f"{told(error)}; {_again(dataset)}")
    return None


def check_manifest(
    dataset: Dataset,
    plans: Sequence[Plan],
    manifest: Manifest,
    recorded: frozenset[int],
    found: FileFindings,
) -> None:
    """Its settings, plans and sums, and that each of its shards has a record.

    What was planned or recorded since it was merged is not in it, and no damage.
    """
    again = _again(dataset)
    for name, seen, expected in _facts(manifest, plans):
        if seen != expected:
            found.damaged(_NAME, f"{name}: seen {seen}, expected {expected}; {again}")
    records = {shard_name(index): dataset.record(index).name for index in recorded}
    listed = manifest_shards(manifest)
    planned = {shard.name: dataset.record(shard.index).name for p in plans for shard in p.shards}
    for name in listed.keys() - records.keys():
        if name in planned:
            found.damaged(planned[name], f"is missing, and the manifest lists {name}")
        else:
            found.damaged(_NAME, f"lists {name}, which no plan knows; {again}")
    unmerged = len(records.keys() - listed.keys())
    if unmerged:
        found.notes.append(
            f"{_NAME} lacks {unmerged} recorded shards: {_NOT_KNOWN}. Bring it up to date with: "
            + _merge(dataset)
        )


def _facts(manifest: Manifest, plans: Sequence[Plan]) -> list[tuple[str, object, object]]:
    """What it says and what it must, by name: the sums are those of its own entries."""
    known = plans[: len(manifest.plans)]
    facts: list[tuple[str, object, object]] = [
        ("plans", manifest.plans, tuple(plan.plan_id for plan in known))
    ]
    if not known or facts[0][1] != facts[0][2]:
        return facts
    first, states = known[0].settings, manifest.samples
    additions = {shard.name for plan in known if plan.repairs for shard in plan.shards}
    retries = sum(len(plan.retries) for plan in known)
    entries = [entry for entry in manifest.shards if entry.name not in additions]
    converted = sum(entry.samples + len(entry.superseded) for entry in entries)
    failed = sum(entry.failed for entry in entries)
    planned = sum(plan.samples for plan in known if not plan.repairs)
    excluded = sum(known[-1].excluded.values())
    size_bytes = sum(entry.size_bytes for entry in manifest.shards if entry.samples)
    expected_states = {
        "converted": converted,
        "failed": failed - retries,
        "pending": planned - converted - failed,
        "excluded": excluded,
        "total": planned - retries + excluded,
    }
    average_mb = round(size_bytes / MIB / converted, 3) if converted else 0.0
    return [
        ("num_shards", manifest.num_shards, sum(1 for one in manifest.shards if one.samples)),
        ("samples_per_shard", manifest.samples_per_shard, first.samples_per_shard),
        ("total_samples", manifest.total_samples, converted),
        ("total_size_mb", manifest.total_size_mb, round(size_bytes / MIB, 3)),
        ("total_size_gb", manifest.total_size_gb, round(size_bytes / GIB, 6)),
        ("average_sample_size_mb", manifest.average_sample_size_mb, average_mb),
        ("dtype", manifest.dtype, first.dtype),
        ("layout", manifest.layout, first.layout),
        ("encoding", manifest.encoding, first.encoding),
        ("samples", states, expected_states),
        ("excluded", manifest.excluded, known[-1].excluded),
    ]


def check_entry(
    entry: ManifestShard, record: ShardRecord, superseded: set[str], found: FileFindings
) -> None:
    """What the manifest says of a shard whose record is the one it was merged from.

    A repair may have superseded samples since.
    """
    merged = set(entry.superseded)
    facts: Mapping[str, tuple[object, object]] = {
        "samples": (entry.samples, sum(1 for one in record.converted if one.key not in merged)),
        "failed": (entry.failed, len(record.failed)),
        "size_bytes": (entry.size_bytes, record.tar.size_bytes if record.tar else 0),
        "sha256": (entry.sha256, record.tar.sha256 if record.tar else None),
        "superseded": (sorted(merged - superseded), []),
    }
    for name, (seen, expected) in facts.items():
        if seen != expected:
            what = f"{entry.name}, {name}: seen {seen}, expected {expected} by its record"
            found.damaged(_NAME, what)


def _merge(dataset: Dataset) -> str:
    return f"ctrate-convert merge {dataset.out}"


def _again(dataset: Dataset) -> str:
    return f"move it away, then: {_merge(dataset)}"
