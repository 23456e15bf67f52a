"""Resample a volume as it streams by, linearly along each axis, with the same bits everywhere.

Every operation is one float32 operation of IEEE 754 on single elements: subtract, multiply, add,
compare, round. Their results are defined to the bit, so neither SIMD dispatch nor the size of the
slabs can change them. There is no sum, no dot product and no fused multiply-add. A blend is
``one + weight·(other - one)``, which leaves a region of equal voxels as it is.

Memory is the output, one slab, and a few planes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.views.elements import Elements
from ctrate_convert.views.grid import Taps

Float32 = NDArray[np.float32]

_UNALIGNED_BYTES = 64
"""What rows have in addition where columns are read, so that these spread over a cache's sets."""

_STAGED = 32
"""So many planes are written at once where each would write single voxels, far from each other."""


def resample(
    slabs: Iterable[NDArray[Any]],
    taps: tuple[Taps, Taps, Taps],
    elements: Elements,
    into: NDArray[Any],
) -> None:
    """Write the resampled volume into ``into``, whose axes are those of the source.

    ``slabs`` are whole planes across the source's first axis, front to back, any number in each.
    ``into`` has the shape of the three taps, any strides, and the type of ``elements``.

    Raises:
        NotFinite: a voxel is no finite number.
        ValueError: there are fewer planes than the taps need; and whatever ``slabs`` raises.
    """
    along, rows, columns = taps
    # The last plane of the source that each plane of the output needs: they come in this order, or
    # from the end if the axis is flipped.
    last = np.maximum(along.one, along.other).tolist()
    order = range(len(last)) if last[0] <= last[-1] else range(len(last))[::-1]
    wanted = {*along.one.tolist(), *along.other.tolist()}
    planes: dict[int, Float32] = {}
    free: list[Float32] = []
    work: _Plane | None = None
    output = _Output(into, elements)
    number, done = 0, 0
    for stored in _planes(slabs):
        if number in wanted:
            # Only neighbours are blended, so two buffers do.
            free += [planes.pop(old) for old in list(planes) if old < number - 1]
            planes[number] = free.pop() if free else np.empty(stored.shape, np.float32)
            elements.enter(stored, planes[number])
        while done < len(order) and last[order[done]] == number:
            place = order[done]
            work = work or _Plane(stored.shape, rows, columns)
            one, other = planes[int(along.one[place])], planes[int(along.other[place])]
            output.write(place, work.resample(one, other, along.weight[place]))
            done += 1
        number += 1
        del stored
    output.close()
    if done < len(order):
        raise ValueError(f"{number} planes are fewer than the view needs")


def _planes(slabs: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Yield plane by plane, and let go of a slab before the next one is asked for."""
    for slab in slabs:
        yield from slab
        del slab


class _Plane:
    """Blends two planes, and resamples the result along both of its axes, in the same buffers.

    Rows are blended as wholes, which is fast. So the plane is transposed between its two axes, and
    comes out with the last axis first.
    """

    def __init__(self, shape: tuple[int, ...], rows: Taps, columns: Taps) -> None:
        width = shape[1]
        self._rows, self._columns = rows, columns
        self._blended = np.empty(shape, np.float32)
        self._one = np.empty((len(rows), width), np.float32)
        self._other = np.empty_like(self._one)
        spread = _UNALIGNED_BYTES // self._one.itemsize
        self._spread = np.empty((len(rows), width + spread), np.float32)[:, :width]
        self._turned = np.empty((width, len(rows)), np.float32)
        self._turned_one = np.empty((len(columns), len(rows)), np.float32)
        self._turned_other = np.empty_like(self._turned_one)

    def resample(self, one: Float32, other: Float32, weight: np.float32) -> Float32:
        """Return the new plane, (columns, rows); it is valid until the next call."""
        np.subtract(other, one, out=self._blended)
        np.multiply(self._blended, weight, out=self._blended)
        np.add(self._blended, one, out=self._blended)
        _blend_rows(self._blended, self._rows, self._one, self._other, self._spread)
        np.copyto(self._turned, self._spread.T)
        found = self._turned_other
        _blend_rows(self._turned, self._columns, self._turned_one, found, found)
        return found


def _blend_rows(plane: Float32, taps: Taps, one: Float32, other: Float32, into: Float32) -> None:
    """Write the blended rows of ``plane`` into ``into``; ``one`` and ``other`` are overwritten."""
    # Into an array that is not contiguous, `numpy.take` would copy twice.
    np.take(plane, taps.one, axis=0, out=one, mode="clip")
    np.take(plane, taps.other, axis=0, out=other, mode="clip")
    np.subtract(other, one, out=other)
    np.multiply(other, taps.weight[:, None], out=other)
    np.add(other, one, out=into)


class _Output:
    """Writes planes into the output; some at once where its fastest axis lies across them."""

    def __init__(self, into: NDArray[Any], elements: Elements) -> None:
        self._into, self._elements = into, elements
        self._staged: NDArray[Any] | None = None
        self._block = -1
        if into.strides[0] == into.itemsize:
            planes, rows, columns = into.shape
            spread = _UNALIGNED_BYTES // into.itemsize
            staged = min(_STAGED, planes)
            flat = np.empty((staged, rows * columns + spread), into.dtype)
            self._staged = flat[:, : rows * columns].reshape(staged, columns, rows)

    def write(self, place: int, values: Float32) -> None:
        """Write plane ``place`` of the output; the places come in ascending or descending order."""
        if self._staged is None:
            self._elements.leave(values, self._into[place].T)
            return
        block, within = divmod(place, _STAGED)
        if block != self._block:
            self.close()
            self._block = block
        self._elements.leave(values, self._staged[within])

    def close(self) -> None:
        """Write what is staged."""
        if self._staged is None or self._block < 0:
            return
        target = self._into[self._block * _STAGED : (self._block + 1) * _STAGED]
        np.copyto(target, self._staged[: len(target)].transpose(0, 2, 1))
