"""Compare a source with its sample in the shard, value by value, as both are read now.

The source's blocks are inflated and checked against their CRC-32; the shard gives the same boxes
through the code that users read with. Nothing that the writer has noted is believed: neither its
digests nor its measured error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numkong
import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.bound import ErrorLimit, Spread
from ctrate_convert.formats.encodings.b2nd import chunks_and_blocks
from ctrate_convert.formats.tiling import Box, c_order_boxes, fortran_order_boxes
from ctrate_convert.reading.arrays import read_boxes
from ctrate_convert.reading.index import ArrayMember, StoredSample
from ctrate_convert.reading.samples import read_json
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.schemas.plan import PlanSettings
from ctrate_convert.sources.inventory import LeftOut
from ctrate_convert.sources.npz import SourceVolume

Values = NDArray[Any]

_BOX_VOXELS = 2**17
"""Small enough that source, shard and difference stay in the second-level cache."""

_FRAME_VOXELS = 2**23
"""The most that is decoded of a Blosc2 frame at once."""

_FORTRAN_BYTES = 2**24
"""Of a Fortran-order source so much is held at once: each box then crosses all rows of the shard."""

_SINGLE_PRECISION = 2.0**-24
_WORST_SHARE = 2.0**-3
"""An error above this part of the spread is another volume, whatever error a person accepts."""


@dataclass(frozen=True)
class Comparison:
    """What reading a source and its sample side by side has shown.

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
        differences = list(_differences_in_description(pair, volume))
        left_out = [*volume.left_out, *_entries_not_in_the_shard(pair, volume)]
        if differences:
            return Comparison(math.inf, math.nan, tuple(differences), tuple(left_out))
        array = pair.sample.array
        source = volume.npy.dtype
        seen: _Integers | _Floats
        if source.kind != "f" and np.dtype(array.dtype).kind == "i":
            seen = _Integers(volume.npy.shape)
        else:
            seen = _Floats(pair, volume, exact=exact)
        for box, theirs, ours in _side_by_side(pair, volume):
            seen.take(box, theirs, ours)
    differences += seen.differences()
    return Comparison(
        seen.max_abs_error, seen.mean_abs_error(), tuple(differences), tuple(left_out)
    )


def _opened(pair: Pair) -> SourceVolume:
    return SourceVolume(pair.where, pair.settings.array_key, descriptor=pair.descriptor)


def _differences_in_description(pair: Pair, volume: SourceVolume) -> Iterator[str]:
    """Compare what record, JSON member and source say of the array."""
    array = pair.sample.array
    if tuple(volume.npy.shape) != tuple(array.shape):
        yield f"the source's shape is {volume.npy.shape}, the shard's {array.shape}"
    fields = read_json(pair.shard, pair.sample)
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


def _entries_not_in_the_shard(pair: Pair, volume: SourceVolume) -> Iterator[LeftOut]:
    """Name the small entries of the source that the sample's JSON does not hold, byte for byte."""
    fields = read_json(pair.shard, pair.sample)
    stored = fields.get("source_extra", [])
    held = stored if isinstance(stored, list) else []
    for entry in volume.source_extra():
        if entry not in held:
            yield LeftOut(entry["name"], "an entry that its shard does not hold")


def _side_by_side(pair: Pair, volume: SourceVolume) -> Iterator[tuple[Box, Values, Values]]:
    """Give the elements of both, box by box in the source's file order; valid until the next."""
    array, npy = pair.sample.array, volume.npy
    boxes = _boxes(pair, volume)
    elements = _Elements(volume)
    for box, ours in zip(boxes, read_boxes(pair.shard, array, boxes), strict=True):
        pair.check_stop()
        flat = ours.transpose(2, 1, 0).reshape(-1) if npy.fortran_order else ours.reshape(-1)
        yield box, elements.take(len(flat)), flat
    elements.finish()


