"""wids, the indexed reader of webdataset below 1.0."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import ctrate_convert
from tests.readers.conftest import ENCODINGS, Convert
from tests.readers.documented import run_lines
from tests.readers.originals import Given, assert_all_there

wids = pytest.importorskip(
    "wids", reason="wids came with webdataset below 1.0, and needs torch", exc_type=ImportError
)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_sample_by_its_number(convert: Convert, encoding: str) -> None:
    """The last one first, and nothing is copied or left beside the shards."""
    converted = convert(encoding, index="wids")
    dataset = run_lines("wids", encoding)["dataset"]
    decode = ctrate_convert.decoder()

    def voxels(sample: dict[str, Any]) -> Any:
        found = sample[f".volume.{encoding}"]
        return decode(f"volume.{encoding}", found.read()) if encoding == "b2nd" else found

    assert len(dataset) == 8
    samples = [dataset[number] for number in reversed(range(8))]
    assert_all_there(
        converted,
        (
            Given(one["__key__"], voxels(one), one[".labels.npy"], one[".report.txt"], one[".json"])
            for one in samples
        ),
    )
    names = {path.name for path in converted.out.iterdir()}
    assert names == {
        ".run",
        "README.md",
        "manifest.json",
        *(f"shard-00000{n}.tar" for n in (0, 1, 2)),
    }


def test_it_copies_every_shard_unless_told_where_they_are(convert: Convert, tmp_path: Path) -> None:
    """Its trap: without ``localname`` local shards are copied, by default to /tmp/_wids_cache."""
    convert(index="wids")
    cache = tmp_path / "cache"
    cache.mkdir()
    dataset = wids.ShardListDataset("for-wids/index.json", cache_dir=str(cache))
    assert dataset[0]["__key__"]
    assert os.path.getsize(cache / "shard-000000.tar") == os.path.getsize(
        "shards/train/shard-000000.tar"
    )
