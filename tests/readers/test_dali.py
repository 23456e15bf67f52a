"""NVIDIA DALI on the CPU: ``fn.readers.webdataset`` with exported index files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ctrate_convert
from tests.readers.conftest import ENCODINGS, INTEGERS, Convert
from tests.readers.documented import run_lines
from tests.readers.originals import Given, assert_all_there

dali = pytest.importorskip(
    "nvidia.dali", reason="nvidia-dali-cuda120 is not installed", exc_type=ImportError
)


def stored(encoding: str, **more: Any) -> list[tuple[bytes, ...]]:
    """The members of every sample as bytes, as the reader alone gives them."""
    names = [f"volume.{encoding}", "labels.npy", "report.txt", "json"]
    shards = [str(path) for path in sorted(Path("for-dali").resolve().glob("*.tar"))]

    pipeline = dali.Pipeline(batch_size=1, num_threads=1, device_id=None)
    with pipeline:
        members = dali.fn.readers.webdataset(
            paths=shards,
            index_paths=[f"{name.removesuffix('.tar')}.idx" for name in shards],
            ext=names,
            name="reader",
            **more,
        )
        pipeline.set_outputs(*members)
    pipeline.build()
    size = next(iter(pipeline.reader_meta().values()))["epoch_size"]
    return [tuple(part.at(0).tobytes() for part in pipeline.run()) for _ in range(size)]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_member(convert: Convert, encoding: str) -> None:
    """It gives npy decoded or as bytes, and the other encodings as bytes for our decoder."""
    converted = convert(encoding, index="dali")
    decode = ctrate_convert.decoder()
    given = []
    for volume, labels, report, text in stored(encoding):
        fields = json.loads(text)
        voxels = decode(f"volume.{encoding}", volume)
        if voxels is None:
            voxels = np.load(io.BytesIO(volume))
        given.append(
            Given(fields["key"], voxels, np.load(io.BytesIO(labels)), report.decode(), fields)
        )
    assert_all_there(converted, given)


@pytest.mark.parametrize("kinds", [(), INTEGERS])
def test_decoded(convert: Convert, kinds: tuple[str, ...]) -> None:
    """The documented pipeline decodes npy to float32, which holds int16 and float16 alike."""
    converted = convert(kinds=kinds, index="dali")
    names = run_lines("NVIDIA DALI")
    keys = [sample.key for shard in (0, 1, 2) for sample in converted.record(shard).converted]
    found = []
    for arrays, labels in (
        (names["arrays"], names["labels"]),
        names["pipeline"].run(),
    ):
        found += [(arrays.at(n).copy(), labels.at(n).copy()) for n in range(4)]
    for key, (array, _) in zip(keys, found, strict=True):
        original = converted.originals[key]
        expected = original if original.dtype.kind == "i" else original.astype(np.float16)
        assert array.dtype == np.float32
        assert np.array_equal(array, expected.astype(np.float32))


def test_another_name_gives_nothing(convert: Convert) -> None:
    """Its trap: a member that is not there is an empty array, unless it is to be an error."""
    convert("b2nd", index="dali")
    assert {volume for volume, *_ in stored("npy")} == {b""}
    with pytest.raises(RuntimeError, match="Underful sample"):
        stored("npy", missing_component_behavior="error")
