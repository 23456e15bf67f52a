"""Source and shard side by side: what differs, and what the shard does not hold, is named."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert.deleting.compare import Comparison, Pair, compare
from ctrate_convert.errors import DamageError, Interrupted, SampleError
from ctrate_convert.reading.index import Shard, stored_sample
from ctrate_convert.reading.shard_file import ShardFile
from tests.support import Array, Converted, convert_here
from tests.unit.deleting.scenes import Make, write_volume

SHAPE = (12, 10, 9)
RNG = np.random.default_rng(3)
HU = RNG.integers(-1024, 3000, SHAPE).astype(np.int16)
FLOATS = (HU + RNG.uniform(-0.5, 0.5, SHAPE)).astype(np.float32)

STORED: dict[str, dict[str, Any]] = {
    "npy": {},
    "npy.gz": {"encoding": "npy.gz"},
    "b2nd": {"encoding": "b2nd"},
    "ctclip": {"layout": "ctclip", "dtype": "float16"},
    "int16": {"dtype": "int16", "step": 0.1},
}


def stored(make: Make, out: Path, volume: Array, **settings: Any) -> Converted:
    """One volume in a shard."""
    made = make(1)
    write_volume(made.sources[made.keys[0]], volume)
    converted = convert_here(made, out, **settings)
    assert converted.record().converted, converted.record().failed
    return converted


def compared(converted: Converted, source: Path | None = None, **more: Any) -> Comparison:
    """Compare the shard's sample with ``source``, by default the one it was made from."""
    sample, settings = converted.record().converted[0], converted.plan.settings
    path = source or converted.made.sources[sample.key]
    shard_path = converted.dataset.shard(0)
    shard = Shard(str(shard_path), shard_path.stat().st_size, "verify")
    fields = sample.model_dump()
    fields["array"].update(more.pop("array", {}))
    place = stored_sample(fields, shard, settings.layout)
    settings = settings.model_copy(update=more.pop("settings", {}))
    stop = more.pop("check_stop", lambda: None)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with ShardFile(shard) as opened:
            pair = Pair(descriptor, path, opened, place, settings, check_stop=stop)
            return compare(pair, **more)
    finally:
        os.close(descriptor)


def other(converted: Converted, volume: Array, **entries: Any) -> Path:
    """Another source beside the output."""
    path = converted.out.parent / "other.npz"
    write_volume(path, volume, **entries)
    return path


def changed(volume: Array, place: tuple[int, int, int], value: float) -> Array:
    volume = volume.copy()
    volume[place] = value
    return volume


@pytest.mark.parametrize("how", STORED)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("volume", [HU, FLOATS, FLOATS.astype(">f8")], ids=["i2", "f4", ">f8"])
def test_equal(make_ctrate: Make, tmp_path: Path, how: str, order: Any, volume: Array) -> None:
    """A volume equals its sample in every encoding and layout, order and byte order."""
    if how == "int16" and volume.dtype.kind == "i":
        pytest.skip("integers have no step")
    source = np.asarray(volume, order=order)
    converted = stored(make_ctrate, tmp_path / "out", source, **STORED[how])
    found = compared(converted)
    assert found.differences == ()
    assert found.left_out == ()
    exact = compared(converted, exact=True)
    assert exact.differences == ()
    assert exact.max_abs_error <= converted.record().converted[0].array.max_abs_error * 1.0001
    assert 0 <= exact.mean_abs_error <= exact.max_abs_error


@pytest.mark.parametrize("how", STORED)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("place", [(0, 0, 0), (5, 9, 3), (11, 9, 8)])
def test_one_voxel(
    make_ctrate: Make, tmp_path: Path, how: str, order: Any, place: tuple[int, int, int]
) -> None:
    """A single voxel that differs is found, wherever it is and however the shard stores it."""
    volume = FLOATS if how == "int16" else HU
    converted = stored(make_ctrate, tmp_path / "out", volume, **STORED[how])
    by = -7 if how == "ctclip" else 7  # float16 has steps of 2 there
    source = np.asarray(changed(volume, place, float(volume[place]) + by), order=order)
    (difference,) = compared(converted, other(converted, source)).differences
    if how in ("int16", "ctclip"):
        assert difference.startswith("a voxel differs from the source's by ")
    else:
        seen = f"source {source[place]}, shard {volume[place]}"
        assert difference.startswith(
            f"1 of 1,080 voxels differ from the shard's, the first: {seen}"
        )


