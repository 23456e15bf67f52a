"""Cut three planes out of a volume in one pass from front to back; nothing else of it is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]

_SLAB_VOXELS = 2**22
_COUNTED = 2**20
"""About so many voxels, evenly spread, stand for all in the histogram."""


@dataclass(frozen=True)
class Cuts:
    """The three planes through a volume's middle, and a part of its voxels.

    ``planes[i]`` lies across axis ``i`` and has the other two axes in their order. ``values`` are
    some of the voxels, evenly spread. All are float32 and as they are in the array.
    """

    shape: Shape
    planes: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
    values: NDArray[np.float32]

    def scaled(self, slope: float, intercept: float) -> Cuts:
        """Return the cuts with each value times ``slope`` plus ``intercept``."""
        one, two, three = (_scaled(plane, slope, intercept) for plane in self.planes)
        return Cuts(self.shape, (one, two, three), _scaled(self.values, slope, intercept))

    def reversed(self) -> Cuts:
        """Return the cuts of the array whose axes are these in reverse."""
        one, two, three = (plane.T for plane in self.planes)
        return Cuts(self.shape[::-1], (three, two, one), self.values)


def _scaled(values: NDArray[np.float32], slope: float, intercept: float) -> NDArray[np.float32]:
    return (values * np.float64(slope) + intercept).astype(np.float32)


def planes_at_once(shape: Shape) -> int:
    """Return how many planes across the first axis make a slab of bounded size, at least one."""
    return max(1, min(shape[0], _SLAB_VOXELS // max(1, shape[1] * shape[2])))


def cut(shape: Shape, slabs: Iterable[NDArray[Any]]) -> Cuts:
    """Return the cuts of a volume that comes as slabs of whole planes across its first axis.

    Raises whatever ``slabs`` raises, and ValueError if they are not the whole volume.
    """
    middle = tuple(size // 2 for size in shape)
    across = np.empty(shape[1:], np.float32)
    second = np.empty((shape[0], shape[2]), np.float32)
    third = np.empty((shape[0], shape[1]), np.float32)
    # A prime, so that no row length makes it meet the same columns again and again.
    stride = next(one for one in _PRIMES if one * _COUNTED >= np.prod(shape, dtype=np.int64))
    values, first, skip = [], 0, 0
    for slab in slabs:
        stop = first + len(slab)
        if first <= middle[0] < stop:
            across[:] = slab[middle[0] - first]
        second[first:stop] = slab[:, middle[1]]
        third[first:stop] = slab[:, :, middle[2]]
        flat = slab.reshape(-1)
        values.append(flat[skip::stride].astype(np.float32))
        skip = (skip - len(flat)) % stride
        first = stop
    if first != shape[0]:
        raise ValueError(f"{first} of {shape[0]} planes")
    return Cuts(shape, (across, second, third), np.concatenate(values))


_PRIMES = (1, 2, 3, 5, 11, 23, 53, 97, 193, 389, 769, 1543, 3079, 6151)
