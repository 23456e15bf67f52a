"""Turn an index or a crop into the box of a volume to read, and the part to take from that box."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from ctrate_convert.errors import SettingsError

Shape: TypeAlias = tuple[int, int, int]

Box: TypeAlias = tuple[slice, slice, slice]
"""A part of a volume: one slice for each axis, 0 ≤ start ≤ stop ≤ size, without a step."""

CropAt = Literal["random", "center"]


def whole(shape: Shape) -> Box:
    """Return the box that covers a whole volume."""
    depth, height, width = shape
    return slice(0, depth), slice(0, height), slice(0, width)


def shape_of(box: Box) -> Shape:
    """Return the shape of a box."""
    depth, height, width = (part.stop - part.start for part in box)
    return depth, height, width


def parse_index(index: object, shape: Shape) -> tuple[Box, tuple[int | slice, ...]]:
    """Return the smallest box that ``volume[index]`` needs, and the index to apply to that box.

    The index may hold integers, slices with any step, and an ellipsis, as in numpy, but no arrays
    and no new axes.

    Raises:
        IndexError: an integer lies outside, or there are too many or other kinds of indices.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    ellipses = [place for place, part in enumerate(parts) if part is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    place = ellipses[0] if ellipses else len(parts)
    given = len(parts) - len(ellipses)
    if given > len(shape):
        raise IndexError(f"too many indices: a volume has 3 axes, but {given} were indexed")
    parts[place : place + len(ellipses)] = [slice(None)] * (len(shape) - given)
    found = [_parse_part(part, size) for part, size in zip(parts, shape, strict=True)]
    (z, y, x), rest = (part for part, _ in found), tuple(rest for _, rest in found)
    return (z, y, x), rest


def _parse_part(part: object, size: int) -> tuple[slice, int | slice]:
    if isinstance(part, slice):
        taken = range(size)[part]
        if not taken:
            return slice(0, 0), slice(None)
        low, high = min(taken[0], taken[-1]), max(taken[0], taken[-1])
        # A backward slice starts at the end of the box, and ends before its start: only None says
        # that, since a stop of -1 would mean the last element.
        return slice(low, high + 1), slice(None, None, taken.step)
    try:
        number = range(size)[operator.index(part)]  # type: ignore[arg-type]
    except TypeError as error:
        raise IndexError(
            f"volumes are indexed by integers, slices and '...', not {type(part).__name__}"
        ) from error
    except IndexError as error:
        raise IndexError(f"index {part} is out of bounds for an axis of size {size}") from error
    return slice(number, number + 1), 0


def check_crop(crop: Sequence[int], name: str = "crop") -> Shape:
    """Return ``crop``, the argument ``name``, as a shape.

    Raises:
        SettingsError: it is not three positive integers.
    """
    try:
        depth, height, width = (operator.index(size) for size in crop)
    except (TypeError, ValueError):
        depth = height = width = 0
    if min(depth, height, width) < 1:
        raise SettingsError(
            f"{name} is not a shape", seen=crop, expected="three positive integers: (128, 128, 128)"
        )
    return depth, height, width


def place_crop(shape: Shape, crop: Shape, at: CropAt, rng: np.random.Generator) -> Shape:
    """Return the crop's origin in the volume.

    Along an axis where the volume is smaller than the crop the origin is negative, and the volume
    is centred in the crop.
    """
    z, y, x = (
        int(rng.integers(0, size - wanted, endpoint=True))
        if at == "random" and size > wanted
        else (size - wanted) // 2
        for size, wanted in zip(shape, crop, strict=True)
    )
    return z, y, x


def overlap(origin: Shape, crop: Shape, shape: Shape) -> tuple[Box, Box]:
    """Return the part of the volume that the crop covers, as a box of each of the two."""
    inside, target = [], []
    for first, wanted, size in zip(origin, crop, shape, strict=True):
        low, high = max(first, 0), min(first + wanted, size)
        inside.append(slice(low, high))
        target.append(slice(low - first, high - first))
    return _box(inside), _box(target)


def _box(parts: list[slice[Any, Any, Any]]) -> Box:
    z, y, x = parts
    return z, y, x
