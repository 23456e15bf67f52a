"""Compare a source with its sample in the shard, value by value, as both are read now.

The source's blocks are inflated and checked against their CRC-32; the shard gives the same boxes
through the code that users read with. The comparison trusts nothing that the writer recorded:
neither its digests nor its measured error.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctrate_convert.deleting.voxels import Floats, Integers, Pairs, Values
from ctrate_convert.errors import SampleError
from ctrate_convert.formats.codecs import CODECS
from ctrate_convert.formats.tiling import Box, c_order_boxes, fortran_order_boxes
from ctrate_convert.reading.arrays import read_boxes
from ctrate_convert.reading.index import ArrayMember, StoredSample
from ctrate_convert.reading.samples import read_json
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.sources.kinds import open_planned
from ctrate_convert.sources.left_out import LeftOut
from ctrate_convert.sources.source import Source
from ctrate_convert.store.records.base import parse
from ctrate_convert.store.records.plan import PlanSettings
from ctrate_convert.store.records.view import ViewFacts

_PIECE_VOXELS = 2**17
"""Voxels compared at once: few enough that source, shard and difference fit the L2 cache."""

_FRAME_VOXELS = 2**23
"""The most voxels that are decoded from a Blosc2 frame at once."""

_FORTRAN_BYTES = 2**24
"""Bytes held at once of a Fortran-order source. Each of its boxes crosses all rows of the shard."""


@dataclass(frozen=True)
class Comparison:
    """The result of reading a source and its sample side by side.

    ``differences`` is empty if the shard holds the source's volume: integers equal, floats within
    the sample's bound, NaN and infinities at the same places. ``left_out`` names everything else
    that the source holds and the shard does not. The errors are in the source's unit;
    ``mean_abs_error`` is NaN unless an exact comparison was asked for.
    """

    max_abs_error: float
    mean_abs_error: float
    differences: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Pair:
    """An open source, and the place of its sample in an open shard."""

    descriptor: int
    where: Path
    shard: ShardFile
    sample: StoredSample
    settings: PlanSettings
    check_stop: Callable[[], None] = lambda: None


def compare(pair: Pair, *, exact: bool = False) -> Comparison:
    """Read source and sample whole and compare them.

    With ``exact``, compute in double precision, and the mean error too.

    Raises:
        SampleError: the source cannot be read, or is no volume.
        DamageError: the shard does not hold what its record says.
        EnvironmentProblem: the shard cannot be read.
        Interrupted: ``pair.check_stop`` raised it, between two boxes.
    """
    with _opened(pair, _view_in_the_shard(pair)) as volume:
        fields = read_json(pair.shard, pair.sample)
        differences = list(_differences_in_description(pair, volume, fields))
        unheld = list(_not_in_the_shard(volume, fields))
        if differences:
            left_out = (*volume.left_out, *unheld)
            return Comparison(math.inf, math.nan, tuple(differences), left_out)
        seen = _comparer(pair, volume, exact=exact)
        for box, theirs, ours in _side_by_side(pair, volume):
            seen.take(box, theirs, ours)
        left_out = (*volume.left_out, *unheld)  # some show only behind the last voxel
    differences += seen.differences()
    return Comparison(seen.max_abs_error, seen.mean_abs_error(), tuple(differences), left_out)


def _comparer(pair: Pair, volume: Source, *, exact: bool) -> Integers | Floats:
    array, source = pair.sample.array, volume.array.dtype
    if _are_integers(array, volume):
        return Integers(array.shape)

    # Read both from the start: the bound of floats is known only after a first pass.
    def again() -> Pairs:
        with _opened(pair) as reopened:
            yield from _side_by_side(pair, reopened)

    max_error = pair.settings.max_error
    return Floats(source, array, max_error=max_error, again=again, exact=exact)


def _are_integers(array: ArrayMember, volume: Source) -> bool:
    return volume.array.dtype.kind != "f" and np.dtype(array.dtype).kind in "iu"


def _opened(pair: Pair, view: ViewFacts | None = None) -> Source:
    return open_planned(pair.sample.key, pair.where, pair.settings, view, pair.descriptor)


def _view_in_the_shard(pair: Pair) -> ViewFacts | None:
    """Return the facts of a view by its JSON, which is all that a reader of the plain tar knows."""
    if pair.settings.view is None:
        return None
    told = read_json(pair.shard, pair.sample).get("view")
    return parse(ViewFacts, json.dumps(told).encode(), pair.sample.json.name)


def _differences_in_description(
    pair: Pair, volume: Source, fields: Mapping[str, Any]
) -> Iterator[str]:
    """Compare how the record, the JSON member and the source describe the array."""
    array = pair.sample.array
    if tuple(volume.array.shape) != tuple(array.shape):
        yield f"the source's shape is {volume.array.shape}, the shard's {array.shape}"
    if _are_integers(array, volume) and array.value_scale != 1.0:
        yield f"the source holds integers, and the shard scales them by {array.value_scale:g}"
    # Whoever reads the plain tar knows the JSON alone, so it must agree with the record.
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


def _not_in_the_shard(volume: Source, fields: Mapping[str, Any]) -> Iterator[LeftOut]:
    """Yield the header and the small entries that the sample's JSON does not hold byte for byte."""
    held = fields.get("source_header_base64")
    # Shards of earlier versions hold no header; that of most NPZ says nothing beyond the record.
    if held is None and volume.header_is_plain:
        held = _base64(volume.raw_header)
    if held != _base64(volume.raw_header):
        yield LeftOut(volume.header_name, "the array's header, which its shard does not hold")
    stored = fields.get("source_extra", [])
    entries = stored if isinstance(stored, list) else []
    for entry in volume.source_extra():
        # The zip's comment is an entry without a name; an empty comment cannot be lost.
        something = entry["name"] or entry["base64"]
        if something and entry not in entries:
            yield LeftOut(entry["name"], "an entry that its shard does not hold")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _side_by_side(pair: Pair, volume: Source) -> Pairs:
    """Yield the elements of both, box by box in the source's file order; valid until the next.

    A box larger than the cache, as some encodings are read, comes in pieces that fit it.
    """
    array, source = pair.sample.array, volume.array
    boxes = _boxes(pair, volume)
    elements = _Elements(volume)
    for box, ours in zip(boxes, read_boxes(pair.shard, array, boxes), strict=True):
        pair.check_stop()
        flat = ours.transpose(2, 1, 0).reshape(-1) if source.fortran_order else ours.reshape(-1)
        for start in range(0, len(flat), _PIECE_VOXELS):
            piece = flat[start : start + _PIECE_VOXELS]
            yield box, elements.take(len(piece)), piece
    elements.finish()


