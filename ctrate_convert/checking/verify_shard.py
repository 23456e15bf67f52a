"""Verify one shard: compare its bytes with its record, and its samples with their sources."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ctrate_convert.checking.shard_check import check_samples
from ctrate_convert.deleting.compare import Comparison, Pair, compare
from ctrate_convert.deleting.stored_shard import recorded_shard
from ctrate_convert.errors import CtrateError
from ctrate_convert.reading.index import stored_sample
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.damage import Damage
from ctrate_convert.store.records.plan import PlanSettings
from ctrate_convert.store.records.record import ConvertedSample, ShardRecord, SourceFingerprint


@dataclass(frozen=True)
class Precision:
    """Distance of one sample's voxels in the shard from its source's, in the source's unit.

    Of a source that is gone there is only what was recorded when it was converted.
    """

    key: str
    max_abs_error: float | None
    mean_abs_error: float | None
    recorded_max_abs_error: float


@dataclass(frozen=True)
class ShardToCheck:
    """One shard and the samples to check in it, as plain values for another process.

    If ``whole``, all of the shard is read, for its SHA-256 too; else only the members of
    ``samples``.
    """

    dataset: Dataset
    settings: PlanSettings
    record: ShardRecord
    samples: tuple[ConvertedSample, ...]
    whole: bool
    check_precision: bool

    @property
    def path(self) -> Path:
        """The path of the tar."""
        return self.dataset.shard(self.record.shard)


@dataclass
class ShardFindings:
    """The extent of the check of one shard, or of several, and its findings."""

    shards_read_whole: int = 0
    samples_checked: int = 0
    compared_with_source: int = 0
    compared_with_digest_only: int = 0
    damage: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    precision: list[Precision] = field(default_factory=list)


def verify_shard(shard: ShardToCheck) -> ShardFindings:
    """Check all that ``shard`` names; report what is wrong as findings, never by raising."""
    settings, samples = shard.settings, shard.samples
    read = check_samples(shard.path, shard.record, settings.layout, samples, whole=shard.whole)
    found = ShardFindings(int(read.read_whole), len(samples), damage=[*read.damage])
    for sample in samples:
        _check_source(shard, sample, found)
    return found


def _check_source(shard: ShardToCheck, sample: ConvertedSample, found: ShardFindings) -> None:
    settings = shard.settings
    source = Path(settings.data_folder) / sample.source.source
    if not os.path.lexists(source):
        found.compared_with_digest_only += 1
        if shard.check_precision:
            found.precision.append(Precision(sample.key, None, None, sample.array.max_abs_error))
        return
    try:
        # O_NONBLOCK: a named pipe in the source's place must not block.
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            touched = _differences(os.fstat(descriptor), sample.source)
            compared = _compare(shard, sample, source, descriptor)
        finally:
            os.close(descriptor)
        _note_comparison(shard, sample, compared, touched, found)
    except (CtrateError, OSError) as error:
        what = error.one_line() if isinstance(error, CtrateError) else str(error)
        found.notes.append(f"{sample.key}: its source cannot be compared: {what}")
        found.compared_with_digest_only += 1


def _compare(
    shard: ShardToCheck, sample: ConvertedSample, source: Path, descriptor: int
) -> Comparison:
    readable = recorded_shard(shard.dataset, shard.record.shard, shard.record.tar)
    with ShardFile(readable) as opened:
        stored = stored_sample(sample.model_dump(), readable, shard.settings.layout)
        pair = Pair(descriptor, source, opened, stored, shard.settings)
        return compare(pair, exact=shard.check_precision)


def _note_comparison(
    shard: ShardToCheck,
    sample: ConvertedSample,
    compared: Comparison,
    touched: str,
    found: ShardFindings,
) -> None:
    key = sample.key
    # A source that was changed since its conversion says nothing against the shard.
    if compared.differences and touched:
        found.notes.append(f"{key}: its source was changed after it was converted ({touched})")
        found.compared_with_digest_only += 1
        return
    found.compared_with_source += 1
    if compared.differences:
        what = "its shard does not hold its source, which was not touched since: "
        found.damage.append(Damage(shard.path.name, key, what + "; ".join(compared.differences)))
        return
    if touched:
        found.notes.append(
            f"{key}: its source was touched after it was converted ({touched}); it holds the same "
            "voxels"
        )
    if shard.check_precision:
        found.precision.append(
            Precision(
                key, compared.max_abs_error, compared.mean_abs_error, sample.array.max_abs_error
            )
        )


def _differences(now: os.stat_result, then: SourceFingerprint) -> str:
    """Return the names of the facts that changed; empty if it is the file that was read."""
    changed = {
        "size_bytes": now.st_size != then.size_bytes,
        "mtime_ns": now.st_mtime_ns != then.mtime_ns,
        "ctime_ns": now.st_ctime_ns != then.ctime_ns,
        "inode": now.st_ino != then.inode,
    }
    return ", ".join(name for name, differs in changed.items() if differs)
