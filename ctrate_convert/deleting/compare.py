"""Compare a source with its sample in the shard, value by value, as both are read now.

The source's blocks are inflated and checked against their CRC-32; the shard gives the same boxes
through the code that users read with. Nothing that the writer has noted is believed: neither its
digests nor its measured error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctrate_convert.deleting.voxels import Floats, Integers, Pairs, Values
from ctrate_convert.errors import SampleError
from ctrate_convert.formats.codecs.b2nd import chunks_and_blocks
from ctrate_convert.formats.tiling import Box, c_order_boxes, fortran_order_boxes
from ctrate_convert.reading.arrays import read_boxes
from ctrate_convert.reading.index import ArrayMember, StoredSample
from ctrate_convert.reading.samples import read_json
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.sources.inventory import LeftOut
from ctrate_convert.sources.npz import SourceVolume
from ctrate_convert.store.records.plan import PlanSettings

_PIECE_VOXELS = 2**17
"""Small enough that source, shard and difference stay in the second-level cache."""

_FRAME_VOXELS = 2**23
"""The most that is decoded of a Blosc2 frame at once."""

_FORTRAN_BYTES = 2**24
"""Of a Fortran-order source so much is held at once: each box crosses all rows of the shard."""


@dataclass(frozen=True)
class Comparison:
    """The result of reading a source and its sample side by side.

    ``differences`` is empty where the shard holds the source's volume: integers equal, floats
    within the sample's bound, NaN and infinities at the same places. ``left_out`` names what else
    the source holds and the shard does not. The errors are in the source's unit;
    ``mean_abs_error`` is NaN unless an exact comparison was asked for.
    """

    max_abs_error: float
    mean_abs_error: float
    differences: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Pair:
    """A source that is open, and where its sample lies in an open shard."""

    descriptor: int
    where: Path
    shard: ShardFile
    sample: StoredSample
    settings: PlanSettings
    check_stop: Callable[[], None] = lambda: None


def compare(pair: Pair, *, exact: bool = False) -> Comparison:
    """Read both whole and compare them. ``exact``: in double precision, with the mean error.

    Raises:
        SampleError: the source cannot be read, or is no volume.
        DamageError: the shard does not hold what its record says.
        EnvironmentProblem: the shard cannot be read.
        Interrupted: ``pair.check_stop`` raised it, between two boxes.
    """
    with _opened(pair) as volume:
        fields = read_json(pair.shard, pair.sample)
        differences = list(_differences_in_description(pair, volume, fields))
        left_out = [*volume.left_out, *_entries_not_in_the_shard(volume, fields)]
        if differences:
            return Comparison(math.inf, math.nan, tuple(differences), tuple(left_out))
        seen = _comparer(pair, volume, exact=exact)
        for box, theirs, ours in _side_by_side(pair, volume):
            seen.take(box, theirs, ours)
    differences += seen.differences()
    return Comparison(
        seen.max_abs_error, seen.mean_abs_error(), tuple(differences), tuple(left_out)
    )


def _comparer(pair: Pair, volume: SourceVolume, *, exact: bool) -> Integers | Floats:
    array, source = pair.sample.array, volume.npy.dtype
    if _are_integers(array, volume):
        return Integers(array.shape)

    def again() -> Pairs:
        with _opened(pair) as reopened:
            yield from _side_by_side(pair, reopened)

    max_error = pair.settings.max_error
    return Floats(source, array, max_error=max_error, again=again, exact=exact)


def _are_integers(array: ArrayMember, volume: SourceVolume) -> bool:
    return volume.npy.dtype.kind != "f" and np.dtype(array.dtype).kind == "i"


def _opened(pair: Pair) -> SourceVolume:
    return SourceVolume(pair.where, pair.settings.array_key, descriptor=pair.descriptor)


def _differences_in_description(
    pair: Pair, volume: SourceVolume, fields: Mapping[str, Any]
) -> Iterator[str]:
    """Compare what record, JSON member and source say of the array."""
    array = pair.sample.array
    if tuple(volume.npy.shape) != tuple(array.shape):
        yield f"the source's shape is {volume.npy.shape}, the shard's {array.shape}"
    if _are_integers(array, volume) and array.value_scale != 1.0:
        yield f"the source holds integers, and the shard scales them by {array.value_scale:g}"
    expected = {
        "key": pair.sample.key,
        "shape": list(array.shape),
        "dtype": array.dtype,
        "encoding": array.encoding,
        "value_scale": array.value_scale,
    }
    for name, value in expected.items():
        if fields.get(name) != value:
            yield f"the sample's JSON says {name} {fields.get(name)!r}, its record {value!r}"


def _entries_not_in_the_shard(volume: SourceVolume, fields: Mapping[str, Any]) -> Iterator[LeftOut]:
    """Name the small entries of the source that the sample's JSON does not hold, byte for byte."""
    stored = fields.get("source_extra", [])
    held = stored if isinstance(stored, list) else []
    for entry in volume.source_extra():
        something = entry["name"] or entry["base64"]  # no comment is nothing that could be lost
        if something and entry not in held:
            yield LeftOut(entry["name"], "an entry that its shard does not hold")


