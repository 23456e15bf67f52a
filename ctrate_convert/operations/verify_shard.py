"""Verify, of one shard: its bytes against its record, its samples against their sources."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ctrate_convert.conversion.precision import Precision, compare_with_source
from ctrate_convert.conversion.readback import Damage, check_members, read_shard
from ctrate_convert.conversion.sample import reconvert_digest
from ctrate_convert.errors import SampleError
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.plan import PlanSettings
from ctrate_convert.schemas.record import ConvertedSample, ShardRecord, SourceFingerprint


@dataclass(frozen=True)
class ShardToCheck:
    """What is to be looked at of one shard: plain values, for a process of its own.

    ``whole``: read all of it, its SHA-256 too; else only the members of ``samples``.
    """

    dataset: Dataset
    settings: PlanSettings
    record: ShardRecord
    samples: tuple[ConvertedSample, ...]
    whole: bool
    check_precision: bool

    @property
    def path(self) -> Path:
        """The tar."""
        return self.dataset.shard(self.record.shard)


@dataclass
class ShardFindings:
    """What was looked at of one shard and what was found."""

    read_whole: bool = False
    samples_checked: int = 0
    compared_with_source: int = 0
    compared_with_digest_only: int = 0
    damage: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    precision: list[Precision] = field(default_factory=list)


def check_shard(shard: ShardToCheck) -> ShardFindings:
    """Look at all that ``shard`` names; what is wrong is found, never raised."""
    found = ShardFindings()
    _check_bytes(shard, found)
    for sample in shard.samples:
        _check_source(shard, sample, found)
    return found


def _check_bytes(shard: ShardToCheck, found: ShardFindings) -> None:
    record, layout, path = shard.record, shard.settings.layout, shard.path
    found.samples_checked = len(shard.samples)
    try:
        if not shard.whole:
            found.damage.extend(check_members(path, shard.samples, layout))
            return
        read = read_shard(path, record.converted, layout)
    except OSError as error:
        found.damage.append(Damage(path.name, None, f"cannot be read: {error.strerror}"))
        return
    found.read_whole = True
    found.damage.extend(read.damage)
    if not read.damage and record.tar and read.sha256 != record.tar.sha256:
        what = f"SHA-256 {read.sha256[:16]}…, expected {record.tar.sha256[:16]}…"
        found.damage.append(Damage(path.name, None, f"{what} (outside every member)"))


def _check_source(shard: ShardToCheck, sample: ConvertedSample, found: ShardFindings) -> None:
    settings, out = shard.settings, shard.dataset.out
    source = Path(settings.data_folder) / sample.source.source
    if not os.path.lexists(source):
        found.compared_with_digest_only += 1
        return
    try:
        digest, now = reconvert_digest(source, sample.source.source, sample, settings, out)
        touched = _differences(now, sample.source)
        if touched and digest != sample.array.blake3:
            found.notes.append(
                f"{sample.key}: its source was changed after it was converted ({touched})"
            )
            found.compared_with_digest_only += 1
            return
        found.compared_with_source += 1
        if digest != sample.array.blake3:
            what = "its source, though untouched, no longer converts to what the shard holds"
            found.damage.append(Damage(sample.source.source, sample.key, what))
            return
        if touched:
            found.notes.append(
                f"{sample.key}: its source was touched after it was converted ({touched}); it "
                "holds the same voxels, and is not deleted"
            )
        if shard.check_precision:
            found.precision.append(compare_with_source(source, shard.path, sample, settings, out))
    except (SampleError, OSError) as error:
        what = error.one_line() if isinstance(error, SampleError) else str(error)
        found.notes.append(f"{sample.key}: its source cannot be compared: {what}")
        found.compared_with_digest_only += 1


def _differences(now: SourceFingerprint, then: SourceFingerprint) -> str:
    """The names of what has changed; empty where it is the file that was read."""
    names = ("size_bytes", "mtime_ns", "ctime_ns", "inode")
    return ", ".join(name for name in names if getattr(now, name) != getattr(then, name))
