"""Read the crops of a volume: all of them from one decode, some of them in the body."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SettingsError
from ctrate_convert.reading.boxes import Box, Shape, overlap, place_crop, whole
from ctrate_convert.reading.index import ArrayMember
from ctrate_convert.reading.items.cut import Cut
from ctrate_convert.reading.items.tensors import Room
from ctrate_convert.reading.shard_file import ShardFile

Array = NDArray[Any]

_TRIES = 64
"""Places to look at for one crop in the body; of 64 random ones a chest misses hardly ever all."""


class ArrayReader(Protocol):
    """What gives the arrays as they were asked for: an `Asked`, or a `Viewed`."""

    def shape(self, array: ArrayMember) -> Shape:
        """Return the shape of the whole."""
        ...

    def dtype(self, array: ArrayMember) -> np.dtype[Any]:
        """Return the type of the elements."""
        ...

    def smallest(self, array: ArrayMember) -> float:
        """Return what to pad with."""
        ...

    def is_body(self, array: ArrayMember) -> Callable[[float], bool]:
        """Return a function that tells if an element is body."""
        ...

    def read(
        self, file: ShardFile, array: ArrayMember, box: Box, into: Array | None = None
    ) -> Array:
        """Return a box of it."""
        ...

    def read_crops(
        self, file: ShardFile, array: ArrayMember, boxes: Sequence[Box], into: Sequence[Array]
    ) -> None:
        """Fill each array with its box."""
        ...


class Crop(NamedTuple):
    """The place of a crop's first voxel, and the crop: an array, or a tensor."""

    origin: Shape
    array: Any


def read_crops(
    file: ShardFile,
    array: ArrayMember,
    asked: ArrayReader,
    cut: Cut,
    rng: np.random.Generator,
    room: Room,
) -> list[Crop]:
    """Return the crops of a volume, or the whole of it as the only one; ``room`` makes the memory.

    ``b2nd`` decodes no block twice, ``npy.gz`` is inflated once, and a view resamples once the
    smallest box around the crops, unless each alone costs less. Memory is that of the crops and of
    one of them in whole blocks; of a view also that box; of ``npy.gz`` also the whole volume or
    view if there are crops in the body.

    Raises:
        SettingsError: ``pad`` is not in the range of the array's type.
        SampleError: the axes or the Hounsfield units of the volume are needed and not known.
        DamageError: the shard does not hold what its record says.
        EnvironmentProblem: it cannot be read.
    """
    shape, dtype = asked.shape(array), asked.dtype(array)
    crop = cut.crop or shape
    if cut.foreground and array.encoding == "npy.gz":
        # Looking at single voxels would inflate it again and again.
        reader: _Reader = _Held(asked.read(file, array, whole(shape)))
    else:
        reader = _Stored(file, array, asked)
    is_body = asked.is_body(array) if cut.foreground else None
    found: list[Crop] = []
    boxes: list[Box] = []
    parts: list[Array] = []
    for origin in _origins(reader, is_body, shape, crop, cut, rng):
        item, values = room.make(crop, dtype)
        inside, target = overlap(origin, crop, shape)
        part = values[target]
        if part.size < values.size:
            values[...] = _pad(cut, asked, array)
        found.append(Crop(origin, item))
        boxes.append(inside)
        parts.append(part)
    # The readers fill arrays in C order, which a part with padding around it has not.
    into = [part if part.flags.c_contiguous else np.empty(part.shape, dtype) for part in parts]
    reader.read(boxes, into)
    for part, values in zip(parts, into, strict=True):
        if part is not values:
            part[...] = values
    return found


def _pad(cut: Cut, asked: ArrayReader, array: ArrayMember) -> float:
    if cut.pad is None:
        return asked.smallest(array)
    dtype = asked.dtype(array)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if not (limits.min <= cut.pad <= limits.max and float(cut.pad).is_integer()):
            raise SettingsError(
                "pad= does not fit the arrays", where=array.name, seen=cut.pad,
                expected=f"an integer of {dtype}: {limits.min} to {limits.max}",
            )  # fmt: skip
    elif abs(cut.pad) > float(np.finfo(dtype).max):
        raise SettingsError(
            "pad= does not fit the arrays", where=array.name, seen=cut.pad,
            expected=f"a number of {dtype}: ±{np.finfo(dtype).max}",
        )  # fmt: skip
    return cut.pad


class _Reader(Protocol):
    def read(self, boxes: Sequence[Box], into: Sequence[Array]) -> None: ...

    def voxel(self, place: Shape) -> float: ...


class _Stored:
    """Reads boxes from the shard."""

    def __init__(self, file: ShardFile, array: ArrayMember, asked: ArrayReader) -> None:
        self._file, self._array, self._asked = file, array, asked

    def read(self, boxes: Sequence[Box], into: Sequence[Array]) -> None:
        self._asked.read_crops(self._file, self._array, boxes, into)

    def voxel(self, place: Shape) -> float:
        return float(self._asked.read(self._file, self._array, _one(place))[0, 0, 0])


class _Held:
    """Cuts boxes from a volume in memory."""

    def __init__(self, values: Array) -> None:
        self._values = values

    def read(self, boxes: Sequence[Box], into: Sequence[Array]) -> None:
        for box, found in zip(boxes, into, strict=True):
            found[...] = self._values[box]

    def voxel(self, place: Shape) -> float:
        return float(self._values[place])


def _origins(
    reader: _Reader,
    is_body: Callable[[float], bool] | None,
    shape: Shape,
    crop: Shape,
    cut: Cut,
    rng: np.random.Generator,
) -> list[Shape]:
    found = []
    for _ in range(cut.crops_per_volume):
        tries = _TRIES if is_body and rng.random() < cut.foreground else 1
        for left in reversed(range(tries)):
            origin = place_crop(shape, crop, cut.at, rng)
            # The last one stays: a volume may hold no body at all.
            if not left or (is_body and is_body(reader.voxel(_centre(origin, crop)))):
                break
        found.append(origin)
    return found


def _centre(origin: Shape, crop: Shape) -> Shape:
    z, y, x = (first + size // 2 for first, size in zip(origin, crop, strict=True))
    return z, y, x


def _one(place: Shape) -> Box:
    z, y, x = (slice(at, at + 1) for at in place)
    return z, y, x
