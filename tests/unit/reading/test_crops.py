"""Several crops come from one decode, and a share of them lies in the body."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import blosc2
import numpy as np
import pytest

from ctrate_convert import SampleError, SettingsError, Volumes, open_dataset
from ctrate_convert.formats.codecs.gzip_stream import GzipStream
from ctrate_convert.formats.tiling import Box, box_elements, without_overlap
from ctrate_convert.reading import viewed
from ctrate_convert.reading.boxes import whole
from ctrate_convert.store.records.plan import Encoding
from ctrate_convert.store.records.recipe import Recipe, Size
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from ctrate_convert.views.presets import presets
from tests.support import Array, Converted, convert_here

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
SHAPE = (70, 66, 65)  # more than one block along every axis
CROP = (20, 33, 17)
BODY = -500


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCtRate:
    """Four volumes, one of each kind of NPZ."""
    return write_synthetic_ctrate(tmp_path_factory.mktemp("in"), samples=4, shape=SHAPE)


@pytest.fixture(scope="module", params=ENCODINGS)
def way(
    request: pytest.FixtureRequest, large: SyntheticCtRate, tmp_path_factory: pytest.TempPathFactory
) -> Converted:
    out = tmp_path_factory.mktemp("out") / "shards"
    return convert_here(large, out, samples_per_shard=2, encoding=request.param)


def encoding_of(way: Converted) -> str:
    return way.plan.settings.encoding


def small(name: str) -> Recipe:
    return presets()[name].model_copy(update={"size": Size(x=60, y=62, z=30)})


def known(way: Converted, **more: Any) -> list[str]:
    """The samples whose Hounsfield units are known, and of which there is a view if asked for."""
    found = []
    for key, sample in Volumes(way.out, **more).items():
        try:
            sample.hu()
        except SampleError:
            continue
        found.append(key)
    return found


def part(array: Array, origin: Array, crop: tuple[int, int, int]) -> Array:
    return array[tuple(slice(a, a + n) for a, n in zip(origin.tolist(), crop, strict=True))]


# --- Several crops of a volume ------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"axes": "xyz"}, {"units": "source"}, {"view": "hlip"}])
def test_crops_of_a_volume_follow_each_other(way: Converted, more: dict[str, Any]) -> None:
    """Each is a sample of its own with the sample's key, and equals its part of the whole."""
    if "view" in more:
        more = {"view": small("hlip")}
    volumes = Volumes(way.out, **more)
    keys = known(way, **more)
    dataset = open_dataset(way.out, crop=CROP, crops_per_volume=5, seed=3, keys=keys, **more)
    found = list(dataset)
    assert len(dataset) == len(found) == 5 * len(keys)
    assert [sample["__key__"] for sample in found] == [key for key in keys for _ in range(5)]
    for key, group in itertools.groupby(found, lambda sample: sample["__key__"]):
        values, samples = np.asarray(volumes[key].array), list(group)
        assert len({tuple(sample["origin"]) for sample in samples}) > 1
        for sample in samples:
            array = sample["array"]
            assert array.dtype == values.dtype
            assert array.flags.writeable and array.flags.c_contiguous and array.base is None
            assert np.array_equal(array, part(values, sample["origin"], CROP))
        # What training code does to one of them reaches no other one.
        samples[0]["json"].clear()
        samples[0]["labels"][:] = 9
        assert samples[1]["json"] and samples[1]["labels"].max() <= 1


def test_crops_may_be_larger_than_the_volume(way: Converted) -> None:
    """Along an axis where it is smaller the volume is in the middle, in each of the crops."""
    crop = (20, 80, 17)
    for sample in open_dataset(way.out, crop=crop, crops_per_volume=3, pad=-7):
        values = np.pad(
            np.asarray(Volumes(way.out)[sample["__key__"]].array), 20, constant_values=-7
        )
        assert np.array_equal(sample["array"], part(values, sample["origin"] + 20, crop))


def test_the_same_seed_gives_the_same_crops(way: Converted) -> None:
    ask: dict[str, Any] = {
        "crop": CROP, "crops_per_volume": 3, "foreground": 0.5, "keys": known(way),
    }  # fmt: skip
    one, other, third = (
        [sample["origin"].tolist() for sample in open_dataset(way.out, seed=seed, **ask)]
        for seed in (1, 1, 2)
    )
    assert one == other != third


# --- One decode ---------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Box]]:
    """All boxes that Blosc2 is asked for, with the frame's tiling."""
    boxes: list[tuple[Any, Box]] = []
    real = blosc2.NDArray.get_slice_numpy

    def seen(self: Any, into: Array, corners: tuple[list[int], list[int]]) -> Any:
        z, y, x = (slice(a, b) for a, b in zip(*corners, strict=True))
        boxes.append((self, (z, y, x)))
        return real(self, into, corners)

    monkeypatch.setattr(blosc2.NDArray, "get_slice_numpy", seen)
    return boxes


