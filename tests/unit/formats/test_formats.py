"""The formats agree with numpy to the bit, and whatever bytes come in, only one error comes out."""

from __future__ import annotations

import ast
import contextlib
import io
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ctrate_convert.errors import SampleError
from ctrate_convert.formats import reorder
from ctrate_convert.formats.bound import ErrorLimit
from ctrate_convert.formats.cast import BLOCK_VOXELS, Caster, Int16Overflow, output_dtype
from ctrate_convert.formats.npy_header import NpyHeader, header_bytes, read_header
from ctrate_convert.formats.reorder import FortranReorder, in_c_order
from ctrate_convert.formats.tar import TarWriter
from ctrate_convert.sources.kinds import read_array_header
from ctrate_convert.sources.npz import NpzSource
from ctrate_convert.store.durable import PartialFile
from tests.promises.hostile import HOSTILE, VOLUME, VOLUME_TYPES, fields, npy, npy_of, npz, packed
from tests.support import Array, same_voxels

Order = Literal["<", ">"]

typed = st.sampled_from([np.dtype(name) for name in VOLUME_TYPES])
orders: st.SearchStrategy[Order] = st.sampled_from(["<", ">"])
small_shapes = st.tuples(*[st.integers(1, 9)] * 3)

# --- The cast ---------------------------------------------------------------------------------


def cast(values: Array, target: str, block: int = BLOCK_VOXELS) -> tuple[Array, Caster]:
    caster = Caster(values.dtype, np.dtype(target), num_voxels=len(values))
    parts = [caster.cast(values[i : i + block]).copy() for i in range(0, len(values), block)]
    return np.concatenate(parts), caster


def excess_of(values: Array) -> Callable[[ErrorLimit], float]:
    """What a second look at ``values``, cast to float16, finds."""
    exact = values.astype(np.float64)
    return lambda limit: limit.excess(values, np.abs(exact - astype(values, "float16")))


def astype(values: Array, target: str) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(target)


def assert_same_halves(ours: Array, values: Array) -> None:
    """Bit for bit what numpy makes of ``values``; a NaN is a NaN."""
    theirs = astype(values, "float16")
    nan = np.isnan(theirs)
    assert ours.dtype == np.float16
    assert np.array_equal(np.isnan(ours), nan)
    assert np.array_equal(ours[~nan].view(np.uint16), theirs[~nan].view(np.uint16))


def finite_error(values: Array, result: Array) -> float:
    """The largest error of a finite voxel that stayed finite, in double precision."""
    exact, cast_back = values.astype(np.float64), result.astype(np.float64)
    stayed = np.isfinite(exact) & np.isfinite(cast_back)
    return float(np.abs(exact[stayed] - cast_back[stayed]).max(initial=0.0))


@given(hnp.arrays(np.uint32, st.integers(1, 300)), st.integers(1, 300))
@example(np.array([0x7F800000, 0xFF800000, 0x7FC00000, 0x00000001, 0x33000001], np.uint32), 2)
def test_any_float32(bits: Array, block: int) -> None:
    """Any float32 becomes numpy's float16, with infinities, NaN and the error told truly."""
    values = bits.view(np.float32)
    result, caster = cast(values, "float16", block)
    assert_same_halves(result, values)
    measured = caster.measured()
    finite = values[np.isfinite(values)].astype(np.float64)
    assert measured.nan_count == np.isnan(values).sum()
    assert measured.infinite_count == np.isinf(values).sum()
    assert measured.new_infinite_count == np.isinf(result).sum() - np.isinf(values).sum()
    assert measured.max_abs_error == finite_error(values, result)
    assert measured.value_min == finite.min(initial=np.inf) or not len(finite)
    assert measured.value_max == finite.max(initial=-np.inf) or not len(finite)


