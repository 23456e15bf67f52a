"""The manifest: a readable summary of all records, which can be rebuilt from them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ctrate_convert.store.records.base import Key, Record, Sha256, SizeBytes
from ctrate_convert.store.records.volume_list import GenerationLists

MIB = 2**20
GIB = 2**30


class ManifestShard(Record):
    """The manifest's entry for one shard with a record.

    ``samples`` counts the samples that readers get from this shard. Those in ``superseded`` are not
    among them: a repair has published another copy in a later shard. The file ``name`` may be
    absent if ``samples`` is 0. ``by_converter`` occurs in manifests of earlier versions; nothing
    depends on it.
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
    """``manifest.json``. Its six totals have the original script's names and units (MiB, GiB).

    ``lists`` has an entry for each generation whose plan recorded lists of volumes.
    """

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
    lists: tuple[GenerationLists, ...] = ()
    samples: dict[str, int]
    excluded: dict[str, int]
    shards: tuple[ManifestShard, ...]
