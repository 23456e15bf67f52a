"""Combine plans, records, manifest and journals into the state of each shard and sample.

Only this module answers which shards are planned, recorded, damaged or pending, and which copy of a
sample counts. It stores no state of its own and derives everything from the files.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ctrate_convert.errors import DamageError
from ctrate_convert.store.durable import read_regular
from ctrate_convert.store.journals import closed_keys, read_journal
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.base import read, sha256_hex
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.manifest import Manifest, ManifestShard
from ctrate_convert.store.records.plan import Plan, PlannedShard, shard_name, shard_number
from ctrate_convert.store.records.record import ConvertedSample, FailedSample, ShardRecord

_RECORD_NAME = re.compile(r"shard-([0-9]{6,9})\.json")


class Planned(NamedTuple):
    """A planned shard and the plan that it belongs to."""

    plan: Plan
    shard: PlannedShard


@dataclass(frozen=True)
class Recorded:
    """A shard with a record.

    ``superseded`` are those of its samples of which a repair has recorded another copy.
    """

    plan: Plan
    shard: PlannedShard
    record: ShardRecord
    superseded: frozenset[str]

    @property
    def live(self) -> tuple[ConvertedSample, ...]:
        """The converted samples that count by their copy in this shard."""
        return tuple(one for one in self.record.converted if one.key not in self.superseded)

    @property
    def is_whole(self) -> bool:
        """True if no converted sample of this shard is superseded."""
        return not any(one.key in self.superseded for one in self.record.converted)


@dataclass(frozen=True)
class Unreadable:
    """A shard that has a record which is damaged or cannot be read."""

    plan: Plan
    shard: PlannedShard
    error: DamageError | OSError


@dataclass(frozen=True)
class Ledger:
    """The state of a dataset at the moment when its records were listed.

    The records are listed when ``recorded`` is first asked for, unless ``listed`` has them: a task
    that only wants its own shard costs no listing of all. Each record is read on demand, since a
    published record never changes. ``sound`` is a cache that the caller may keep between ledgers: a
    record or a file of a plan that was found sound is read again only if its file, or the record's
    entry, has changed.
    """

    dataset: Dataset
    plans: Sequence[Plan]
    listed: frozenset[int] | None = None
    sound: MutableMapping[int | str, tuple[object, ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, dataset: Dataset) -> Ledger:
        """List the records, load all plans, and return the ledger.

        A plan is published before its first record. The records are listed first, so that no record
        that a run writes meanwhile seems to belong to no plan.

        Raises:
            SettingsError: there is no plan.
            DamageError: both copies of a plan are damaged.
        """
        recorded = recorded_numbers(dataset)
        return cls(dataset, require_plans(dataset), recorded)

    @cached_property
    def planned(self) -> dict[int, Planned]:
        """All planned shards, by number."""
        return planned_shards(self.plans)

    @cached_property
    def recorded(self) -> frozenset[int]:
        """The numbers of the shards that have a record, also of those that no plan knows."""
        return recorded_numbers(self.dataset) if self.listed is None else self.listed

    @cached_property
    def known(self) -> tuple[int, ...]:
        """The numbers of the recorded shards that a plan knows, in order."""
        return tuple(sorted(self.recorded & self.planned.keys()))

    @cached_property
    def manifest(self) -> Manifest | None:
        """The manifest as it stands; None if there is none."""
        return load_manifest(self.dataset)

    @cached_property
    def merged(self) -> dict[str, ManifestShard]:
        """The manifest's entries, by the shard's file name; empty if there is no manifest."""
        return manifest_shards(self.manifest) if self.manifest else {}

    @cached_property
    def superseded(self) -> dict[int, frozenset[str]]:
        """The samples of which a repair has published and recorded another copy, by shard number.

        If the record of a repair's shard is damaged, the manifest tells which samples it held.
        """
        found: dict[int, set[str]] = {}
        for plan in self.plans:
            for shard in plan.shards if plan.repairs else ():
                try:
                    record = load_record(self.dataset, plan, shard.index)
                    keys = {one.key for one in record.converted}
                except FileNotFoundError:
                    continue
                except (DamageError, OSError):
                    keys = self._merged_as_superseded(plan)
                for key in keys & plan.repairs.keys():
                    found.setdefault(plan.repairs[key], set()).add(key)
        return {shard: frozenset(keys) for shard, keys in found.items()}

    def record(self, index: int) -> ShardRecord:
        """Return the record of one planned shard.

        Raises:
            FileNotFoundError: there is no record.
            DamageError: the file is not a record, or is that of another plan or shard.
        """
        return load_record(self.dataset, self.planned[index].plan, index)

    def shard(self, index: int) -> Recorded:
        """Return one recorded shard. Raises what `record` raises."""
        return Recorded(
            *self.planned[index], self.record(index), self.superseded.get(index, frozenset())
        )

    def shards(self, newest: int | None = None) -> Iterator[Recorded | Unreadable]:
        """Yield the `known` shards, in order; with ``newest`` only so many, the last ones."""
        for index in self.known if newest is None else self.known[-newest:]:
            try:
                yield self.shard(index)
            except (DamageError, OSError) as error:
                yield Unreadable(*self.planned[index], error)

    def readable(self, newest: int | None = None) -> Iterator[Recorded]:
        """Return an iterator over those of `shards` that have a sound record."""
        return (one for one in self.shards(newest) if isinstance(one, Recorded))

    def failed_samples(self, shards: Collection[int]) -> dict[str, FailedSample]:
        """Return by key the samples that failed where they were planned last.

        ``shards`` are those whose record names a failed sample: no other record is read.
        """
        failed: dict[str, FailedSample] = {}
        for plan in self.plans:
            # The outcome of the retry counts instead.
            for key in plan.retries:
                failed.pop(key, None)
            # A sample whose repair failed still counts where it was converted.
            for shard in plan.shards if not plan.repairs else ():
                if shard.index in shards:
                    with contextlib.suppress(DamageError, OSError):
                        failed.update((one.key, one) for one in self.record(shard.index).failed)
        return failed

    @cached_property
    def damaged(self) -> dict[int, str]:
        """The shards whose record is not reliable, by number, and why.

        A missing record counts as damaged if the manifest lists its shard. A record with the bytes
        that were merged is not parsed again.
        """
        damaged = {}
        listed = {shard_number(name) for name in self.merged}
        # Of a large plan most shards may have neither a record nor an entry: they cost no look.
        for index in sorted((self.recorded | listed) & self.planned.keys()):
            plan, shard = self.planned[index]
            entry = self.merged.get(shard.name)
            try:
                path = self.dataset.record(index)
                seen = (*identity(path), entry and entry.record_sha256)
                if self.sound.get(index) == seen:
                    continue
                data = read_regular(path)
                if entry is not None and sha256_hex(data) == entry.record_sha256:
                    self.sound[index] = seen
                    continue
                record = load_record(self.dataset, plan, index)
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

    def pending(self, consent: Consent | None = None) -> list[Planned]:
        """Return the shards without a record, and those with sources that ``consent`` lets go."""
        return [
            Planned(plan, shard)
            for index, (plan, shard) in self.planned.items()
            if index not in self.recorded
            or (allows(consent, plan, shard) and not self._deletion_closed(shard))
        ]

    def _deletion_closed(self, shard: PlannedShard) -> bool:
        """Return True if the journal closes the deletion of every converted sample of the shard.

        A superseded sample counts as closed: its source belongs to the shard that holds the new
        copy. A failed one has no source that could go.
        """
        superseded = self.superseded.get(shard.index, frozenset())
        closed = superseded | closed_keys(read_journal(self.dataset, shard.index))
        if len(closed) >= shard.samples:
            return True  # without a look at the record
        try:
            converted = self.record(shard.index).converted
        except (DamageError, OSError):
            return False
        return closed >= {one.key for one in converted}

    def _merged_as_superseded(self, plan: Plan) -> set[str]:
        return {
            key
            for key, shard in plan.repairs.items()
            if (entry := self.merged.get(shard_name(shard))) and key in entry.superseded
        }


def identity(path: Path) -> tuple[int, ...]:
    """Return what differs once the file was changed or replaced.

    Raises:
        OSError: there is no such file, or its folder cannot be searched.
    """
    status = path.stat(follow_symlinks=False)
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def planned_shards(plans: Iterable[Plan]) -> dict[int, Planned]:
    """Return all planned shards, by number."""
    return {shard.index: Planned(plan, shard) for plan in plans for shard in plan.shards}


def allows(consent: Consent | None, plan: Plan, shard: PlannedShard) -> bool:
    """Return True if ``consent`` names this shard of this plan."""
    return consent is not None and plan.plan_id in consent.plans and consent.names(shard.index)


def recorded_numbers(dataset: Dataset) -> frozenset[int]:
    """Return the numbers of all shards that have a record, from one directory listing."""
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        names = [path.name for path in dataset.records.iterdir()]
    return frozenset(
        number
        for name in names
        # shard-0000001.json would also give the number 1: only the exact name counts.
        if (found := _RECORD_NAME.fullmatch(name))
        and name == f"shard-{(number := int(found[1])):06d}.json"
    )


def load_record(dataset: Dataset, plan: Plan, shard: int) -> ShardRecord:
    """Return the record of one shard.

    Raises:
        FileNotFoundError: there is no record.
        DamageError: the file is not a record, or is that of another plan or shard.
    """
    path = dataset.record(shard)
    record = read(ShardRecord, path)
    if (record.plan_id, record.shard) != (plan.plan_id, shard):
        raise DamageError(
            "record belongs to another plan or shard",
            where=path,
            seen=f"shard {record.shard} of plan {record.plan_id[:12]}",
            expected=f"shard {shard} of plan {plan.plan_id[:12]}",
        )
    return record


def load_manifest(dataset: Dataset) -> Manifest | None:
    """Return the manifest, or None if it is missing or damaged: it can be rebuilt."""
    with contextlib.suppress(FileNotFoundError, DamageError):
        return read(Manifest, dataset.manifest)
    return None


def manifest_shards(manifest: Manifest) -> dict[str, ManifestShard]:
    """Return the manifest's shards by file name."""
    return {shard.name: shard for shard in manifest.shards}
