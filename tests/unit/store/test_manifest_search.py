"""A shard's entry in a manifest is found by a few reads."""

from __future__ import annotations

import os
import random
from pathlib import Path
from unittest import mock

import pytest

from ctrate_convert.store.records.manifest import Manifest, ManifestShard
from ctrate_convert.store.records.manifest_search import lists_shard
from ctrate_convert.store.records.plan import shard_name


def manifest_of(path: Path, shards: list[int], superseded: int = 0) -> Path:
    entries = tuple(
        ManifestShard(
            name=shard_name(shard), samples=1, failed=0, size_bytes=1, sha256="a" * 64,
            record_sha256="b" * 64,
            superseded=tuple(f"train_{key}_a_1" for key in range(superseded)),
        )
        for shard in shards
    )  # fmt: skip
    manifest = Manifest(
        num_shards=len(entries), samples_per_shard=1, total_samples=1, total_size_mb=1.0,
        total_size_gb=1.0, average_sample_size_mb=1.0, dtype="auto", layout="webdataset",
        encoding="npy", plans=("c" * 64,), samples={}, excluded={}, shards=entries,
    )  # fmt: skip
    path.write_bytes(manifest.to_pretty_json())
    return path


@pytest.mark.parametrize("superseded", [0, 3, 2000])
def test_what_is_listed_is_found_and_nothing_else(tmp_path: Path, superseded: int) -> None:
    shards = sorted(random.Random(superseded).sample(range(2000), 100))
    manifest = manifest_of(tmp_path / "manifest.json", shards, superseded)
    assert [shard for shard in range(2001) if lists_shard(manifest, shard)] == shards


def test_no_shard_is_found_in_a_manifest_of_none(tmp_path: Path) -> None:
    assert not lists_shard(manifest_of(tmp_path / "manifest.json", []), 0)


def test_of_a_large_manifest_little_is_read(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path / "manifest.json", [*range(0, 2_000_000, 200)])
    read: list[int] = []
    real = os.pread

    def counted(descriptor: int, size_bytes: int, offset: int) -> bytes:
        data = real(descriptor, size_bytes, offset)
        read.append(len(data))
        return data

    with mock.patch.object(os, "pread", counted):
        assert lists_shard(manifest, 400_000)
        assert not lists_shard(manifest, 400_001)
    assert sum(read) < manifest.stat().st_size / 4
