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
            planes[number] = free.pop() if free else _padded(stored.shape)
            elements.enter(stored, planes[number][:, : stored.shape[1]])
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


def _padded(shape: tuple[int, ...]) -> Float32:
    """Return a plane of zeros whose rows are `_UNALIGNED_BYTES` longer than ``shape`` says.

    The arithmetic includes this padding, so that it runs over contiguous memory; no padding gets
    into the output.
    """
    rows, width = shape
    return np.zeros((rows, width + _UNALIGNED_BYTES // np.dtype(np.float32).itemsize), np.float32)


class _Plane:
    """Blends two planes, and resamples the result along both of its axes, in the same buffers.

    Rows are blended as wholes, which is fast. So the plane is transposed between its two axes, and
    comes out with the last axis first.
    """

    def __init__(self, shape: tuple[int, ...], rows: Taps, columns: Taps) -> None:
        self._width = shape[1]
        self._blended = _padded(shape)
        self._rows = _Rows(rows, self._blended.shape[1])
        self._turned = np.empty((self._width, len(rows)), np.float32)
        self._columns = _Rows(columns, len(rows))

    def resample(self, one: Float32, other: Float32, weight: np.float32) -> Float32:
        """Return the new plane, (columns, rows); it is valid until the next call."""
        np.subtract(other, one, out=self._blended)
        np.multiply(self._blended, weight, out=self._blended)
        np.add(self._blended, one, out=self._blended)
        np.copyto(self._turned, self._rows.blend(self._blended)[:, : self._width].T)
        return self._columns.blend(self._turned)


class _Rows:
    """Blends rows of a plane that are ``width`` long, in the same buffers."""

    def __init__(self, taps: Taps, width: int) -> None:
        self._taps = taps
        self._one = np.empty((len(taps), width), np.float32)
        self._other = np.empty_like(self._one)
        # One weight per voxel, since numpy would loop over single rows to broadcast one per row.
        self._weight = np.empty_like(self._one)
        self._weight[...] = taps.weight[:, None]

    def blend(self, plane: Float32) -> Float32:
        """Return the blended rows of ``plane``; they are valid until the next call."""
        np.take(plane, self._taps.one, axis=0, out=self._one, mode="clip")
        np.take(plane, self._taps.other, axis=0, out=self._other, mode="clip")
        np.subtract(self._other, self._one, out=self._other)
        np.multiply(self._other, self._weight, out=self._other)
        np.add(self._other, self._one, out=self._other)
        return self._other


class _Output:
    """Writes planes into the output; some at once where its fastest axis lies across them.

    Then the planes are staged in groups. The elements of a group that are neighbours in the output
    fill eight bytes, and are copied there as one integer.
    """

    def __init__(self, into: NDArray[Any], elements: Elements) -> None:
        self._into, self._elements = into, elements
        self._staged: NDArray[Any] | None = None
        self._block = -1
        if into.strides[0] == into.itemsize:
            planes, rows, columns = into.shape
            self._group_size = 8 // into.itemsize
            groups = -(-min(_STAGED, planes) // self._group_size)
            spread = _UNALIGNED_BYTES // into.itemsize
            flat = np.empty((groups, columns * rows * self._group_size + spread), into.dtype)
            self._staged = flat[:, :-spread].reshape(groups, columns, rows, self._group_size)
            # Planes are cast to this first: to cast into elements that lie apart is slower.
            self._values = np.empty((columns, rows), into.dtype)

    def write(self, place: int, values: Float32) -> None:
        """Write plane ``place`` of the output; the places come in ascending or descending order."""
        if self._staged is None:
            self._elements.leave(values, self._into[place].T)
            return
        block, within = divmod(place, _STAGED)
        if block != self._block:
            self.close()
            self._block = block
        group, place_in_group = divmod(within, self._group_size)
        self._elements.leave(values, self._values)
        np.copyto(self._staged[group, :, :, place_in_group], self._values)

    def close(self) -> None:
        """Write what is staged."""
        if self._staged is None or self._block < 0:
            return
        target = self._into[self._block * _STAGED : (self._block + 1) * _STAGED].transpose(2, 1, 0)
        groups, rest = divmod(target.shape[-1], self._group_size)
        if groups:
            whole = target[:, :, : groups * self._group_size].view(np.uint64)
            np.copyto(whole, self._staged[:groups].view(np.uint64)[..., 0].transpose(1, 2, 0))
        if rest:
            np.copyto(target[:, :, -rest:], self._staged[groups, :, :, :rest])