def _boxes(pair: Pair, volume: Source) -> Sequence[Box]:
    source, shape = volume.array, pair.sample.array.shape
    # A Fortran-order box is the transpose of what the shard holds in C order.
    if source.fortran_order:
        return list(fortran_order_boxes(shape, max(1, _FORTRAN_BYTES // source.dtype.itemsize)))
    row = CODECS[pair.sample.array.encoding].voxels_in_a_row_of_chunks(
        shape, np.dtype(pair.sample.array.dtype).itemsize, pair.settings.chunk_shape
    )
    return list(c_order_boxes(shape, _PIECE_VOXELS if row is None else min(_FRAME_VOXELS, row)))


class _Elements:
    """The source's elements in file order, in pieces of the requested lengths."""

    def __init__(self, volume: Source) -> None:
        self._volume = volume
        self._buffer: Values = np.empty(0, volume.array.dtype)

    def take(self, count: int) -> Values:
        """Return the next ``count`` elements in the machine's byte order; valid until the next."""
        if len(self._buffer) < count:
            self._buffer = np.empty(count, self._volume.array.dtype)
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
        """Raise if the source holds more elements; its last byte has checked length and CRC-32.

        Raises:
            SampleError: it holds more.
        """
        if self._volume.read_into(memoryview(bytearray(1))):
            raise SampleError("array data is longer than its header says", where=self._volume.path)