def test_every_float16_and_what_lies_between() -> None:
    """Every float16, each midpoint between two, and its neighbours round as numpy rounds them."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = np.sort(halves[np.isfinite(halves)]).astype(np.float32)
    middles = (finite[:-1] + finite[1:]) / 2
    around = [np.nextafter(middles, np.float32(direction)) for direction in (-np.inf, np.inf)]
    edges = np.array([65504, 65519.996, 65520, 65536, 1e38, 1e-45, 2.0**-25, 2.0**-24], np.float32)
    values = np.concatenate([finite, middles, *around, edges, -edges, [np.nan, np.inf, -np.inf]])
    values = values.astype(np.float32)
    result, caster = cast(values, "float16")
    assert_same_halves(result, values)
    assert caster.measured().max_abs_error == finite_error(values, result)


@given(st.data(), typed, orders)
def test_any_type_to_float16(data: st.DataObject, dtype: np.dtype[Any], order: Order) -> None:
    """Every type in either byte order becomes numpy's float16, and its error is numpy's."""
    values = data.draw(hnp.arrays(dtype.newbyteorder(order), st.integers(1, 50)))
    result, caster = cast(values, "float16")
    assert_same_halves(result, values)
    if dtype.itemsize < 8:
        assert caster.measured().max_abs_error == finite_error(values, result)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["bool", "int8", "uint8", "int16", "uint16"])
def test_every_small_integer_to_float16(name: str, order: Order) -> None:
    """Every integer of one or two bytes becomes numpy's float16; those above 65519 are infinite."""
    dtype = np.dtype(name)
    numbers = np.arange(2 ** (1 if name == "bool" else 8 * dtype.itemsize), dtype=np.uint16)
    values = numbers.astype(np.uint8 if dtype.itemsize == 1 else np.uint16).view(dtype)
    for block in (BLOCK_VOXELS, 1000):
        result, caster = cast(values.astype(dtype.newbyteorder(order)), "float16", block)
        assert_same_halves(result, values)
        measured = caster.measured()
        assert measured.new_infinite_count == np.count_nonzero(values.astype(int) >= 65520)
        assert measured.max_abs_error == finite_error(values, result)
        assert (measured.value_min, measured.value_max) == (values.min(), values.max())


@given(st.data(), typed.filter(lambda dtype: dtype.kind != "f"), orders)
def test_integers_to_int16(data: st.DataObject, dtype: np.dtype[Any], order: Order) -> None:
    """Integers stay what they are, or are refused as too large; they are never wrapped."""
    values = data.draw(hnp.arrays(dtype.newbyteorder(order), st.integers(1, 50)))
    fits = all(-(2**15) <= int(value) < 2**15 for value in values)
    if not fits:
        with pytest.raises(Int16Overflow, match="values do not fit int16"):
            cast(values, "int16")
        return
    result, caster = cast(values, "int16")
    assert result.tolist() == [int(value) for value in values]
    assert caster.measured().max_abs_error == 0.0


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-4e4, 4e4, width=32)))
def test_floats_to_int16(values: Array) -> None:
    """Floats round to the nearest integer, or are refused; the error is the rounding's."""
    if np.rint(values.min()) < -(2**15) or np.rint(values.max()) >= 2**15:
        with pytest.raises(SampleError, match="values do not fit int16"):
            cast(values, "int16")
        return
    result, caster = cast(values, "int16")
    assert np.array_equal(result, np.rint(values))
    assert caster.measured().max_abs_error == finite_error(values, result)


steps = (
    st.floats(1e-6, 10.0)
    | st.floats(2.0**-110, 2.0**110)
    | st.sampled_from([0.001, 1 / 3, 2.0**-10, 2.0**-100, 2.0**-101, 1e30, 2.0**100, 2.0**99])
)