def blocks_in(frame: Any, box: Box) -> Iterator[tuple[tuple[int, int], ...]]:
    """Every block that holds a voxel of the box, by its chunk and its place there on each axis."""
    along = (
        sorted({(p // chunk, p % chunk // block) for p in range(part.start, part.stop)})
        for part, chunk, block in zip(box, frame.chunks, frame.blocks, strict=True)
    )
    yield from itertools.product(*along)


def test_no_block_is_decoded_twice(
    large: SyntheticCtRate, tmp_path: Path, decoded: list[tuple[Any, Box]]
) -> None:
    """Eight crops that overlap decode the blocks that they touch, each of them once."""
    way = convert_here(large, tmp_path / "out", encoding="b2nd")
    crop = (30, 33, 40)
    for key in way.originals:
        decoded.clear()
        samples = list(open_dataset(way.out, crop=crop, crops_per_volume=8, seed=5, keys=[key]))
        frame = decoded[0][0]
        seen = Counter(block for _, box in decoded for block in blocks_in(frame, box))
        needed: set[Any] = set()
        for sample in samples:
            z, y, x = (
                slice(at, at + n) for at, n in zip(sample["origin"].tolist(), crop, strict=True)
            )
            needed.update(blocks_in(frame, (z, y, x)))
        assert len(seen) > 1 and set(seen.values()) == {1}
        assert set(seen) == needed


@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_npy_gz_is_inflated_once(
    large: SyntheticCtRate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreground: float
) -> None:
    """However many crops there are, and however many places were looked at for the body."""
    way = convert_here(large, tmp_path / "out", encoding="npy.gz")
    keys = known(way)
    inflated = [0]
    real = GzipStream._next

    def counted(self: GzipStream, most_bytes: int) -> bytes:
        piece = real(self, most_bytes)
        inflated[0] += len(piece)
        return piece

    monkeypatch.setattr(GzipStream, "_next", counted)
    ask: dict[str, Any] = {"crops_per_volume": 8, "foreground": foreground, "keys": keys}
    samples = list(open_dataset(way.out, crop=CROP, **ask))
    assert len(samples) == 8 * len(keys)
    volumes = Volumes(way.out)
    once = sum(volumes[key].array.size * volumes[key].array.dtype.itemsize for key in keys)
    assert 0.5 * once < inflated[0] <= once + 128 * len(keys)


def test_a_view_is_resampled_once(way: Converted, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel runs once a volume, and each byte of the shard is read once for it."""
    runs: list[Box] = []
    real = viewed.Viewed.read

    def seen(self: Any, file: Any, array: Any, box: Box, into: Any = None) -> Array:
        runs.append(box)
        return real(self, file, array, box, into)

    read_bytes = [0]

    def counted(descriptor: int, views: Any, offset: int) -> int:
        got = preadv(descriptor, views, offset)
        read_bytes[0] += got
        return got

    preadv = os.preadv
    keys = known(way, view=small("hlip"))
    monkeypatch.setattr(viewed.Viewed, "read", seen)
    monkeypatch.setattr(os, "preadv", counted)
    dataset = open_dataset(
        way.out, view=small("hlip"), crop=(20, 40, 40), crops_per_volume=6, keys=keys
    )
    assert len(list(dataset)) == 6 * len(keys)
    assert len(runs) == len(keys)
    if encoding_of(way) == "npy":
        volumes = Volumes(way.out)
        whole_bytes = sum(volumes[key].array.size * 2 for key in keys)
        members = 64 * 2**10 * len(keys)  # headers, JSON, report and labels
        assert read_bytes[0] <= whole_bytes * 2 + members


def test_crops_far_apart_are_resampled_alone(
    way: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The box around them would hold many times as many voxels; an npy.gz is inflated once."""
    runs: list[Box] = []
    real = viewed.Viewed.read

    def seen(self: Any, file: Any, array: Any, box: Box, into: Any = None) -> Array:
        runs.append(box)
        return real(self, file, array, box, into)

    crop = (2, 3, 4)
    more: dict[str, Any] = {"view": small("hlip")}
    keys = known(way, **more)
    wholes = {key: np.asarray(Volumes(way.out, **more)[key].array) for key in keys}
    monkeypatch.setattr(viewed.Viewed, "read", seen)
    for sample in open_dataset(way.out, crop=crop, crops_per_volume=3, seed=1, keys=keys, **more):
        whole_view = wholes[sample["__key__"]]
        assert np.array_equal(sample["array"], part(whole_view, sample["origin"], crop))
    assert len(runs) == len(keys) * (1 if encoding_of(way) == "npy.gz" else 3)


# --- Crops in the body --------------------------------------------------------------------------


def in_the_body(
    way: Converted, samples: Iterable[dict[str, Any]], crop: tuple[int, ...], **more: Any
) -> list[bool]:
    """Whether the centre of each crop is body, by the volume in Hounsfield units."""
    volumes = Volumes(way.out, **more)
    hu = {key: volumes[key].hu() for key in known(way, **more)}
    centres = [(s["__key__"], tuple(s["origin"] + np.array(crop) // 2)) for s in samples]
    return [bool(hu[key][centre] > BODY) for key, centre in centres]


@pytest.mark.parametrize("more", [{}, {"axes": "xyz"}, {"units": "hu"}, {"view": "hlip"}])
def test_a_crop_in_the_body_has_its_centre_there(way: Converted, more: dict[str, Any]) -> None:
    """In every unit, with other axes, and in a view."""
    if "view" in more:
        more = {"view": small("hlip")}
    if encoding_of(way) != "npy" and "view" in more:
        pytest.skip("the encodings read voxels of a view in the same way")
    crop = (5, 5, 5)
    asked: dict[str, Any] = {"crop": crop, "crops_per_volume": 6, "keys": known(way, **more)}
    biased = open_dataset(way.out, foreground=1.0, seed=4, **asked, **more)
    anywhere = open_dataset(way.out, seed=4, **asked, **more)
    assert all(in_the_body(way, biased, crop, **more))
    assert not all(in_the_body(way, anywhere, crop, **more))


def test_foreground_is_a_share(way: Converted) -> None:
    """Half of the crops are body, and those of the other half that happen to be."""
    keys = known(way)
    crop, number = (3, 3, 3), 60

    def share(foreground: float) -> float:
        dataset = open_dataset(
            way.out, crop=crop, crops_per_volume=number, foreground=foreground, keys=keys, seed=0
        )
        return float(np.mean(in_the_body(way, dataset, crop)))

    anywhere = share(0.0)
    assert share(0.5) == pytest.approx(0.5 + 0.5 * anywhere, abs=0.15)
    assert share(1.0) == 1.0


def test_unknown_hounsfield_units_are_named(converted: Converted) -> None:
    """Nothing is guessed: the sample is named, also where no crop was to be body this time."""
    first = next(iter(converted.originals))
    with pytest.raises(SampleError, match=f"Hounsfield.*{first}"):
        list(open_dataset(converted.out, crop=(2, 2, 2), foreground=0.01))


# --- What cannot be asked for -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"crop": CROP, "crops_per_volume": 0}, "crops_per_volume"),
        ({"crop": CROP, "crops_per_volume": 2.0}, "crops_per_volume"),
        ({"crops_per_volume": 2}, "random crops"),
        ({"crop": CROP, "crop_at": "center", "crops_per_volume": 2}, "random crops"),
        ({"size": CROP, "foreground": 0.5}, "random crops"),
        ({"crop": CROP, "crops_per_volume": True}, "crops_per_volume"),
        ({"crop": CROP, "foreground": 1.5}, "no share"),
        ({"crop": CROP, "foreground": "half"}, "no share"),
        ({"crop": (2**10, 2**10, 2**10 + 1)}, "crop is too large"),
        ({"size": (2**40, 2**40, 2**40)}, "size is too large"),
        ({"crop": CROP, "foreground": float("nan")}, "no share"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    way: Converted, more: dict[str, Any], match: str
) -> None:
    with pytest.raises(SettingsError, match=match):
        open_dataset(way.out, **more)


def test_numbers_of_numpy_are_numbers(way: Converted) -> None:
    numbers: Any = {"crops_per_volume": np.int64(2), "seed": np.int32(1), "pad": np.float32(1)}
    assert len(open_dataset(way.out, crop=np.array(CROP).tolist(), **numbers)) == 8


def test_boxes_without_overlap_cover_the_same_voxels_once() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        boxes: list[Box] = []
        for _ in range(int(rng.integers(1, 7))):
            low = rng.integers(0, 8, 3)
            z, y, x = (
                slice(int(a), int(a + n)) for a, n in zip(low, rng.integers(1, 6, 3), strict=True)
            )
            boxes.append((z, y, x))
        wanted, covered = np.zeros((13, 13, 13), int), np.zeros((13, 13, 13), int)
        for box in boxes:
            wanted[box] = 1
        for box in without_overlap(boxes):
            assert box_elements(box)
            covered[box] += 1
        assert np.array_equal(wanted, covered)
    assert without_overlap([whole((2, 3, 4))] * 3) == [whole((2, 3, 4))]
