"""Verify: do the shards hold what the records say, and what the sources still say?"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ctrate_convert.conversion.intensity import Scale, intensity_notes
from ctrate_convert.conversion.manifest import (
    load_manifest,
    manifest_shards,
    planned_shards,
    recorded_shards,
    superseded_samples,
)
from ctrate_convert.conversion.plans import load_samples
from ctrate_convert.conversion.precision import Precision, compare_with_source
from ctrate_convert.conversion.readback import Damage, check_members, read_shard
from ctrate_convert.conversion.sample import reconvert_digest
from ctrate_convert.conversion.shard import load_record
from ctrate_convert.errors import DamageError, ExitCode, SampleError
from ctrate_convert.operations.run import load
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.plan import Plan
from ctrate_convert.schemas.record import ConvertedSample, ShardRecord


@dataclass(frozen=True)
class _Recorded:
    """A shard's record, and those of its samples of which no repair has made another copy."""

    plan: Plan
    record: ShardRecord
    live: tuple[ConvertedSample, ...]

    @property
    def is_whole(self) -> bool:
        return len(self.live) == len(self.record.converted)


@dataclass
class VerifyReport:
    """What was looked at and what was found. No damage found is worth as much as was looked at."""

    shards: int = 0
    shards_read_whole: int = 0
    samples: int = 0
    samples_checked: int = 0
    compared_with_source: int = 0
    compared_with_digest_only: int = 0
    damage: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    precision: list[Precision] = field(default_factory=list)

    @property
    def damaged_shards(self) -> frozenset[str]:
        """The names of the shards that are missing or not what their records say."""
        return frozenset(one.shard for one in self.damage if one.shard.endswith(".tar"))

    @property
    def exit_code(self) -> ExitCode:
        """3 where damage was found."""
        return ExitCode.DAMAGE if self.damage else ExitCode.DONE