@given(
    st.sampled_from(["float32", "float64"]),
    steps,
    st.lists(st.tuples(st.integers(-(2**15), 2**15 - 1), st.integers(-9, 9)), max_size=6),
    st.lists(st.floats(-4e4, 4e4, width=32), max_size=6),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=1),
)
@example("float32", 0.001, [(1, 0)], [], [])
@example("float32", 0.001, [(1000, 0), (-32768, 3)], [0.5, -0.5, 1.5], [])
@example("float32", 2.0**60, [], [], [2.0**-126])
@example("float32", 1.5 * 2.0**60, [], [], [2.0**-149])
@settings(max_examples=500)
def test_no_recorded_error_is_smaller_than_the_true_one(
    source: str,
    step: float,
    near: list[tuple[int, int]],
    places: list[float],
    anywhere: list[float],
) -> None:
    """In exact arithmetic, for any step: near whole steps, between them, large and tiny."""
    whole = [np.float32(number * step) for number, _ in near]
    off = [count * np.spacing(value) for value, (_, count) in zip(whole, near, strict=True)]
    between = [np.float32(place * step) for place in places]
    values: Array = np.array(
        [*(one + more for one, more in zip(whole, off, strict=True)), *between, *anywhere, 0.0],
        np.float32,
    )
    values = values.astype(source)
    caster = Caster(values.dtype, np.dtype(np.int16), step, num_voxels=len(values))
    try:
        result = caster.cast(values)
    except SampleError:
        return
    true_error = max(
        abs(Fraction(float(value)) - int(steps) * Fraction(step))
        for value, steps in zip(values, result, strict=True)
    )
    room = 2.0**-22 * float(np.abs(values).max()) + 2.0**-149 * step
    assert true_error <= Fraction(caster.measured().max_abs_error) <= true_error + Fraction(room)


def test_a_step_that_is_a_power_of_two_records_the_error_itself() -> None:
    """Nothing is rounded then: whole steps record none, and other values exactly theirs."""
    whole = np.arange(-9, 9, dtype=np.float32) / 1024
    for values, error in ((whole, 0.0), (whole + np.float32(2.0**-12), 2.0**-12)):
        caster = Caster(values.dtype, np.dtype(np.int16), 2.0**-10, num_voxels=len(values))
        caster.cast(values)
        assert caster.measured().max_abs_error == error


@given(st.floats(1e-4, 3.0), st.lists(st.integers(-20, 20), min_size=1, max_size=8), st.booleans())
def test_no_step_wraps_at_the_ends_of_int16(step: float, near: list[int], low: bool) -> None:
    """Values at the ends become the end or are refused; none comes back with another sign."""
    end = np.float32((-(2**15) - 0.5 if low else 2**15 - 0.5) * step)
    spacing = np.spacing(np.abs(end))
    values: Array = (end + np.array(near, np.float32) * spacing).astype(np.float32)
    caster = Caster(values.dtype, np.dtype(np.int16), step, num_voxels=len(values))
    try:
        result = caster.cast(values)
    except SampleError:
        return
    error = np.abs(values.astype(np.float64) - result.astype(np.float64) * step).max()
    assert error <= caster.measured().max_abs_error <= step


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_integer_for_what_is_none(value: float) -> None:
    """NaN and infinities have no integer."""
    with pytest.raises(SampleError, match="do not fit an integer type"):
        cast(np.array([1.0, value]), "int16")


@given(hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-6e4, 6e4, width=32)))
def test_rounding_to_float16_is_within_the_default_bound(values: Array) -> None:
    """Nothing fails that float16 rounds as it should, where values lie as far apart as they go."""
    whole = np.concatenate([values, [-6e4, -6e4, 6e4, 6e4]]).astype(np.float32)
    _, caster = cast(whole, "float16")
    caster.measured().check(None, excess_of(whole))


@pytest.mark.parametrize(
    ("values", "max_error", "says"),
    [
        ([0.1, np.nan], None, "volume has NaN voxels: seen 1, expected 0"),
        ([0.1, 65520.0], None, "become infinite: seen 1 voxels"),
        ([0.1, 2049.0], 0.5, "precision loss past the bound: seen 1, expected ≤ 0.5"),
    ],
)
def test_degraded_volume_is_refused(
    values: list[float], max_error: float | None, says: str
) -> None:
    """NaN, new infinities and an error past the bound fail the sample."""
    array: Array = np.array(values, np.float32)
    _, caster = cast(array, "float16")
    with pytest.raises(SampleError, match=says):
        caster.measured().check(max_error, excess_of(array))


def test_infinities_of_the_source_pass() -> None:
    """Infinite voxels that the source has are no loss."""
    values: Array = np.array([1.0, np.inf, -np.inf], np.float32)
    result, caster = cast(values, "float16")
    caster.measured().check(None, excess_of(values))
    assert np.isinf(result[1:]).all()


