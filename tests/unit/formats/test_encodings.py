"""Every encoding gives back every element, to our reader and to plain libraries, each time."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import blosc2
import numpy as np
import pytest

from ctrate_convert.formats.codecs.b2nd import chunks_and_blocks
from ctrate_convert.formats.members import LABEL_NAMES, REPORT_FIELDS
from ctrate_convert.formats.tar import TarWriter
from ctrate_convert.shards.readback import array_blocks, read_shard
from ctrate_convert.shards.sample import convert_sample
from ctrate_convert.store.durable import PartialFile
from ctrate_convert.store.records.plan import PlannedSample, PlanSettings
from ctrate_convert.store.records.record import ArrayRecord, ConvertedSample
from ctrate_convert.synthetic import chest_phantom
from tests.support import Array, same_voxels

KEY = "train_1_a_1"
STEP = 0.001

WAYS: list[dict[str, Any]] = [
    {"encoding": "npy"},
    {"encoding": "npy.gz"},
    {"encoding": "b2nd"},
    {"encoding": "b2nd", "chunk_shape": "slab"},
]
SHAPES = [(1, 1, 1), (7, 13, 17), (1, 67, 131), (131, 3, 1), (70, 97, 83)]


class Kind(NamedTuple):
    """A source's type and the settings that decide what it becomes."""

    source: str
    settings: dict[str, Any]
    stored: str


KINDS = [
    Kind("float32", {}, "float16"),
    Kind("float32", {"dtype": "int16", "step": STEP}, "int16"),
    Kind("float64", {"dtype": "int16", "step": STEP}, "int16"),
    Kind("int16", {}, "int16"),
    Kind("int32", {}, "int32"),
]


