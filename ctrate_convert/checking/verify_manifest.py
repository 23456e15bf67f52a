"""Verify the manifest: it agrees with plans and records, and its sums are right.

The manifest is a cache, so a missing one is only noted. But readers rely on one that is there.
"""

from __future__ import annotations

from collections.abc import Sequence

from ctrate_convert.checking.damage import told
from ctrate_convert.checking.verify_files import FileFindings
from ctrate_convert.errors import DamageError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, manifest_shards
from ctrate_convert.store.merger import entry_of, sum_up
from ctrate_convert.store.records.base import read
from ctrate_convert.store.records.manifest import Manifest, ManifestShard
from ctrate_convert.store.records.plan import Plan, shard_name
from ctrate_convert.store.records.record import ShardRecord

_NAME = "manifest.json"
_NOT_KNOWN = "whether records were changed since is not known"


def readable_manifest(dataset: Dataset, found: FileFindings) -> Manifest | None:
    """Return the manifest; record why and return None if it is missing or cannot be read."""
    try:
        return read(Manifest, dataset.manifest)
    except FileNotFoundError:
        if any(dataset.records.glob("shard-*.json")):
            found.notes.append(f"{_NAME} is missing: {_NOT_KNOWN}. Make it with: {_merge(dataset)}")
    except (DamageError, OSError) as error:
        found.damaged(_NAME, f"{told(error)}; {_again(dataset)}")
    return None


def check_manifest(ledger: Ledger, manifest: Manifest, found: FileFindings) -> None:
    """Check the manifest's settings, plans and sums, and that each of its shards has a record.

    What was planned or recorded after the merge is not in the manifest; that is no damage.
    """
    again = _again(ledger.dataset)
    for name, seen, expected in _facts(manifest, ledger.plans):
        if seen != expected:
            found.damaged(_NAME, f"{name}: seen {seen}, expected {expected}; {again}")
    recorded = {shard_name(index) for index in ledger.recorded}
    listed = manifest_shards(manifest)
    planned = {shard.name: shard.index for _, shard in ledger.planned.values()}
    for name in listed.keys() - recorded:
        if name in planned:
            record = ledger.dataset.record(planned[name]).name
            found.damaged(record, f"is missing, and the manifest lists {name}")
        else:
            found.damaged(_NAME, f"lists {name}, which no plan knows; {again}")
    unmerged = len(recorded - listed.keys())
    if unmerged:
        found.notes.append(
            f"{_NAME} lacks {unmerged} recorded shards: {_NOT_KNOWN}. Bring it up to date with: "
            + _merge(ledger.dataset)
        )


def _facts(manifest: Manifest, plans: Sequence[Plan]) -> list[tuple[str, object, object]]:
    """Return each fact's name, its value in the manifest, and its value by plans and entries."""
    # Plans are only added, so the merged plans are the first ones.
    known = plans[: len(manifest.plans)]
    if not known or manifest.plans != tuple(plan.plan_id for plan in known):
        return [("plans", manifest.plans, tuple(plan.plan_id for plan in known))]
    expected = sum_up(known, manifest.shards)
    return [
        (name, getattr(manifest, name), getattr(expected, name))
        for name in Manifest.model_fields
        if name != "shards"
    ]


def check_entry(
    entry: ManifestShard, record: ShardRecord, superseded: frozenset[str], found: FileFindings
) -> None:
    """Compare the manifest's entry with the record that it was merged from.

    A repair may have superseded samples since the merge.
    """
    expected = entry_of(record, frozenset(entry.superseded))
    facts = [
        (name, getattr(entry, name), getattr(expected, name))
        for name in ("samples", "failed", "size_bytes", "sha256")
    ]
    # The manifest may know fewer superseded samples than there are by now, but no others.
    facts.append(("superseded", sorted(set(entry.superseded) - superseded), []))
    for name, seen, recorded in facts:
        if seen != recorded:
            what = f"{entry.name}, {name}: seen {seen}, expected {recorded} by its record"
            found.damaged(_NAME, what)


def _merge(dataset: Dataset) -> str:
    return f"ctrate-convert merge {dataset.out}"


def _again(dataset: Dataset) -> str:
    return f"move it away, then: {_merge(dataset)}"
