"""What training code reads is what was converted, once, and no more than it asked for."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import blosc2
import numpy as np
import pytest
import webdataset

import ctrate_convert
from ctrate_convert import Volumes, decoder, open_dataset
from ctrate_convert.errors import (
    CtrateError,
    DamagedShardWarning,
    DamageError,
    SettingsError,
)
from ctrate_convert.formats.codecs import npy as npy_codec
from ctrate_convert.formats.codecs import npy_gz
from ctrate_convert.formats.codecs.b2nd import chunks_and_blocks
from ctrate_convert.store.records.plan import ChunkShape
from ctrate_convert.store.records.record import Intensity
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from tests.promises.hostile import fields, npy, npy_of
from tests.support import (
    Array,
    Converted,
    convert_here,
    expected_volume,
    read_dataset,
    run_here,
    same_voxels,
)

SHAPE = (70, 66, 65)  # more than one chunk and one block along every axis
STEP = 0.001
DTYPES: dict[str, dict[str, Any]] = {
    "auto": {},
    "float16": {"dtype": "float16"},
    "int16 steps": {"dtype": "int16", "step": STEP},
}
WAYS: dict[str, dict[str, Any]] = {
    **{
        f"{encoding} {name}": {"encoding": encoding, **settings}
        for encoding in ("npy", "npy.gz", "b2nd")
        for name, settings in DTYPES.items()
    },
    "b2nd slab": {"encoding": "b2nd", "chunk_shape": "slab"},
    "ctclip": {"layout": "ctclip", "dtype": "float16"},
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCtRate:
    """Four volumes, one of each kind of NPZ, in more than one chunk."""
    return write_synthetic_ctrate(tmp_path_factory.mktemp("in"), samples=4, shape=SHAPE)


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: way.replace(" ", "-"))
def way(
    request: pytest.FixtureRequest, large: SyntheticCtRate, tmp_path_factory: pytest.TempPathFactory
) -> Converted:
    """The four volumes converted in one of all ways, two to a shard."""
    out = tmp_path_factory.mktemp("out") / "shards with blanks"
    return convert_here(large, out, samples_per_shard=2, **WAYS[request.param])


def stored(way: Converted, key: str) -> Array:
    """What the shard should hold of a volume, by numpy alone."""
    settings, original = way.plan.settings, way.originals[key]
    if settings.dtype == "int16" and original.dtype.kind == "f":
        return np.rint(original.astype(np.float64) / STEP).astype(np.int16)
    return original.astype(np.float16) if settings.dtype == "float16" else expected_volume(original)


# --- What is read -----------------------------------------------------------------------------


def test_every_encoding_gives_back_the_voxels(way: Converted) -> None:
    """Bit for bit, in the machine's byte order, writable, with all that belongs to the sample."""
    dataset = open_dataset(way.out)
    found = {sample["__key__"]: sample for sample in dataset}
    assert len(dataset) == len(found) == len(way.originals)
    raw = read_dataset(way.out)
    for key, sample in found.items():
        assert same_voxels(sample["array"], stored(way, key)), key
        assert sample["array"].dtype.isnative and sample["array"].flags.writeable
        assert sample["json"] == raw[key].description
        text = raw[key].members["txt" if "txt" in raw[key].members else "report.txt"]
        assert sample["report"] == text.decode()
        assert sample["labels"].tolist() == list(sample["json"]["labels"].values())
        assert sample["labels"].dtype == np.float32 and sample["labels"].flags.writeable
        assert sample["origin"].tolist() == [0, 0, 0]
        assert sample["__url__"] == str(way.out / raw[key].shard)


def test_source_units_are_the_sources_own(way: Converted) -> None:
    """Steps give back the very float32 that they were made of; the rest what its type holds."""
    for sample in open_dataset(way.out, units="source"):
        array, original = sample["array"], way.originals[sample["__key__"]]
        assert array.dtype == np.float32
        if sample["json"]["max_abs_error"] < 1e-6:
            assert np.array_equal(array, original.astype(np.float32))
        else:
            assert np.array_equal(array, original.astype(np.float16).astype(np.float32))
        assert array.flags.writeable and array.flags.c_contiguous