def test_output_types() -> None:
    """auto keeps integers integers and makes floats float16; other types are refused."""
    assert {output_dtype(name, "auto") for name in VOLUME_TYPES[:9]} == {"int16"}
    assert {output_dtype(name, "auto") for name in VOLUME_TYPES[9:]} == {"float16"}
    assert output_dtype("int8", "float16") == "float16"
    for name in ("complex64", "U3", "longdouble", "datetime64[s]"):
        with pytest.raises(SampleError, match="unsupported array type"):
            output_dtype(name, "auto")


# --- Fortran order ----------------------------------------------------------------------------


def cut(values: Array, sizes: list[int]) -> Iterator[Array]:
    place = 0
    while place < len(values):
        size = sizes[place % len(sizes)]
        yield values[place : place + size]
        place += size


@given(
    small_shapes,
    st.sampled_from(["int8", "int16", "float16", "int32"]),
    st.integers(1, 200),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
def test_fortran_order_is_turned(
    shape: tuple[int, int, int], dtype: str, slab_bytes: int, sizes: list[int]
) -> None:
    """Any volume in Fortran order, in any pieces and slabs, comes out in C order."""
    volume = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(reorder, "SLAB_BYTES", slab_bytes),
        FortranReorder(Path(folder), shape, np.dtype(dtype)) as turned,
    ):
        for piece in cut(volume.ravel(order="F"), sizes):
            turned.put(piece)
        blocks = [block.copy() for block in turned.blocks()]
        assert not list(Path(folder).iterdir())  # the scratch file has no name
    assert np.array_equal(np.concatenate(blocks), volume.ravel())


def test_c_order_passes_through(tmp_path: Path) -> None:
    """A volume in C order takes no scratch file."""
    blocks = [VOLUME.ravel()[:31], VOLUME.ravel()[31:]]
    given_on = list(
        in_c_order(blocks, VOLUME.shape, np.dtype(np.int16), tmp_path, fortran_order=False)
    )
    assert all(one is other for one, other in zip(given_on, blocks, strict=True))


# --- npy headers ------------------------------------------------------------------------------


def parse(data: bytes) -> NpyHeader:
    return read_header(io.BytesIO(data).read)


@given(st.data(), typed, orders, st.booleans(), st.sampled_from([(1, 0), (2, 0), (3, 0)]))
def test_headers_that_numpy_writes(
    data: st.DataObject, dtype: np.dtype[Any], order: Order, fortran: bool, version: tuple[int, int]
) -> None:
    """Whatever header numpy writes for a volume is understood as numpy understands it."""
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    array = np.zeros(shape, dtype.newbyteorder(order), order="F" if fortran else "C")
    raw = npy_of(array, version)
    header = parse(raw)
    assert header.shape == array.shape
    assert header.dtype == array.dtype
    assert header.size_bytes + header.data_bytes == len(raw)
    assert header.is_volume == (array.ndim == 3 and array.size > 0)
    loaded = np.load(io.BytesIO(raw))
    assert header.fortran_order == (array.flags.f_contiguous and not array.flags.c_contiguous)
    assert loaded.shape == header.shape


@given(st.sampled_from([1, 2, 3]), st.binary(max_size=200))
def test_any_bytes_as_a_header(version: int, text: bytes) -> None:
    """Any bytes at all are a header or a `SampleError`."""
    with contextlib.suppress(SampleError):
        str(parse(npy(text, version=version)))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
descriptions = st.sampled_from(
    ["<i2", ">f4", "|b1", "O", "|O", "V8", "(2,", "(2,3)i4", "i4,i4", "3f4", "m8[xx]", "m8[5D]",
     "U99999999999", "S-1", "<i3", "\0", "", "f4\n", "object", "{'a': 1}", "p", "g", "c8", "a3"]
)  # fmt: skip


