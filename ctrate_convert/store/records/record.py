"""The shard record: the proof that a shard was published, with the outcome of each sample."""

from __future__ import annotations

from typing import Literal

from ctrate_convert.store.records.base import Blake3, Key, Record, RelativePath, Sha256, SizeBytes
from ctrate_convert.store.records.geometry import NO_GEOMETRY, Geometry
from ctrate_convert.store.records.plan import ArrayHeader, Encoding

Intensity = Literal["hu", "raw-1024", "raw-8192", "normalised", "unknown"]
"""Hounsfield units, raw values that still need an intercept, HU/1000, or not known."""


class SourceFingerprint(Record):
    """The identity of a source file, from fstat on the file that was read.

    The device number is left out, since it differs between the nodes of a cluster.
    """

    source: RelativePath
    size_bytes: SizeBytes
    mtime_ns: int
    ctime_ns: int
    inode: int


class MemberRecord(Record):
    """One member of the tar: the place and the digest of its payload."""

    name: str
    offset: SizeBytes
    size_bytes: SizeBytes
    blake3: Blake3


class ArrayRecord(Record):
    """The array member, as measured while it was written.

    ``blake3`` is the digest of the array's elements alone (C order, little-endian), whatever the
    encoding. ``stored_blake3`` is that of the member's bytes if these are not the elements
    themselves. A voxel is its element times ``value_scale``. ``max_abs_error`` covers every voxel;
    it and the range are in the source's own unit. ``intensity`` is the scale that the voxels show.
    An element times ``hu_slope`` plus ``hu_intercept`` is in Hounsfield units by the evidence
    ``hu_from``; if nothing tells, the slope is 0.
    """

    name: str
    offset: SizeBytes
    size_bytes: SizeBytes
    dtype: Literal["int8", "uint8", "int16", "int32", "float16"]
    shape: tuple[int, int, int]
    encoding: Encoding
    blake3: Blake3
    stored_blake3: Blake3 | None
    value_scale: float
    intensity: Intensity
    max_abs_error: float
    value_min: float
    value_max: float
    nan_count: int
    infinite_count: int
    hu_slope: float = 0.0
    hu_intercept: float = 0.0
    hu_from: str = ""


class ConvertedSample(Record):
    """A sample that is in the shard, with the digests and facts that prove it."""

    key: Key
    state: Literal["converted"] = "converted"
    source: SourceFingerprint
    source_header: ArrayHeader
    array: ArrayRecord
    members: tuple[MemberRecord, ...]
    geometry: Geometry = NO_GEOMETRY

    @property
    def all_members(self) -> tuple[ArrayRecord | MemberRecord, ...]:
        """The array and the other members, in their order in the tar."""
        return (self.array, *self.members)


class FailedSample(Record):
    """A sample that is not in the shard, with the reason; its source stays.

    ``unreadable`` is True if the storage could not read the source, so that nothing is known of its
    content.
    """

    key: Key
    state: Literal["failed"] = "failed"
    reason: str
    source: RelativePath
    source_mtime_ns: int
    source_ctime_ns: int
    unreadable: bool = False


class TarRecord(Record):
    """The published tar, as re-read from storage."""

    size_bytes: SizeBytes
    sha256: Sha256


class Worker(Record):
    """The process that wrote the shard.

    This is enough to find its log, and to prove that the process is dead instead of guessing.
    """

    attempt: str
    host: str
    pid: int


class ShardRecord(Record):
    """``records/shard-000123.json``. ``tar`` is None if every sample of the shard failed.

    ``elapsed_s`` and ``cpu_s`` cover the whole shard, including its re-read.
    """

    schema_number: Literal[1] = 1
    plan_id: Sha256
    shard: int
    tar: TarRecord | None
    samples: tuple[ConvertedSample | FailedSample, ...]
    worker: Worker
    started: str
    elapsed_s: float
    cpu_s: float = 0.0
    source_bytes: int

    @property
    def converted(self) -> tuple[ConvertedSample, ...]:
        """The samples that are in the shard."""
        return tuple(s for s in self.samples if isinstance(s, ConvertedSample))

    @property
    def failed(self) -> tuple[FailedSample, ...]:
        """The samples that are not in the shard."""
        return tuple(s for s in self.samples if isinstance(s, FailedSample))