def nan(volume: Array) -> Array:
    return changed(volume, (1, 2, 3), math.nan)


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        (HU, HU[1:], "the source's shape is (11, 10, 9), the shard's (12, 10, 9)"),
        (HU, np.moveaxis(HU, 0, 2), "the source's shape is (10, 9, 12), the shard's (12, 10, 9)"),
        (HU, HU + 1, "1,080 of 1,080 voxels differ from the shard's, the first: "),
        (HU, HU.astype(np.int32) + 2**16, "1,080 of 1,080 voxels differ from the shard's"),
        (FLOATS, nan(FLOATS), "NaN or infinity stands elsewhere in the shard, at 1 voxels"),
        (changed(FLOATS, (0, 0, 0), math.inf), changed(FLOATS, (0, 0, 0), -math.inf), "NaN or inf"),
        (FLOATS, -FLOATS, "a voxel differs from the source's by "),
        (FLOATS, FLOATS + 3, "a voxel differs from the source's by "),
        (np.zeros(SHAPE, np.float32), 1e-3 * FLOATS, "the shard's volume is constant, and the"),
        (FLOATS, FLOATS.astype(np.float64) * 1.01, "a voxel differs from the source's by "),
    ],
)
def test_other_volumes(
    make_ctrate: Make, tmp_path: Path, ours: Array, theirs: Array, says: str
) -> None:
    """A source with another shape, other voxels or other NaN is not what the shard holds."""
    converted = stored(make_ctrate, tmp_path / "out", ours)
    (difference,) = compared(converted, other(converted, theirs)).differences
    assert difference.startswith(says)


def test_nan_at_the_same_places(make_ctrate: Make, tmp_path: Path) -> None:
    """NaN and infinities at the same places are equal."""
    volume = changed(changed(FLOATS, (0, 0, 0), math.inf), (0, 0, 1), -math.inf)
    with pytest.raises(AssertionError):  # NaN is refused when it is converted
        stored(make_ctrate, tmp_path / "out", nan(volume))
    converted = stored(make_ctrate, tmp_path / "other", volume)
    assert compared(converted).differences == ()


def test_an_accepted_error(make_ctrate: Make, tmp_path: Path) -> None:
    """--max_error is a bound for every voxel, and no licence for another volume."""
    converted = stored(make_ctrate, tmp_path / "out", FLOATS, max_error=5.0)
    source = other(converted, FLOATS + 4)
    assert compared(converted, source).differences == ()
    assert compared(converted, other(converted, FLOATS + 6)).differences
    loose = {"max_error": 1e9}
    (difference,) = compared(converted, other(converted, -FLOATS), settings=loose).differences
    assert difference.startswith("the largest error, ")
    assert "is not small beside the volume's spread, " in difference


def test_one_lesion_in_air(make_ctrate: Make, tmp_path: Path) -> None:
    """In a volume of one value nearly everywhere, the few others count."""
    volume = changed(np.zeros((30, 30, 30), np.float32), (3, 4, 5), 300)
    converted = stored(make_ctrate, tmp_path / "out", volume)
    assert compared(converted).differences == ()
    assert compared(converted, other(converted, changed(volume, (3, 4, 5), 301))).differences
    assert compared(converted, other(converted, changed(volume, (9, 9, 9), 1e-3))).differences


@pytest.mark.parametrize("field", ["key", "shape", "dtype", "encoding", "value_scale"])
def test_json_and_record_disagree(make_ctrate: Make, tmp_path: Path, field: str) -> None:
    """A sample whose JSON says something else than its record is not believed."""
    converted = stored(make_ctrate, tmp_path / "out", FLOATS, dtype="int16", step=0.1)
    path = converted.dataset.shard(0)
    data = path.read_bytes()
    name = f'"{field}":'.encode()
    place = data.index(b": ", data.index(name)) + 2 if name + b" " in data else 0
    place = place or data.index(name) + len(name)
    digit = next(at for at in range(place, place + 40) if data[at : at + 1].isalnum())
    path.write_bytes(data[:digit] + b"9" + data[digit + 1 :])
    differences = compared(converted).differences
    assert any(one.startswith(f"the sample's JSON says {field} ") for one in differences)