def _side_by_side(pair: Pair, volume: SourceVolume) -> Pairs:
    """Give the elements of both, box by box in the source's file order; valid until the next.

    A box that is larger, since its encoding is read so, comes in pieces that stay in the cache.
    """
    array, npy = pair.sample.array, volume.npy
    boxes = _boxes(pair, volume)
    elements = _Elements(volume)
    for box, ours in zip(boxes, read_boxes(pair.shard, array, boxes), strict=True):
        pair.check_stop()
        flat = ours.transpose(2, 1, 0).reshape(-1) if npy.fortran_order else ours.reshape(-1)
        for start in range(0, len(flat), _PIECE_VOXELS):
            piece = flat[start : start + _PIECE_VOXELS]
            yield box, elements.take(len(piece)), piece
    elements.finish()


def _boxes(pair: Pair, volume: SourceVolume) -> Sequence[Box]:
    npy, shape = volume.npy, pair.sample.array.shape
    if npy.fortran_order:
        return list(fortran_order_boxes(shape, max(1, _FORTRAN_BYTES // npy.dtype.itemsize)))
    most = _PIECE_VOXELS
    if pair.sample.array.encoding == "b2nd":
        most = _voxels_in_a_chunk_row(pair.sample.array, pair.settings)
    return list(c_order_boxes(shape, most))


def _voxels_in_a_chunk_row(array: ArrayMember, settings: PlanSettings) -> int:
    """Return how many voxels a row of a frame's chunks holds: such boxes decode each block once."""
    itemsize = np.dtype(array.dtype).itemsize
    chunk, _ = chunks_and_blocks(array.shape, itemsize, settings.chunk_shape)
    return min(_FRAME_VOXELS, chunk[0] * array.shape[1] * array.shape[2])


class _Elements:
    """The source's elements in file order, cut to the lengths asked for."""

    def __init__(self, volume: SourceVolume) -> None:
        self._volume = volume
        self._buffer: Values = np.empty(0, volume.npy.dtype)

    def take(self, count: int) -> Values:
        """Return the next ``count`` elements in the machine's byte order; valid until the next."""
        if len(self._buffer) < count:
            self._buffer = np.empty(count, self._volume.npy.dtype)
        block = self._buffer[:count]
        view = block.view(np.uint8).data
        while view:
            filled = self._volume.read_into(view)
            if not filled:
                raise SampleError("array data ends early", where=self._volume.path)
            view = view[filled:]
        native = block.dtype.newbyteorder("=")
        return block if block.dtype == native else block.astype(native)

    def finish(self) -> None:
        """Make sure that nothing is left; the last byte has checked length and CRC-32."""
        if self._volume.read_into(memoryview(bytearray(1))):
            raise SampleError("array data is longer than its header says", where=self._volume.path)