def verify(
    dataset: Dataset,
    *,
    num_samples: int,
    check_precision: bool,
    full: bool,
    num_workers: int,
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> VerifyReport:
    """Check every shard's presence and size, and ``num_samples`` samples' members byte by byte.

    ``full`` reads every shard whole instead: SHA-256, structure, every member. Each sample that
    is looked at is compared with its source where that still is the file that was read: it must
    convert to the recorded digest again. ``check_precision`` compares the voxels themselves.
    """
    report = VerifyReport()
    records = _load_records(dataset, report)
    report.shards = len(records)
    report.samples = sum(len(shard.live) for shard in records)
    report.notes += _intensity_notes(dataset, records)
    present = [shard for shard in records if _is_present(dataset, shard, report)]
    chosen = _choose(present, None if full else num_samples)

    def check(entry: tuple[_Recorded, list[ConvertedSample]]) -> VerifyReport:
        shard, samples = entry
        part = VerifyReport()
        _check_shard(dataset, shard, samples, part, full=full)
        for sample in samples:
            _check_source(
                dataset, shard.plan, shard.record, sample, part, check_precision=check_precision
            )
        return part

    with ThreadPoolExecutor(num_workers) as pool:  # digests and inflate run outside the GIL
        for done, part in enumerate(pool.map(check, chosen), 1):
            _add(report, part)
            on_shard(done, len(chosen))
    return report


def _load_records(dataset: Dataset, report: VerifyReport) -> list[_Recorded]:
    plans = load(dataset)
    by_index = planned_shards(plans)
    superseded: dict[int, frozenset[str]] = {}
    with contextlib.suppress(DamageError):  # a damaged record is named below
        superseded = superseded_samples(dataset, plans)
    recorded = recorded_shards(dataset)
    manifest = load_manifest(dataset)
    merged = manifest_shards(manifest) if manifest else {}
    found = []
    for index in sorted(recorded):
        path = dataset.record(index)
        if index not in by_index:
            report.damage.append(Damage(path.name, None, "a record that no plan knows"))
            continue
        plan, shard = by_index[index]
        try:
            record = load_record(dataset, plan, index)
        except DamageError as error:
            report.damage.append(Damage(path.name, None, error.one_line()))
            continue
        entry = merged.get(shard.name)
        if entry is not None and entry.record_sha256 != record.stored_sha256():
            what = "this record was changed after it was merged into the manifest"
            report.damage.append(Damage(path.name, None, what))
        gone = superseded.get(index, frozenset())
        live = tuple(sample for sample in record.converted if sample.key not in gone)
        found.append(_Recorded(plan, record, live))
    for path in sorted(dataset.out.glob("shard-*.tar")):
        number = path.stem.removeprefix("shard-")
        if not number.isdigit() or int(number) not in recorded:
            report.damage.append(Damage(path.name, None, "a shard that no record knows"))
    return found


def _intensity_notes(dataset: Dataset, records: Sequence[_Recorded]) -> list[str]:
    """Whether readers may apply the tables' intercepts, by what every volume's voxels showed."""
    by_index = planned_shards(load(dataset))
    scales, unknown = [], []
    for shard in records:
        try:
            planned = load_samples(dataset, shard.plan, by_index[shard.record.shard][1])
        except DamageError as error:
            unknown.append(f"the table's intercepts are not known: {error.one_line()}")
            planned = ()
        intercepts = {one.key: one.metadata.get("RescaleIntercept", "") for one in planned}
        scales += [
            Scale(one.key, one.array.intensity, intercepts.get(one.key, "")) for one in shard.live
        ]
    return [*intensity_notes(scales), *unknown]


def _is_present(dataset: Dataset, shard: _Recorded, report: VerifyReport) -> bool:
    record = shard.record
    if record.tar is None:
        return False
    path = dataset.shard(record.shard)
    if not shard.live:
        if os.path.lexists(path):
            report.notes.append(
                f"{path.name}: all its samples were repaired into other shards; no reader of the "
                "manifest opens it any more, and you may move it away"
            )
        return False
    try:
        size_bytes = os.stat(path, follow_symlinks=False).st_size
    except OSError as error:
        what = f"cannot be seen: {error.strerror}; it held {len(shard.live)} samples"
        report.damage.append(Damage(path.name, None, what))
        return False
    if shard.is_whole and size_bytes != record.tar.size_bytes:
        what = f"size {size_bytes} bytes, expected {record.tar.size_bytes}"
        report.damage.append(Damage(path.name, None, what))
    return True


def _choose(
    present: list[_Recorded], num_samples: int | None
) -> list[tuple[_Recorded, list[ConvertedSample]]]:
    if num_samples is None:
        return [(shard, list(shard.live)) for shard in present]
    every = [(at, sample) for at, shard in enumerate(present) for sample in shard.live]
    picked: dict[int, list[ConvertedSample]] = {}
    for at, sample in random.sample(every, min(num_samples, len(every))):
        picked.setdefault(at, []).append(sample)
    return [(present[at], samples) for at, samples in sorted(picked.items())]


def _check_shard(
    dataset: Dataset,
    shard: _Recorded,
    samples: Sequence[ConvertedSample],
    report: VerifyReport,
    *,
    full: bool,
) -> None:
    plan, record = shard.plan, shard.record
    path = dataset.shard(record.shard)
    report.samples_checked += len(samples)
    try:
        if not full or not shard.is_whole:  # what was repaired is damaged, and no matter any more
            report.damage.extend(check_members(path, samples, plan.settings.layout))
            return
        found = read_shard(path, record.converted, plan.settings.layout)
    except OSError as error:
        report.damage.append(Damage(path.name, None, f"cannot be read: {error.strerror}"))
        return
    report.shards_read_whole += 1
    report.damage.extend(found.damage)
    if not found.damage and record.tar and found.sha256 != record.tar.sha256:
        what = f"SHA-256 {found.sha256[:16]}…, expected {record.tar.sha256[:16]}…"
        report.damage.append(Damage(path.name, None, f"{what} (outside every member)"))


def _check_source(
    dataset: Dataset,
    plan: Plan,
    record: ShardRecord,
    sample: ConvertedSample,
    report: VerifyReport,
    *,
    check_precision: bool,
) -> None:
    source = Path(plan.settings.data_folder) / sample.source.source
    if not os.path.lexists(source):
        report.compared_with_digest_only += 1
        return
    try:
        digest, now = reconvert_digest(
            source, sample.source.source, sample, plan.settings, dataset.out
        )
        if now != sample.source and digest != sample.array.blake3:
            report.notes.append(f"{sample.key}: its source was changed after it was converted")
            report.compared_with_digest_only += 1
            return
        report.compared_with_source += 1
        if digest != sample.array.blake3:
            what = "its source, though untouched, no longer converts to what the shard holds"
            report.damage.append(Damage(sample.source.source, sample.key, what))
        elif check_precision:
            shard = dataset.shard(record.shard)
            report.precision.append(
                compare_with_source(source, shard, sample, plan.settings, dataset.out)
            )
    except (SampleError, OSError) as error:
        what = error.one_line() if isinstance(error, SampleError) else str(error)
        report.notes.append(f"{sample.key}: its source cannot be compared: {what}")
        report.compared_with_digest_only += 1


def _add(report: VerifyReport, part: VerifyReport) -> None:
    report.shards_read_whole += part.shards_read_whole
    report.samples_checked += part.samples_checked
    report.compared_with_source += part.compared_with_source
    report.compared_with_digest_only += part.compared_with_digest_only
    report.damage += part.damage
    report.notes += part.notes
    report.precision += part.precision
