"""Divide a volume of any shape into boxes of bounded size, in the order of its elements in a file.

Each box is a contiguous run of elements. So a stream is divided into boxes by counting elements,
and the elements of a box become an array by `reshape`. No axis can make a box larger than the
bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

Shape: TypeAlias = tuple[int, int, int]

Box: TypeAlias = tuple[slice, slice, slice]
"""A part of a volume: one slice for each axis, 0 ≤ start < stop ≤ size, without a step."""


def c_order_boxes(shape: Shape, most_elements: int) -> Iterator[Box]:
    """Yield the boxes of a volume in C order, each of at most ``most_elements`` (at least 1).

    A box holds whole planes if one fits, else whole rows of one plane, else a part of one row.
    """
    depth, height, width = shape
    for z in _runs(depth, height * width, most_elements):
        for y in _runs(height, width, most_elements):
            for x in _runs(width, 1, most_elements):
                yield z, y, x


def fortran_order_boxes(shape: Shape, most_elements: int) -> Iterator[Box]:
    """Yield the boxes of a volume in Fortran order, in which the first axis varies fastest.

    The elements of a box are contiguous in a file in Fortran order. Everything else is as in
    `c_order_boxes`, with the axes reversed.
    """
    rows, columns, planes = shape
    for z, y, x in c_order_boxes((planes, columns, rows), most_elements):
        yield x, y, z


def box_shape(box: Box) -> Shape:
    """Return the shape of a box."""
    depth, height, width = (part.stop - part.start for part in box)
    return depth, height, width


def box_elements(box: Box) -> int:
    """Return the number of elements in a box."""
    return math.prod(box_shape(box))


def common_part(one: Box, other: Box) -> Box | None:
    """Return the box that lies in both boxes, or None if they do not overlap."""
    z, y, x = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    if z.start < z.stop and y.start < y.stop and x.start < x.stop:
        return z, y, x
    return None


def within(box: Box, part: Box) -> Box:
    """Return the place of ``part``, a part of ``box``, in an array that holds ``box``."""
    z, y, x = (slice(p.start - b.start, p.stop - b.start) for b, p in zip(box, part, strict=True))
    return z, y, x


def box_around(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all of ``boxes``."""
    z, y, x = (
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in ([box[axis] for box in boxes] for axis in range(3))
    )
    return z, y, x


def without_overlap(boxes: Iterable[Box]) -> list[Box]:
    """Return boxes that cover the same voxels as ``boxes``, each voxel once."""
    found: list[Box] = []
    for box in boxes:
        parts = [box]
        for before in [*found]:
            parts = [rest for part in parts for rest in _outside(part, before)]
        found += parts
    return found


def _outside(box: Box, other: Box) -> Iterator[Box]:
    """Yield the parts of ``box`` that do not lie in ``other``, at most six."""
    common = common_part(box, other)
    if common is None:
        yield box
        return
    rest = list(box)
    for axis, part in enumerate(common):
        whole = rest[axis]
        for side in (slice(whole.start, part.start), slice(part.stop, whole.stop)):
            if side.start < side.stop:
                z, y, x = (side if place == axis else one for place, one in enumerate(rest))
                yield z, y, x
        rest[axis] = part


def moved(boxes: Iterable[Box], by: Shape) -> Iterator[Box]:
    """Yield each box, moved along each axis."""
    for box in boxes:
        z, y, x = (slice(p.start + n, p.stop + n) for p, n in zip(box, by, strict=True))
        yield z, y, x


def place_in_c_order(shape: Shape, box: Box) -> int:
    """Return the number of elements before the first one of ``box`` in a volume in C order."""
    _, height, width = shape
    z, y, x = box
    return int((z.start * height + y.start) * width + x.start)


def _runs(length: int, unit_elements: int, most_elements: int) -> Iterator[slice]:
    """Yield runs of as many units as fit; a unit that is too large alone is a run of its own."""
    step = max(1, most_elements // unit_elements)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