def test_a_crop_is_a_part_of_the_whole(way: Converted) -> None:
    """Whichever encoding, a crop equals the slice of the volume that its origin names."""
    for at in ("random", "center"):
        for sample in open_dataset(way.out, crop=(20, 33, 7), crop_at=at, seed=3):
            z, y, x = sample["origin"]
            whole = stored(way, sample["__key__"])
            assert same_voxels(sample["array"], whole[z : z + 20, y : y + 33, x : x + 7])
            if at == "center":
                shape = np.array(whole.shape)
                assert [z, y, x] == ((shape - (20, 33, 7)) // 2).tolist()


def test_a_crop_larger_than_the_volume_stands_in_its_smallest_value(way: Converted) -> None:
    """The volume is in the middle; around it is the least value it has, in either unit."""
    crop = (76, 64, 75)
    for units in ("stored", "source"):
        plain = {s["__key__"]: s["array"] for s in open_dataset(way.out, units=units)}
        for sample in open_dataset(way.out, crop=crop, units=units):
            whole = plain[sample["__key__"]]
            lead = [max(0, -first) for first in sample["origin"]]
            padded = np.full(np.add(crop, whole.shape), whole.min(), whole.dtype)
            z, y, x = lead
            depth, height, width = whole.shape
            padded[z : z + depth, y : y + height, x : x + width] = whole
            first = np.maximum(sample["origin"], 0)
            z, y, x = first
            assert same_voxels(
                sample["array"], padded[z : z + crop[0], y : y + crop[1], x : x + crop[2]]
            )


INDICES: list[Any] = [
    ..., 5, -1, (1, 2, 3), slice(10, 20), (slice(None), 7), (..., 9), (3, ..., slice(4, -4)),
    (slice(60, 5, -7), slice(None, None, 11), slice(None, None, -1)), slice(5, 5), (slice(9, 2), 0),
    (slice(33, 70), slice(31, 66), slice(59, 65)), (slice(-500, 500), slice(64, None), 64), (),
]  # fmt: skip


def test_samples_are_read_by_key(way: Converted) -> None:
    """Any slicing that numpy knows gives what numpy gives; keys come in shard order."""
    volumes = Volumes(way.out)
    assert list(volumes) == [sample["__key__"] for sample in open_dataset(way.out)]
    assert len(volumes) == len(way.originals)
    assert "train_0_a_0" not in volumes
    for key, sample in pickle.loads(pickle.dumps(volumes)).items():  # noqa: S301 - our own
        whole = stored(way, key)
        assert (sample.array.shape, sample.array.dtype) == (whole.shape, whole.dtype)
        assert same_voxels(np.asarray(sample.array), whole)
        for index in INDICES:
            if whole.shape == SHAPE:
                assert same_voxels(np.asarray(sample.array[index]), np.asarray(whole[index])), index
        assert (sample.key, sample.json["key"]) == (key, key)
        assert sample.report.startswith(sample.json["report"]["findings"])
        assert sample.labels.shape == (18,)
        scaled = Volumes(way.out, units="source")[key].array
        assert scaled.dtype == np.float32 and scaled.value_scale == 1.0
        assert np.allclose(scaled[3] / sample.array.value_scale, whole[3], rtol=1e-6)


@pytest.mark.parametrize("small_plane", [0, 10**6])
def test_boxes_are_read_in_pieces_of_any_size(
    small_plane: int, way: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a piece is less than a row, some rows or some planes, a box holds the same voxels."""
    monkeypatch.setattr(npy_codec, "_SMALL_PLANE", small_plane)
    key, sample = next(iter(Volumes(way.out).items()))
    whole = stored(way, key)
    for piece_bytes in (66, 2_000, 30_000):
        for module in (npy_codec, npy_gz):
            monkeypatch.setattr(module, "PIECE_BYTES", piece_bytes)
        for index in INDICES:
            if piece_bytes > 66 or np.size(whole[index]) < 100:
                assert same_voxels(np.asarray(sample.array[index]), np.asarray(whole[index])), index


@pytest.mark.parametrize("index", [(0, 0, 0, 0), 70, (0, -67), (..., ...), None, [1], "a", 1.5])
def test_other_indices_are_refused(index: Any, converted: Converted) -> None:
    """What would need more than a box is an IndexError, as is what lies outside."""
    with pytest.raises(IndexError):
        next(iter(Volumes(converted.out).values())).array[index]


def test_plain_webdataset_decodes_with_our_decoder(way: Converted) -> None:
    """`.decode(decoder())` gives the array whatever the encoding; the rest falls through."""
    shards = [str(path) for path in sorted(way.out.glob("*.tar"))]
    if way.plan.settings.layout == "ctclip":
        return
    name = f"volume.{way.plan.settings.encoding}"
    pre: list[Any] | None
    for pre in (None, []):
        plain = webdataset.WebDataset(shards, shardshuffle=False).decode(decoder(), pre=pre)
        for sample in plain:
            assert same_voxels(sample[name], stored(way, sample["__key__"]))
            assert sample["json"]["key"] == sample["__key__"]


def test_a_decoder_uses_one_thread(large: SyntheticCtRate, tmp_path: Path) -> None:
    """However many Blosc2 is set to: more would wait for cores that other workers use."""
    way = convert_here(large, tmp_path / "out", encoding="b2nd")
    array = way.record().converted[0].array
    data = (way.out / "shard-000000.tar").read_bytes()[array.offset :][: array.size_bytes]
    used = []
    decode = blosc2.NDArray.__getitem__

    def noting(frame: Any, key: Any) -> Any:
        used.append(frame.schunk.dparams.nthreads)
        return decode(frame, key)

    before = blosc2.set_nthreads(3)
    try:
        with mock.patch.object(blosc2.NDArray, "__getitem__", noting):
            decoder()(array.name, data)
    finally:
        blosc2.set_nthreads(before)
    assert used == [1]


def test_a_decoder_never_unpickles() -> None:
    """Bytes that are no such array, pickles among them, are damage."""
    stream = io.BytesIO()
    np.save(stream, np.array([{}], object), allow_pickle=True)
    for name, data in [("volume.npy.gz", stream.getvalue()), ("volume.b2nd", pickle.dumps(1))]:
        with pytest.raises(DamageError):
            decoder()(name, data)
    assert decoder()("json", b"{}") is None


def packed(shape: tuple[int, ...], zeros: int) -> bytes:
    """A gzipped npy that says it has ``shape``, before so many bytes of nothing."""
    return gzip.compress(npy(fields("<i2", False, shape), bytes(zeros)), 6, mtime=0)


def frame_of(shape: tuple[int, ...], **more: Any) -> bytes:
    """A Blosc2 frame of nothing but zeros."""
    frame: bytes = blosc2.zeros(shape, dtype=np.int16, **more).to_cframe()
    return frame


@pytest.mark.parametrize(
    ("name", "data", "size"),
    [
        ("volume.npy.gz", packed((2**10, 2**10, 2**10 + 1), 10), 2**31 + 2**21),
        ("volume.npy.gz", packed((2**62, 2**62, 2**62), 10), 2**187),
        ("volume.b2nd", frame_of((2**10, 2**10, 2**10 + 1)), 2**31 + 2**21),
    ],
)
def test_a_decoder_refuses_what_is_too_large(name: str, data: bytes, size: int) -> None:
    """An array above the limit is named with its size, and takes no memory."""
    tracemalloc.start()
    try:
        with pytest.raises(DamageError, match=f"seen {size} bytes for int16") as refused:
            decoder()(name, data)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert refused.value.where == name


def test_a_decoders_limit_is_the_arrays_size() -> None:
    """An array of exactly the limit is decoded, one byte less refuses it."""
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    for name, data in (
        ("volume.npy.gz", gzip.compress(npy_of(array))),
        ("volume.b2nd", blosc2.asarray(array).to_cframe()),
    ):
        assert same_voxels(decoder(max_bytes=120)(name, data), array)  # type: ignore[arg-type]
        with pytest.raises(DamageError, match="larger than the decoder may make"):
            decoder(max_bytes=119)(name, data)


@pytest.mark.parametrize("zeros", [30_000_000, 2**20 - 1])
def test_a_decoder_inflates_what_the_header_promises(zeros: int) -> None:
    """Data that goes on for longer, or ends before, is damage; no more than its array is made."""
    data = packed((2**19, 1, 1), zeros)
    tracemalloc.start()
    try:
        with pytest.raises(DamageError, match=r"more bytes than it should|ends 1 bytes early"):
            decoder()("volume.npy.gz", data)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_chunk_of_a_frame_is_no_way_around_the_limit() -> None:
    """A frame of eight voxels in one chunk of 200 million is refused by the chunk's size."""
    data = frame_of((1, 1, 8), chunks=(1, 1, 2 * 10**8), blocks=(1, 1, 10**8))
    assert len(data) < 1000
    with pytest.raises(DamageError, match="larger than the decoder may make"):
        decoder(max_bytes=2**28)("volume.b2nd", data)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_decoder_keeps_the_order_that_a_header_names(order: Any) -> None:
    """Arrays of either order and any number of axes are what `numpy.load` makes of them."""
    rng = np.random.default_rng(2)
    for shape in ((), (7,), (3, 0, 2), (5, 4, 3), (2, 3, 4, 5)):
        array = np.asarray(rng.random(shape).astype(">f4"), order=order)
        decoded = decoder()("volume.npy.gz", gzip.compress(npy_of(array)))
        assert decoded is not None and decoded.flags.writeable
        assert (decoded.dtype, decoded.shape) == (array.dtype, array.shape)
        assert np.array_equal(decoded, array)


# --- What the documents say of it ---------------------------------------------------------------


def document(name: str) -> str:
    return (Path(__file__).resolve().parents[3] / "docs" / name).read_text()


def test_every_member_and_field_is_documented(way: Converted) -> None:
    """docs/shards.md names whatever a shard holds."""
    page = document("shards.md")
    for found in read_dataset(way.out).values():
        for member in found.members:
            assert f"`KEY.{member}`" in page
        for field in [*found.description, *found.description["report"]]:
            assert f"`{field}`" in page
        for value in (found.description["encoding"], found.description["dtype"]):
            assert f"`{value}`" in page
    for intensity in get_args(Intensity):
        assert f"| `{intensity}` |" in page


def blocks_of_a_crop(axis: int, chunk_shape: ChunkShape) -> tuple[int, list[int]]:
    """Along one axis of 512×512×300: all blocks, and those that 128 touch from each place on."""
    size = (512, 512, 300)[axis]
    chunks, blocks = chunks_and_blocks((512, 512, 300), 2, chunk_shape)
    a_chunk = -(-chunks[axis] // blocks[axis])
    block_of = [n // chunks[axis] * a_chunk + n % chunks[axis] // blocks[axis] for n in range(size)]
    touched = [len(set(block_of[first : first + 128])) for first in range(size - 127)]
    return len(set(block_of)), touched


@pytest.mark.parametrize(
    ("chunk_shape", "said"),
    [
        ("cube", (24, 11, "a 24th to an 11th of all blocks, a 16th on average")),
        ("slab", (16, 11, "with `--chunk_shape slab` a 16th to an 11th")),
    ],
)
def test_what_a_crop_costs_is_documented(
    chunk_shape: ChunkShape, said: tuple[int, int, str]
) -> None:
    """The numbers of docs/reading.md are those of the chunks and blocks that are written."""
    least, most, text = said
    assert text in document("reading.md")
    axes = [blocks_of_a_crop(axis, chunk_shape) for axis in range(3)]
    whole = math.prod(every for every, _ in axes)
    assert round(whole / math.prod(min(touched) for _, touched in axes)) == least
    assert round(whole / math.prod(max(touched) for _, touched in axes)) == most
    mean = math.prod(sum(touched) / len(touched) for _, touched in axes)
    assert chunk_shape == "slab" or round(whole / mean) == 16


# --- How much is read, and in which order ------------------------------------------------------


def bytes_read(work: Callable[[], object]) -> int:
    def so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = so_far()
    work()
    return so_far() - before


def test_nothing_before_a_sample_is_read(way: Converted) -> None:
    """The last sample is whole though everything before it in its shard is gone."""
    key = list(Volumes(way.out))[-1]
    sample = Volumes(way.out)[key]
    start = way.record(1).converted[-1].array.offset - 512
    path = Path(sample.shard)
    before = path.read_bytes()
    path.chmod(0o644)
    try:
        path.write_bytes(bytes(start) + before[start:])
        assert same_voxels(sample.array[...], stored(way, key))
        assert sample.json["key"] == key
    finally:
        path.write_bytes(before)


def test_a_crop_reads_a_part(tmp_path: Path, large: SyntheticCtRate) -> None:
    """npy reads the rows of the crop, b2nd the chunks; neither the whole volume."""
    for encoding in ("npy", "b2nd"):
        way = convert_here(large, tmp_path / encoding, encoding=encoding)
        for sample in Volumes(way.out).values():
            whole = bytes_read(lambda a=sample.array: a[...])  # type: ignore[misc]
            part = bytes_read(lambda a=sample.array: a[65:70, 5:9, 5:9])  # type: ignore[misc]
            assert part < whole / 2


@pytest.fixture
def many(make_ctrate: Callable[..., SyntheticCtRate], tmp_path: Path) -> Converted:
    """Forty samples in eight shards."""
    return convert_here(make_ctrate(40), tmp_path / "out", samples_per_shard=5)


def keys_of(dataset: Any) -> list[str]:
    return [sample["__key__"] for sample in dataset]


def everywhere(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What each of two workers on each of two nodes gives."""
    for rank in range(2):
        for worker in range(2):
            names = {"RANK": rank, "WORLD_SIZE": 2, "WORKER": worker, "NUM_WORKERS": 2}
            for name, value in names.items():
                monkeypatch.setenv(name, str(value))
            yield keys_of(pickle.loads(pickle.dumps(dataset)))  # noqa: S301 - as workers get it


@pytest.mark.parametrize("shuffle", [False, True])
def test_nodes_and_workers_share_all_samples(
    shuffle: bool, many: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes with two workers each give every sample once, shuffled or not."""
    parts = list(everywhere(open_dataset(many.out, shuffle=shuffle), monkeypatch))
    assert [len(part) for part in parts] == [10] * 4
    assert sorted(key for part in parts for key in part) == sorted(many.originals)


def test_a_node_without_samples_is_told(
    converted: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others would wait for it for ever, it says why; a worker without any just ends."""
    monkeypatch.setenv("RANK", "8")
    monkeypatch.setenv("WORLD_SIZE", "9")
    with pytest.raises(SettingsError, match="fewer samples than nodes"):
        list(open_dataset(converted.out))
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORKER", "0")
    monkeypatch.setenv("NUM_WORKERS", "9")
    assert list(open_dataset(converted.out)) == []


def test_a_seed_makes_order_and_crops_repeatable(many: Converted) -> None:
    """The same epoch is the same in every process; another epoch is not."""

    def epoch(dataset: Any) -> list[tuple[str, list[int]]]:
        return [(s["__key__"], s["origin"].tolist()) for s in dataset]

    one, other = (open_dataset(many.out, crop=(2, 2, 2), shuffle=True, seed=7) for _ in range(2))
    first, second = epoch(one), epoch(one)
    assert first != second and sorted(k for k, _ in first) == sorted(k for k, _ in second)
    assert (epoch(other), epoch(other)) == (first, second)
    other.set_epoch(0)
    assert epoch(other) == first
    unseeded = open_dataset(many.out, shuffle=True)
    assert keys_of(unseeded) != keys_of(unseeded)


def test_keys_choose_samples(many: Converted) -> None:
    """Only the chosen are given and counted; one that is in no shard is named."""
    chosen = list(many.originals)[3:17]
    dataset = open_dataset(many.out, keys=chosen)
    assert (sorted(keys_of(dataset)), len(dataset)) == (sorted(chosen), len(chosen))
    with pytest.raises(SettingsError, match="no keys"):
        open_dataset(many.out, keys=[])
    with pytest.raises(SettingsError, match="train_0_z_9"):
        open_dataset(many.out, keys=["train_0_z_9", *chosen])


def test_stages_can_be_added(many: Converted) -> None:
    """The result has webdataset's own methods."""
    batches = list(open_dataset(many.out, crop=(2, 2, 2)).to_tuple("array", "labels").batched(8))
    assert [(a.shape, b.shape) for a, b in batches] == [((8, 2, 2, 2), (8, 18))] * 5
    assert len(list(open_dataset(many.out).with_epoch(50))) == 50


def test_torch_loads_it_with_workers(many: Converted) -> None:
    """Two worker processes give batches that cover every sample once."""
    torch = pytest.importorskip("torch")
    dataset = open_dataset(many.out, crop=(3, 3, 3), shuffle=True).to_tuple(
        "array", "labels", "__key__"
    )
    integers = open_dataset(many.out, crop=(3, 3, 3), units="source")
    for start in ("fork", "spawn"):
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=None, num_workers=2, multiprocessing_context=start
        )
        assert sorted(key for _, _, key in loader) == sorted(many.originals)
    batches = list(torch.utils.data.DataLoader(integers.to_tuple("array", "labels"), batch_size=4))
    assert len(batches) == 10
    assert batches[0][0].shape == (4, 3, 3, 3) and batches[0][0].dtype == torch.float32


def test_samples_of_a_later_generation_are_there(
    make_ctrate: Callable[..., SyntheticCtRate], tmp_path: Path
) -> None:
    """A sample that failed and was mended is in a further shard, and the list knows it."""
    made = make_ctrate(6, faults=["corrupt"])
    (broken,) = made.faults
    way = convert_here(made, tmp_path / "out", samples_per_shard=2)
    assert sorted(Volumes(way.out)) == sorted(way.originals)
    sound = next(path for key, path in made.sources.items() if key != broken)
    made.sources[broken].write_bytes(sound.read_bytes())
    convert_here(made, tmp_path / "out", samples_per_shard=2)
    assert sorted(keys_of(open_dataset(way.out))) == sorted([*way.originals, broken])


# --- What is wrong ----------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 512)


def replace_header(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.write(b"another")


def garble_array(path: Path) -> None:
    """All of the first array but the tar header in front of it."""
    with path.open("r+b") as stream:
        stream.seek(512)
        stream.write(b"\xff" * 300_000)


def test_one_flipped_byte_in_gzip_is_damage(large: SyntheticCtRate, tmp_path: Path) -> None:
    """Gzip's own CRC-32 is checked where the whole array is read."""
    way = convert_here(large, tmp_path / "out", encoding="npy.gz", samples_per_shard=2)
    path = way.out / "shard-000000.tar"
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.seek(way.record().converted[0].array.offset + 50_000)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 0x10]))
    with pytest.raises(DamageError, match="cannot be decoded"):
        next(iter(Volumes(way.out).values())).array[...]


def test_whatever_byte_of_a_frames_head_changes_it_is_damage_or_an_array(
    large: SyntheticCtRate, tmp_path: Path
) -> None:
    """Blosc2 itself raises half a dozen kinds of errors, and asks for memory by a damaged shape."""
    way = convert_here(large, tmp_path / "out", encoding="b2nd", samples_per_shard=1)
    array = way.record().converted[0].array
    path = way.out / "shard-000000.tar"
    path.chmod(0o644)
    frame = path.read_bytes()[array.offset :][: array.size_bytes]
    sample = next(iter(Volumes(way.out).values()))
    causes = set()
    for place in range(250):
        for value in {0x18, 0x7F, 0xFF} - {frame[place]}:
            changed = frame[:place] + bytes([value]) + frame[place + 1 :]
            with path.open("r+b") as stream:
                stream.seek(array.offset)
                stream.write(changed)
            for read in (lambda: sample.array[...], lambda data=changed: decoder()("b2nd", data)):
                try:
                    read()
                except DamageError as error:
                    cause = error.__cause__
                    causes.add(type(cause.__cause__ or cause) if cause else None)
    assert {RuntimeError, OverflowError, SyntaxError, ValueError} <= causes


@pytest.mark.parametrize("damage", [cut, replace_header, Path.unlink, garble_array])
def test_a_shard_that_is_not_its_record_is_damage(
    damage: Callable[[Path], None], large: SyntheticCtRate, tmp_path: Path
) -> None:
    """It is never read as something else, and the message ends with the next command."""
    for encoding in ("npy", "npy.gz", "b2nd"):
        way = convert_here(large, tmp_path / encoding, encoding=encoding, samples_per_shard=2)
        path = way.out / "shard-000000.tar"
        path.chmod(0o644)
        damage(path)
        for work in (
            lambda out=way.out: list(open_dataset(out)),
            lambda out=way.out: next(iter(Volumes(out).values())).array[1:5, 1:5, 1:5],
        ):
            with pytest.raises(DamageError) as caught:
                work()
            assert caught.value.where == str(path)
            command = str(caught.value.next_command)
            assert command.startswith("ctrate-convert verify ") and command.endswith(" --full")


def test_a_record_that_is_not_the_manifests_is_damage(converted: Converted) -> None:
    """Offsets are believed only from the record that was merged."""
    path = converted.dataset.record(0)
    path.chmod(0o644)
    fields = json.loads(path.read_bytes())
    fields["samples"][0]["array"]["offset"] += 512
    path.write_text(json.dumps(fields, separators=(",", ":")))
    others = {sample.key for sample in converted.record(1).converted}
    with pytest.warns(DamagedShardWarning, match="not the one that the manifest knows") as told:
        dataset = open_dataset(converted.out)
        assert {sample["__key__"] for sample in dataset} == others
    assert len(dataset) == 4
    assert len(told) == 1
    with pytest.warns(DamagedShardWarning, match=r"shard-000000\.tar .* --full --repair") as told:
        volumes = Volumes(converted.out)
    assert set(volumes) == others
    assert list(volumes.damaged) == ["shard-000000.tar"]
    assert len(told) == 1
    path.unlink()
    with pytest.warns(DamagedShardWarning, match="missing"):
        assert set(Volumes(converted.out)) == others
    converted.dataset.record(1).unlink()
    for opened in (open_dataset, Volumes):
        none: Any = pytest.raises(DamageError, match="no shard has")
        with pytest.warns(DamagedShardWarning) as told, none:
            opened(converted.out)
        assert len(told) == 2


def test_a_file_is_no_dataset(tmp_path: Path) -> None:
    file = tmp_path / "shard-000000.tar"
    file.touch()
    for opened in (open_dataset, Volumes):
        with pytest.raises(SettingsError, match="not a dataset directory"):
            opened(file)


def test_a_missing_manifest_is_told(converted: Converted) -> None:
    """Reading writes nothing: it names the command that makes the manifest, which then works."""
    converted.dataset.manifest.unlink()
    with pytest.raises(SettingsError) as caught:
        open_dataset(converted.out)
    assert caught.value.next_command == f"ctrate-convert merge {converted.out}"
    assert run_here("merge", converted.out).code == 0
    assert len(open_dataset(converted.out)) == 8


@pytest.mark.parametrize(
    "arguments",
    [{"crop": (1, 2)}, {"crop": (0, 1, 1)}, {"crop": 5}, {"crop_at": "edge"}, {"units": "mm"}],
)
def test_unusable_arguments_are_refused(arguments: dict[str, Any], converted: Converted) -> None:
    """At once, and not in a worker process an hour later."""
    with pytest.raises(CtrateError):
        open_dataset(converted.out, **arguments)


def test_the_package_is_light_until_it_reads() -> None:
    """Importing it loads neither webdataset nor Blosc2 nor numpy; its names are the listed ones."""
    heavy = "{'webdataset', 'blosc2', 'torch', 'numpy', 'pydantic'}"
    program = f"import sys, ctrate_convert; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
    assert set(ctrate_convert.__all__) <= set(dir(ctrate_convert))
    with pytest.raises(AttributeError):
        _ = ctrate_convert.nothing