@given(descriptions | anything, anything, st.lists(anything, max_size=4).map(tuple) | anything)
@example("<i2", False, (10**4000, 10**4000, 1))
@example("<i2", 10**4000, (1, 1, 1))
@example([("a", "<i2")], False, (1, 1, 1))
@settings(max_examples=300)
def test_any_fields_in_a_header(descr: object, order: object, shape: object) -> None:
    """Any values of the three fields are a header or a `SampleError`."""
    with contextlib.suppress(SampleError):
        header = parse(npy(fields(descr, order, shape)))
        assert header.data_bytes >= 0
        assert str(header)


@pytest.mark.parametrize("digits", [3000, 9000])
@pytest.mark.parametrize("place", ["descr", "fortran_order", "shape"])
def test_numbers_too_long_to_print(digits: int, place: str) -> None:
    """A number that Python refuses to print is refused without printing it."""
    long = "0x" + "f" * digits
    values = {"descr": "'<i2'", "fortran_order": "False", "shape": "(1, 1, 1)"}
    values[place] = f"({long}, 1, 1)" if place == "shape" else long
    text = ", ".join(f"'{name}': {value}" for name, value in values.items())
    with pytest.raises(SampleError) as refused:
        parse(npy("{" + text + "}"))
    assert len(refused.value.one_line()) < 300


