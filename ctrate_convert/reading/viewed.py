"""Give a view of a sample while reading: the shard's array streams through the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.codecs.b2nd import block_depth
from ctrate_convert.formats.tiling import box_around, box_elements, within
from ctrate_convert.reading.arrays import read_boxes
from ctrate_convert.reading.asked import BODY_HU, Asked
from ctrate_convert.reading.boxes import Box, Shape, whole
from ctrate_convert.reading.index import ArrayMember
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.store.records.geometry import Axes
from ctrate_convert.store.records.recipe import Recipe
from ctrate_convert.views.described import view_facts
from ctrate_convert.views.view import View, facts_of

_ALONE = 2
"""A voxel of a small box costs so many times as much as one of a large box: it has more borders."""


class Viewed:
    """The view of one sample, with the same methods as `Asked`.

    Raises:
        SampleError: the sample's JSON does not say what the view needs.
    """

    def __init__(
        self, recipe: Recipe, array: ArrayMember, fields: Mapping[str, Any], assume_axes: Axes = ""
    ) -> None:
        self.view = View(recipe, facts_of(fields, array.name, array.shape, assume_axes))

    def shape(self, array: ArrayMember) -> Shape:
        """Return the shape of the whole view."""
        del array
        return self.view.shape

    def dtype(self, array: ArrayMember) -> np.dtype[Any]:
        """Return the type of the arrays that `read` gives."""
        del array
        return self.view.elements.dtype

    def smallest(self, array: ArrayMember) -> float:
        """Return what pads larger crops: the recipe's padding, else the smallest value."""
        if self.view.recipe.pad_hu is not None:
            return self.view.padding
        # The record's ``value_min`` is in the source's unit.
        stored = array.value_min / array.value_scale
        return self.view.elements.of_hu(stored * array.hu_slope + array.hu_intercept)

    def read(
        self, file: ShardFile, array: ArrayMember, box: Box, into: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return a box of the view: C order, writable. Only what it needs is read, where possible.

        ``into``, if it is given, is filled and returned; it has that shape and the view's type.

        Raises:
            SampleError: a voxel is no finite number.
            DamageError: the shard does not hold what its record says.
            EnvironmentProblem: it cannot be read.
        """
        return self.view.read(box, lambda needed: _slabs(file, array, needed), into)

    def read_crops(
        self,
        file: ShardFile,
        array: ArrayMember,
        boxes: Sequence[Box],
        into: Sequence[NDArray[Any]],
    ) -> None:
        """Fill each array of ``into`` with its box.

        The smallest box around them all is resampled once; or each alone, where they lie so far
        apart that this costs less. An ``npy.gz`` is inflated once in any case.

        Raises:
            SampleError: a voxel is no finite number.
            DamageError: the shard does not hold what its record says.
            EnvironmentProblem: it cannot be read.
        """
        around = box_around(boxes)
        alone = _ALONE * sum(map(box_elements, boxes)) < box_elements(around)
        if len(boxes) == 1 or (alone and array.encoding != "npy.gz"):
            for box, found in zip(boxes, into, strict=True):
                self.read(file, array, box, found)
            return
        values = self.read(file, array, around)
        for box, found in zip(boxes, into, strict=True):
            found[...] = values[within(around, box)]

    def is_body(self, array: ArrayMember) -> Callable[[float], bool]:
        """Return a function that tells if a value of the view is body.

        Where the recipe's window begins above `BODY_HU`, body is what is above its lower end.
        """
        del array
        slope, intercept = self.view.elements.to_hu
        window = self.view.recipe.window_hu
        # The lower end comes back with a rounding error, but within half a step of uint8.
        above = max(BODY_HU, window[0] + (window[1] - window[0]) / 512) if window else BODY_HU
        return lambda value: value * slope + intercept > above

    def read_whole(
        self, file: ShardFile, array: ArrayMember, see: Callable[[NDArray[Any]], None]
    ) -> NDArray[Any]:
        """Return the whole view, after ``see`` got the whole stored array, slab by slab in C order.

        Raises:
            SampleError: a voxel is no finite number.
            DamageError: the shard does not hold what its record says.
            EnvironmentProblem: it cannot be read.
        """
        depth = block_depth(array.shape, np.dtype(array.dtype).itemsize)

        def seen() -> Iterator[NDArray[Any]]:
            for slab in _of_whole_planes(file, array, depth):
                see(slab)
                yield slab
                del slab  # before the next one is read

        return self.view.read(whole(self.view.shape), lambda needed: _cut(seen(), needed))


def reader_of(asked: Asked, array: ArrayMember, fields: Mapping[str, Any]) -> Asked | Viewed:
    """Return what reads the arrays that were asked for; ``fields`` are the sample's JSON.

    Raises:
        SampleError: there can be no view of this sample.
    """
    if asked.view is None:
        return asked
    return Viewed(asked.view, array, fields, asked.assume_axes)


def with_view(fields: dict[str, Any], asked: Asked | Viewed) -> dict[str, Any]:
    """Return a sample's JSON, with ``view`` if the arrays are those of a view."""
    return (
        {**fields, "view": view_facts(asked.view).as_json()}
        if isinstance(asked, Viewed)
        else fields
    )


def _slabs(file: ShardFile, array: ArrayMember, needed: Box) -> Iterable[NDArray[Any]]:
    """Yield ``needed`` of an array as slabs, in which no block of ``b2nd`` is decoded twice."""
    depth = block_depth(array.shape, np.dtype(array.dtype).itemsize)
    planes, rows, columns = needed
    if array.encoding == "npy.gz":
        # It is inflated once only if nothing is left out.
        return _cut(_of_whole_planes(file, array, depth), needed)
    first = planes.start - planes.start % depth
    boxes = [
        (slice(max(start, planes.start), min(start + depth, planes.stop)), rows, columns)
        for start in range(first, planes.stop, depth)
    ]
    return read_boxes(file, array, boxes)


def _of_whole_planes(file: ShardFile, array: ArrayMember, depth: int) -> Iterator[NDArray[Any]]:
    along, rows, columns = whole(array.shape)
    boxes = [
        (slice(start, min(start + depth, along.stop)), rows, columns)
        for start in range(0, along.stop, depth)
    ]
    return read_boxes(file, array, boxes)


def _cut(slabs: Iterable[NDArray[Any]], needed: Box) -> Iterator[NDArray[Any]]:
    """Yield what is needed of a whole volume, and go on to its end, where the CRC-32 stands."""
    planes, rows, columns = needed
    start = 0
    for slab in slabs:
        part = slab[max(0, planes.start - start) : max(0, planes.stop - start), rows, columns]
        if len(part):
            yield part
        start += len(slab)
        del slab, part  # before the next one is read