def test_a_scale_for_integers(make_ctrate: Make, tmp_path: Path) -> None:
    """Integers that readers would scale are not the source's."""
    converted = stored(make_ctrate, tmp_path / "out", HU)
    differences = compared(converted, array={"value_scale": 2.0}).differences
    assert "the source holds integers, and the shard scales them by 2" in differences


# --- What else the source holds ----------------------------------------------------------------


def test_small_entries_travel(make_ctrate: Make, tmp_path: Path) -> None:
    """A small entry that the shard does not hold, byte for byte, is named."""
    converted = stored(make_ctrate, tmp_path / "out", HU)
    for affine in (np.eye(4), np.eye(4) * 2):
        (lost,) = compared(converted, other(converted, HU, affine=affine)).left_out
        assert (lost.name, lost.what) == ("affine.npy", "an entry that its shard does not hold")


def before(path: Path) -> None:
    path.write_bytes(b"#!junk\n" + path.read_bytes())


def after(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def attribute(path: Path) -> None:
    try:
        os.setxattr(path, "user.provenance", b"scanner 7")
    except OSError:
        pytest.skip("no extended attributes here")


def with_objects(path: Path) -> None:
    np.savez(path, data=HU, notes=np.array([{"scanner": 7}], object))


def with_large(path: Path) -> None:
    np.savez(path, data=HU, mask=np.zeros(2**20 + 1, np.uint8))


@pytest.mark.parametrize(
    ("change", "name", "what"),
    [
        (before, "bytes-before", "7 bytes before the first member"),
        (after, "bytes-after", "4 bytes after the end of the zip"),
        (attribute, "user.provenance", "extended attribute, 9 bytes"),
        (with_objects, "notes.npy", "pickled Python objects, "),
        (with_large, "mask.npy", "array of "),
    ],
)
def test_left_out(
    make_ctrate: Make, tmp_path: Path, change: Callable[[Path], None], name: str, what: str
) -> None:
    """What a source holds beside the volume, and the shard does not, is named."""
    converted = stored(make_ctrate, tmp_path / "out", HU)
    change(path := other(converted, HU))
    (lost,) = compared(converted, path).left_out
    assert lost.name == name
    assert lost.what.startswith(what)


# --- What cannot be compared -------------------------------------------------------------------


def test_a_flipped_bit_in_the_source(make_ctrate: Make, tmp_path: Path) -> None:
    """Each byte of the volume is under its CRC-32, to the last."""
    converted = stored(make_ctrate, tmp_path / "out", HU)
    path = other(converted, HU)
    data = bytearray(path.read_bytes())
    data[data.index(HU.tobytes()) + HU.nbytes - 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(SampleError, match="CRC-32 wrong"):
        compared(converted, path)


@pytest.mark.parametrize("how", ["npy.gz", "b2nd"])
def test_a_shard_that_cannot_be_decoded(make_ctrate: Make, tmp_path: Path, how: str) -> None:
    """A compressed array that does not decode is damage of the shard."""
    converted = stored(make_ctrate, tmp_path / "out", HU, **STORED[how])
    array = converted.record().converted[0].array
    path = converted.dataset.shard(0)
    data = bytearray(path.read_bytes())
    middle = array.offset + array.size_bytes // 2
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(data)
    try:
        assert compared(converted).differences
    except DamageError as error:
        assert "cannot be decoded" in error.what


def test_a_stop_between_two_boxes(make_ctrate: Make, tmp_path: Path) -> None:
    """A worker that is told to stop does so within the comparison."""
    converted = stored(make_ctrate, tmp_path / "out", HU)

    def stop() -> None:
        raise Interrupted("SIGTERM")

    with pytest.raises(Interrupted):
        compared(converted, check_stop=stop)


def test_nothing_noted_is_believed(make_ctrate: Make, tmp_path: Path) -> None:
    """Digests and measured errors of the record play no part in the comparison."""
    converted = stored(make_ctrate, tmp_path / "out", FLOATS)
    first = compared(converted)
    second = compared(converted, array={"blake3": "0" * 64, "max_abs_error": 0.0})
    assert dataclasses.replace(second, mean_abs_error=0.0) == dataclasses.replace(
        first, mean_abs_error=0.0
    )