@given(small_shapes, typed)
def test_headers_that_are_written(shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
    """A header that is written is version 1.0, aligned, and numpy's own."""
    raw = header_bytes(dtype, shape)
    stream = io.BytesIO(raw)
    assert np.lib.format.read_magic(stream) == (1, 0)
    read_shape, fortran_order, read_dtype = np.lib.format.read_array_header_1_0(stream)
    assert (read_shape, fortran_order) == (shape, False)
    assert read_dtype == dtype.newbyteorder("<")
    assert len(raw) % 64 == 0


# --- NPZ files --------------------------------------------------------------------------------


@contextlib.contextmanager
def file_with(data: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(suffix=".npz") as stream:
        stream.write(data)
        stream.flush()
        yield Path(stream.name)


def read_whole(path: Path, block_voxels: int) -> Array:
    """The volume, put together from its blocks."""
    with NpzSource(path) as source:
        parts = [block.copy() for block in source.blocks(block_voxels)]
        whole: Array = np.concatenate(parts)
        shape = source.array.shape
        whole = whole.reshape(shape[::-1]).T if source.array.fortran_order else whole.reshape(shape)
        assert source.read_into(memoryview(bytearray(1))) == 0
        return whole


@given(
    st.data(),
    typed,
    orders,
    small_shapes,
    st.booleans(),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    st.booleans(),
    st.sampled_from([(1, 0), (2, 0), (3, 0)]),
    st.integers(1, 1000),
)
@settings(max_examples=150)
def test_any_volume_is_read_as_numpy_reads_it(
    data: st.DataObject,
    dtype: np.dtype[Any],
    order: Order,
    shape: tuple[int, int, int],
    fortran: bool,
    method: int,
    zip64: bool,
    version: tuple[int, int],
    block_voxels: int,
) -> None:
    """Every type, byte order, axis order, npy version and way of zipping gives numpy's array."""
    volume = data.draw(hnp.arrays(dtype.newbyteorder(order), shape))
    if fortran:
        volume = np.asfortranarray(volume)
    raw = packed(("x.npy", npy_of(volume, version)), method=method, zip64=zip64)
    with file_with(raw) as path:
        assert same_voxels(read_whole(path, block_voxels), np.load(path)["x"])
        header = read_array_header(path)
    assert header.array_key == "x"
    assert np.dtype(header.dtype) == volume.dtype
    assert header.shape == shape


def read_or_refuse(data: bytes) -> Array | None:
    with file_with(data) as path, contextlib.suppress(SampleError):
        return read_whole(path, 2**10)
    return None


_NPZ = [
    npz(VOLUME),
    npz(VOLUME, compressed=True),
    packed(("x.npy", npy_of(np.asfortranarray(VOLUME))), zip64=True, method=8),
]


@pytest.mark.parametrize("data", _NPZ, ids=["stored", "deflated", "ZIP64"])
def test_every_flipped_byte(data: bytes) -> None:
    """A flipped byte is harmless or refused; it never changes a voxel unnoticed."""
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
        volume = read_or_refuse(changed)
        assert volume is None or same_voxels(volume, VOLUME), f"byte {place}"


@pytest.mark.parametrize("data", _NPZ, ids=["stored", "deflated", "ZIP64"])
def test_every_cut(data: bytes) -> None:
    """A file cut anywhere is refused."""
    for size in range(len(data)):
        assert read_or_refuse(data[:size]) is None, f"{size} bytes"


@given(st.sampled_from(_NPZ), st.data())
@settings(max_examples=300)
def test_random_damage(data: bytes, draw: st.DataObject) -> None:
    """Bytes overwritten, taken out or put in are harmless or refused."""
    start = draw.draw(st.integers(0, len(data)))
    removed = draw.draw(st.integers(0, 40))
    inserted = draw.draw(st.binary(max_size=40))
    volume = read_or_refuse(data[:start] + inserted + data[start + removed :])
    assert volume is None or same_voxels(volume, VOLUME)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_header(name: str, tmp_path: Path) -> None:
    """A hostile file's header is read or refused with a `SampleError`; nothing in it runs."""
    path = tmp_path / "hostile.npz"
    HOSTILE[name].write(path, tmp_path / "marker")
    with contextlib.suppress(SampleError):
        read_array_header(path)
    assert not (tmp_path / "marker").exists()


# --- The tar ----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=1500)), max_size=6))
def test_rolled_back_samples_leave_nothing(samples: list[tuple[bool, bytes]]) -> None:
    """A sample that fails half-way leaves no byte in the tar, which tarfile reads whole."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard-000000.tar"
        expected: dict[str, bytes] = {}
        with PartialFile(path) as partial:
            tar = TarWriter(partial)
            for number, (good, data) in enumerate(samples):
                start = tar.position
                written = tar.add(f"{number}.json", data)
                if good:
                    expected[f"{number}.json"] = data
                    assert written.size_bytes == len(data)
                    continue
                tar.begin(f"{number}.txt", 10_000)
                tar.put(data)
                tar.rollback(start)
            tar.finish()
            partial.settle()
            assert partial.publish()
        with tarfile.open(path) as archive:
            found = {info.name: archive.extractfile(info) for info in archive}
            contents = {name: stream.read() for name, stream in found.items() if stream}
        assert contents == expected
        assert path.stat().st_size % tarfile.RECORDSIZE == 0


@pytest.mark.parametrize("name", ["a/b.json", "é.json", "x" * 101])
def test_names_that_not_every_reader_opens(tmp_path: Path, name: str) -> None:
    """A member name that some reader cannot take is refused."""
    with (
        PartialFile(tmp_path / "shard-000000.tar") as partial,
        pytest.raises(SampleError, match="does not fit a tar member"),
    ):
        TarWriter(partial).add(name, b"")


def test_half_a_step_is_within_the_default_bound() -> None:
    """Half a thousandth is little in HU/1000, and half a unit, without a step, is not."""
    values = (np.arange(-400, 401) / 1000 + 0.0004999).astype(np.float32)
    caster = Caster(values.dtype, np.dtype("<i2"), 0.001, num_voxels=len(values))
    caster.cast(values)
    caster.measured().check(None, lambda limit: pytest.fail("the largest error settles it"))
    whole = Caster(values.dtype, np.dtype("<i2"), num_voxels=len(values))
    whole.cast(values)
    with pytest.raises(SampleError, match="precision loss"):
        whole.measured().check(None, lambda limit: 0.5)


def test_headers_are_parsed_in_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 raises SystemError where two threads build a syntax tree at once."""
    at_once, most = 0, 0
    parse_literal = ast.literal_eval

    def watched(text: str) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.001)
        at_once -= 1
        return parse_literal(text)

    monkeypatch.setattr(ast, "literal_eval", watched)
    data = header_bytes(np.dtype("<i2"), (2, 3, 4))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(parse, [data] * 100))
    assert {one.shape for one in found} == {(2, 3, 4)}
    assert most == 1