def _boxes(pair: Pair, volume: SourceVolume) -> Sequence[Box]:
    npy = volume.npy
    if npy.fortran_order:
        return list(fortran_order_boxes(npy.shape, max(1, _FORTRAN_BYTES // npy.dtype.itemsize)))
    most = _BOX_VOXELS
    if pair.sample.array.encoding == "b2nd":
        most = _voxels_in_a_chunk_row(pair.sample.array, pair.settings)
    return list(c_order_boxes(npy.shape, most))


def _voxels_in_a_chunk_row(array: ArrayMember, settings: PlanSettings) -> int:
    """Return how many voxels a row of a frame's chunks holds: boxes of whole rows decode each once."""
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
        self._volume.check_values(block)
        native = block.dtype.newbyteorder("=")
        return block if block.dtype == native else block.astype(native)

    def finish(self) -> None:
        """Make sure that nothing is left; the last byte has checked length and CRC-32."""
        if self._volume.read_into(memoryview(bytearray(1))):
            raise SampleError("array data is longer than its header says", where=self._volume.path)


class _Integers:
    """Integers in the source and in the shard: they must be equal."""

    max_abs_error = 0.0

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._unequal = 0
        self._first = ""

    def take(self, box: Box, theirs: Values, ours: Values) -> None:
        """Compare one box."""
        if np.array_equal(theirs, ours):
            return
        places = np.flatnonzero(theirs != ours)
        if not self._unequal:
            at = int(places[0])
            self._first = f"source {theirs[at]}, shard {ours[at]} in {_words(box)}"
            self.max_abs_error = math.inf
        self._unequal += len(places)

    def mean_abs_error(self) -> float:
        """Return the mean error of all voxels."""
        return math.nan if self._unequal else 0.0

    def differences(self) -> Iterator[str]:
        """Say what differs."""
        if self._unequal:
            yield (
                f"{self._unequal:,} of {math.prod(self._shape):,} voxels differ from the shard's, "
                f"the first: {self._first}"
            )


class _Floats:
    """Floats on one side at least: each voxel must be within its bound."""

    def __init__(self, pair: Pair, volume: SourceVolume, *, exact: bool) -> None:
        array = pair.sample.array
        self.max_abs_error = 0.0
        self._pair = pair
        self._target = np.dtype(array.dtype)
        self._scale = array.value_scale
        self._voxels = math.prod(array.shape)
        source = volume.npy.dtype
        self._exactly = np.longdouble if source.itemsize == 8 else np.float64
        small = source.kind in "biu" and source.itemsize <= 2
        self._fast = not exact and (small or (source.kind == "f" and source.itemsize <= 4))
        self._exact = exact
        self._spread = Spread(self._voxels)
        self._buffer: Values = np.empty(0, np.float32)
        self._sum = 0.0
        self._misplaced = 0
        self._first_source: Any = None
        self._first_shard: Any = None
        self._source_varies = self._shard_varies = False

    def take(self, box: Box, theirs: Values, ours: Values) -> None:
        """Compare one box."""
        self._spread.add(theirs)
        self._note_variation(theirs, ours)
        errors = self._errors_in_singles(theirs, ours) if self._fast else None
        if errors is None:
            errors, finite = self._errors_exactly(theirs, ours)
            errors = errors[finite]
        if len(errors):
            self.max_abs_error = max(self.max_abs_error, float(errors.max()), -float(errors.min()))
            if self._exact:
                self._sum += float(errors.sum())

    def _note_variation(self, theirs: Values, ours: Values) -> None:
        if self._first_source is None:
            self._first_source, self._first_shard = theirs[0], ours[0]
        if not self._source_varies:
            self._source_varies = bool((theirs != self._first_source).any())
        if not self._shard_varies:
            self._shard_varies = bool((ours != self._first_shard).any())

    def _errors_in_singles(self, theirs: Values, ours: Values) -> Values | None:
        """Return signed differences in float32; None where a value is not finite.

        The arithmetic loses at most three roundings of the largest value: `differences` adds them.
        """
        restored = self._singles(len(ours))
        if ours.dtype == np.float16:
            numkong.astype(ours, "float32", out=restored)
        else:
            np.copyto(restored, ours)
        if self._scale != 1.0:
            np.multiply(restored, np.float32(self._scale), out=restored)
        with np.errstate(invalid="ignore"):
            np.subtract(theirs, restored, out=restored, casting="same_kind")
        low, high = float(restored.min()), float(restored.max())
        return restored if math.isfinite(low) and math.isfinite(high) else None

    def _singles(self, count: int) -> Values:
        if len(self._buffer) < count:
            self._buffer = np.empty(count, np.float32)
        return self._buffer[:count]

    def _errors_exactly(self, theirs: Values, ours: Values) -> tuple[Values, Values]:
        """Return absolute errors, and which voxels are finite on both sides."""
        finite = np.isfinite(theirs) & np.isfinite(ours)
        odd = ~finite
        if odd.any():
            equal = (theirs[odd] == ours[odd]) | (np.isnan(theirs[odd]) & np.isnan(ours[odd]))
            self._misplaced += int(np.count_nonzero(~equal))
        with np.errstate(invalid="ignore"):
            errors = np.abs(theirs.astype(self._exactly) - ours.astype(self._exactly) * self._scale)
        return errors, finite

    def mean_abs_error(self) -> float:
        """Return the mean error of all voxels; NaN unless it was asked for."""
        return self._sum / self._voxels if self._exact else math.nan

    def differences(self) -> Iterator[str]:
        """Say what differs, reading both once more where the largest error does not decide."""
        if self._misplaced:
            yield f"NaN or infinity stands elsewhere in the shard, at {self._misplaced:,} voxels"
            return
        if self._source_varies and not self._shard_varies:
            yield "the shard's volume is constant, and the source's is not"
            return
        low, high = self._spread.percentiles()
        limit = ErrorLimit.of(low, high, self._target, self._scale, self._pair.settings.max_error)
        lost = 3 * _SINGLE_PRECISION * max(abs(low), abs(high)) if self._fast else 0.0
        if not limit.holds_everywhere(self.max_abs_error + lost):
            excess = self._excess(limit)
            if excess:
                yield f"a voxel differs from the source's by {excess:.6g}, past its bound"
                return
        accepted = self._pair.settings.max_error is not None
        if accepted and self.max_abs_error > _WORST_SHARE * (high - low):
            yield (
                f"the largest error, {self.max_abs_error:.6g}, is not small beside the volume's "
                f"spread, {high - low:.6g}"
            )

    def _excess(self, limit: ErrorLimit) -> float:
        worst = 0.0
        with _opened(self._pair) as volume:
            for _, theirs, ours in _side_by_side(self._pair, volume):
                errors, finite = self._errors_exactly(theirs, ours)
                worst = max(worst, limit.excess(theirs[finite], errors[finite]))
        return worst


def _words(box: Box) -> str:
    return "[" + ", ".join(f"{part.start}:{part.stop}" for part in box) + "]"
