"""The manifest: the merged, human-readable sum of all records. A cache: it can be rebuilt."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ctrate_convert.store.records.base import Key, Record, Sha256, SizeBytes

MIB = 2**20
GIB = 2**30


class ManifestShard(Record):
    """One shard with a record.

    ``samples`` of its samples count and are read; those in ``superseded`` do not: a repair has
    published another copy in a later shard. ``name`` may be absent where ``samples`` is 0.
    ``by_converter`` stands in manifests of earlier versions; nothing depends on it.
    """

    name: str
    samples: int
    failed: int
    size_bytes: SizeBytes
    sha256: Sha256 | None
    record_sha256: Sha256
    superseded: tuple[Key, ...] = ()
    by_converter: bool = Field(default=False, exclude=True)


class Manifest(Record):
    """``manifest.json``; the six totals have the original script's names and units (MiB, GiB)."""

    schema_number: Literal[1] = 1
    num_shards: int
    samples_per_shard: int
    total_samples: int
    total_size_mb: float
    total_size_gb: float
    average_sample_size_mb: float
    dtype: str
    layout: str
    encoding: str
    plans: tuple[Sha256, ...]
    samples: dict[str, int]
    excluded: dict[str, int]
    shards: tuple[ManifestShard, ...]