@dataclass(frozen=True)
class Shard:
    """A tar with one sample, and the sample's proof."""

    path: Path
    sample: ConvertedSample

    @property
    def array(self) -> ArrayRecord:
        return self.sample.array

    @property
    def members(self) -> dict[str, bytes]:
        with tarfile.open(self.path) as archive:
            return {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]

    @property
    def payload(self) -> bytes:
        return self.members[self.array.name]

    @property
    def description(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(self.members[f"{KEY}.json"])
        return fields


def volume(shape: tuple[int, ...], dtype: str) -> Array:
    """A chest with noise; floats are HU / 1000 with more digits than a step has."""
    rng = np.random.default_rng(len(dtype) + sum(shape))
    hu = np.resize(chest_phantom((16, 16, 16), rng), shape) + rng.integers(-9, 10, shape)
    if dtype.startswith("float"):
        return ((hu + rng.random(shape)) / 1000).astype(dtype)
    if dtype == "int32":
        hu = hu.astype(np.int32)
        hu[0, 0, 0] = 2**20  # more than int16 holds
    return hu.astype(dtype)


def store(folder: Path, source: Array, **settings: Any) -> Shard:
    """Convert ``source`` into a shard of its own."""
    folder.mkdir()
    path = folder / f"{KEY}.npz"
    np.savez(path, data=source)
    plan = PlanSettings(
        data_folder=str(folder),
        reports_file="",
        meta_file="",
        labels_file="",
        **{"max_error": STEP, **settings},  # some shapes are so small that all of them is air
    )
    status = path.stat()
    planned = PlannedSample(
        key=KEY,
        volume_name=f"{KEY}.nii.gz",
        source=path.name,
        source_size_bytes=status.st_size,
        source_mtime_ns=status.st_mtime_ns,
        header=None,
        report=dict.fromkeys(REPORT_FIELDS, "nothing"),
        labels=dict.fromkeys(LABEL_NAMES, 0),
        metadata={},
    )
    shard = folder / "shard.tar"
    with PartialFile(shard) as partial:
        tar = TarWriter(partial)
        sample = convert_sample(planned, plan, tar, folder, lambda size: None)
        tar.finish()
        assert partial.publish()
    assert sorted(found.name for found in folder.iterdir()) == ["shard.tar", path.name]
    return Shard(shard, sample)


def ours(shard: Shard) -> Array:
    """The array as our own reader gives it."""
    blocks = [block.copy() for block in array_blocks(shard.path, shard.array)]
    return np.concatenate(blocks).reshape(shard.array.shape)


def plain(shard: Shard) -> Array:
    """The array as the libraries give it that a user would take."""
    if shard.array.encoding == "b2nd":
        array: Array = blosc2.ndarray_from_cframe(shard.payload)[...]
        return array
    data = shard.payload
    if shard.array.encoding == "npy.gz":
        data = gzip.decompress(data)
    array = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def expected(source: Array, kind: Kind) -> Array:
    if kind.settings:
        steps: Array = np.rint(source.astype(np.float64) / STEP).astype(np.int16)
        return steps
    return source.astype(kind.stored)


def name_of(part: Any) -> str:
    if isinstance(part, Kind):
        return f"{part.source} to {part.stored}"
    return "x".join(map(str, part)) if isinstance(part, tuple) else " ".join(part.values())


@pytest.mark.parametrize("shape", SHAPES, ids=name_of)
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_every_element_comes_back(
    way: dict[str, Any], kind: Kind, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """Our reader and plain libraries give the same bits, from sources in either axis order."""
    source = volume(shape, kind.source)
    shards = [
        store(tmp_path / order, np.asarray(source, order=order), **way, **kind.settings)
        for order in ("C", "F")
    ]
    assert shards[0].payload == shards[1].payload
    shard = shards[0]
    assert shard.array.dtype == kind.stored
    assert same_voxels(ours(shard), plain(shard))
    difference = ours(shard).astype(np.float64) - expected(source, kind)
    if kind.settings and kind.source == "float32":  # the product is rounded: a tie may fall
        assert np.abs(difference).max() <= 1
    else:
        assert not difference.any()
    found = read_shard(shard.path, [shard.sample], "webdataset")
    assert not found.damage
    assert found.digests[shard.array.name] == shard.array.blake3


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_the_same_bytes_each_time(way: dict[str, Any], tmp_path: Path) -> None:
    """Two conversions of one source give the same file, whatever its own compression."""
    source = volume((70, 97, 83), "float32")
    files = [store(tmp_path / run, source, **way).path.read_bytes() for run in ("one", "two")]
    assert files[0] == files[1]


@pytest.mark.parametrize("source_type", ["float32", "float64"])
@pytest.mark.parametrize("step", [STEP, 0.0009765625, 0.37])
def test_the_recorded_error_covers_the_true_one(
    source_type: str, step: float, tmp_path: Path
) -> None:
    """The recorded error is no smaller than that of any voxel, and hardly above half a step."""
    source = volume((40, 31, 57), source_type)
    shard = store(
        tmp_path / "out", source, encoding="b2nd", dtype="int16", step=step, max_error=step
    )
    true = np.abs(source.astype(np.float64) - ours(shard).astype(np.float64) * step).max()
    assert true <= shard.array.max_abs_error <= step / 2 + 1e-6


@pytest.mark.parametrize("step", [None, STEP])
@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_the_scale_stands_where_readers_look(
    way: dict[str, Any], step: float | None, tmp_path: Path
) -> None:
    """The JSON and, in b2nd, the frame tell what one unit of the stored integers is."""
    more = {"dtype": "int16", "step": step} if step else {}
    shard = store(tmp_path / "out", volume((5, 6, 7), "float32"), **way, **more)
    assert shard.description["value_scale"] == shard.array.value_scale == (step or 1.0)
    if way["encoding"] == "b2nd":
        frame = blosc2.ndarray_from_cframe(shard.payload)
        assert frame.schunk.meta["ctrate"] == {"value_scale": step or 1.0}


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_damaged_payloads_are_noticed(way: dict[str, Any], tmp_path: Path) -> None:
    """Any changed byte is found by the digest, named; a decoder raises ValueError or nothing."""
    shard = store(tmp_path / "out", volume((40, 31, 57), "int16"), **way)
    whole = shard.path.read_bytes()
    array = shard.array
    rng = random.Random(0)
    places = [*range(0, 200, 7), *(rng.randrange(array.size_bytes) for _ in range(60))]
    for place, count in itertools.product(places, (1, 40)):
        damaged = bytearray(whole)
        end = min(place + count, array.size_bytes)
        for at in range(array.offset + place, array.offset + end):
            damaged[at] ^= rng.randrange(1, 256)
        shard.path.write_bytes(damaged)
        try:
            for _ in array_blocks(shard.path, array):
                pass
        except ValueError as error:
            assert str(error)
        found = read_shard(shard.path, [shard.sample], "webdataset").damage
        assert found and array.name in found[0].what


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_other_contents_are_refused(way: dict[str, Any], tmp_path: Path) -> None:
    """A member that holds another type or shape, or is cut short, is a ValueError that says so."""
    shard = store(tmp_path / "out", volume((40, 31, 57), "int16"), **way)
    array = shard.array
    whole = shard.path.read_bytes()
    if array.encoding != "npy":
        for other in ({"shape": (40, 57, 31)}, {"dtype": "float16"}):
            with pytest.raises(ValueError, match=r"holds|header"):
                list(array_blocks(shard.path, array.model_copy(update=other)))
    shard.path.write_bytes(whole[: array.offset + array.size_bytes // 2])
    with pytest.raises(ValueError, match=r"damaged|cut short"):
        list(array_blocks(shard.path, array))


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("chunk_shape", ["cube", "slab"])
def test_chunks_fit_memory_and_blocks_fit_crops(itemsize: int, chunk_shape: Any) -> None:
    """Whatever the shape: a row of chunks is small, blocks lie in chunks, a cube's are small."""
    sizes = (1, 7, 20, 64, 97, 300, 512, 1639)
    for shape in itertools.product(sizes, sizes, sizes):
        chunk, block = chunks_and_blocks(shape, itemsize, chunk_shape)
        assert all(1 <= b <= c <= s for b, c, s in zip(block, chunk, shape, strict=True))
        assert chunk[2] == shape[2]
        row_bytes = chunk[0] * shape[1] * shape[2] * itemsize
        assert row_bytes <= 2**24 or chunk[0] == 1
        if chunk_shape == "cube":
            assert np.prod(block) <= 32 * 32 * 96


def test_real_volumes_shrink_as_promised(real_ct: Path, tmp_path: Path) -> None:
    """Lossless b2nd is 3.2 times smaller than a real int16 volume, 6.4 times than its float32."""
    with np.load(real_ct / "partial_body_512x512x20_int16.npz") as archive:
        hu = archive["data"]
    exact = store(tmp_path / "int16", hu, encoding="b2nd")
    assert same_voxels(ours(exact), hu)
    assert hu.nbytes / exact.array.size_bytes >= 3.2
    floats = (hu / np.float32(1000)).astype(np.float32)
    stepped = store(tmp_path / "float32", floats, encoding="b2nd", dtype="int16", step=STEP)
    assert np.array_equal(ours(stepped), hu)
    assert floats.nbytes / stepped.array.size_bytes >= 6.4
