"""Are a volume's voxels Hounsfield units? The voxels tell; the table's intercept may not.

CT-RATE's first release stores raw values, to which the table's intercept of -1024 or -8192 still
applies; its corrected release stores Hounsfield units under the same intercepts. Applying them
twice turns the body into air.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.schemas.record import Intensity

INTERCEPT_APPLIES: dict[Intensity, float] = {"raw-1024": -1024.0, "raw-8192": -8192.0}
"""The intercept that still has to be added to voxels of that scale."""

_OFFSETS: dict[Intensity, int] = {"hu": 0, "raw-1024": 1024, "raw-8192": 8192}
_AIR_AND_LUNG_HU = (-1060, -700)
_FAT_AND_SOFT_TISSUE_HU = (-150, 150)
_ENOUGH = 0.005
_BIN_HU = 10
_LOWEST, _HIGHEST = -10_000, 12_000

_STRIDE = 251
"""One voxel in so many is counted: prime, so that no row or plane length hides tissue."""

_COUNTED_AT_ONCE = 2**16


class IntensityHistogram:
    """A coarse histogram of some of a volume's voxels, filled block by block."""

    def __init__(self) -> None:
        self._counts = np.zeros((_HIGHEST - _LOWEST) // _BIN_HU, np.int64)
        self._waiting = np.empty(_COUNTED_AT_ONCE, np.float32)
        self._num_waiting = 0

    def add(self, values: NDArray[Any]) -> None:
        """Count some of ``values``; they are finite."""
        some = values[::_STRIDE]
        while len(some):
            taken = some[: len(self._waiting) - self._num_waiting]
            with np.errstate(over="ignore"):  # what float32 cannot hold is out of range anyway
                self._waiting[self._num_waiting :][: len(taken)] = taken
            self._num_waiting += len(taken)
            some = some[len(taken) :]
            if self._num_waiting == len(self._waiting):
                self._count()

    def _count(self) -> None:
        some = self._waiting[: self._num_waiting]
        some = some[(some >= _LOWEST) & (some < _HIGHEST)]
        bins = ((some - _LOWEST) / _BIN_HU).astype(np.int64)
        self._counts += np.bincount(bins, minlength=len(self._counts))
        self._num_waiting = 0

    def intensity(self, value_min: float, value_max: float) -> Intensity:
        """What the voxels are, given their range too.

        A chest has air or lung and soft tissue, 700 to 1100 units apart. The offset under which
        both are well filled is the scale; padding alone fills only one of them.
        """
        if value_min >= -1.5 and value_max <= 1.5:
            return "normalised" if value_max - value_min > 0.1 else "unknown"
        self._count()
        total = int(self._counts.sum())
        if total == 0:
            return "unknown"
        evidence = {
            scale: min(
                self._share(offset, _AIR_AND_LUNG_HU, total),
                self._share(offset, _FAT_AND_SOFT_TISSUE_HU, total),
            )
            for scale, offset in _OFFSETS.items()
        }
        best = max(evidence, key=lambda scale: evidence[scale])
        return best if evidence[best] >= _ENOUGH else "unknown"

    def _share(self, offset: int, window: tuple[int, int], total: int) -> float:
        low, high = ((offset + edge - _LOWEST) // _BIN_HU for edge in window)
        return float(self._counts[low:high].sum()) / total
