"""Detect from the voxels if a volume is in Hounsfield units.

The intercept in CT-RATE's metadata table does not tell. The first release stores raw values, which
still need the table's intercept of -1024 or -8192. The corrected release stores Hounsfield units
but has the same intercepts, and adding them again turns the body into air. Float volumes may hold
HU/1000, clipped, or unclipped with metal or padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.store.records.record import Intensity

INTERCEPT_APPLIES: dict[Intensity, float] = {"raw-1024": -1024.0, "raw-8192": -8192.0}
"""The intercept to add to voxels of a scale."""

_OFFSETS: dict[Intensity, int] = {"hu": 0, "raw-1024": 1024, "raw-8192": 8192}
_AIR_AND_LUNG_HU = (-1060, -700)
_BETWEEN_HU = (-700, -150)
_FAT_AND_SOFT_TISSUE_HU = (-150, 150)
_ENOUGH = 0.005

_MOSTLY = 0.9
"""The smallest part of HU/1000 voxels that lies within ten thousand units when multiplied by 1000.

Of float volumes in HU, a smaller part lies within ten units.
"""

_DIP = 0.5
"""The limit for voxels per unit between lung and fat, relative to soft tissue.

Real chests have about a tenth. Noise around 0 has more than this limit.
"""

_BIN_HU = 10
_LOWEST, _HIGHEST = -10_000, 12_000

_STRIDE = 251
"""One voxel in so many is counted; prime, so that no row or plane length hides tissue."""

_COUNTED_AT_ONCE = 2**16


class IntensityHistogram:
    """A coarse histogram of a part of a volume's voxels, filled block by block."""

    def __init__(self) -> None:
        self._counts = np.zeros((_HIGHEST - _LOWEST) // _BIN_HU, np.int64)
        self._of_thousandfold = np.zeros_like(self._counts)
        self._num_counted = 0
        self._floats = False
        self._waiting = np.empty(_COUNTED_AT_ONCE, np.float32)
        self._num_waiting = 0

    def add(self, values: NDArray[Any]) -> None:
        """Count a part of ``values``, which must be finite."""
        self._floats = values.dtype.kind == "f"  # all blocks of a volume have the same type
        some = values[::_STRIDE]
        while len(some):
            taken = some[: len(self._waiting) - self._num_waiting]
            with np.errstate(over="ignore"):  # values too large for float32 are out of range anyway
                self._waiting[self._num_waiting :][: len(taken)] = taken
            self._num_waiting += len(taken)
            some = some[len(taken) :]
            if self._num_waiting == len(self._waiting):
                self._count()

    def _count(self) -> None:
        some = self._waiting[: self._num_waiting]
        _count_into(self._counts, some)
        if self._floats:
            with np.errstate(over="ignore"):
                _count_into(self._of_thousandfold, some * np.float32(1000))
        self._num_counted += self._num_waiting
        self._num_waiting = 0

    def intensity(self, value_min: float, value_max: float) -> Intensity:
        """Return the intensity scale of the voxels, from the histogram and their range.

        A chest has air or lung, and soft tissue, 700 to 1100 units apart. The scale is the offset
        for which both windows are well filled; padding alone fills only one of them. Float volumes
        within ±1.5 are HU/1000 whatever the histogram shows, for no other scale has so small a
        range.
        """
        if value_min >= -1.5 and value_max <= 1.5:
            return "normalised" if self._floats and value_max - value_min > 0.1 else "unknown"
        self._count()
        evidence: dict[Intensity, float] = {
            scale: _evidence(self._counts, int(self._counts.sum()), offset)
            for scale, offset in _OFFSETS.items()
        }
        if self._is_thousandth_of_chest():
            evidence["normalised"] = _evidence(self._of_thousandfold, self._num_counted, 0)
        best = max(evidence, key=lambda scale: evidence[scale])
        return best if evidence[best] >= _ENOUGH else "unknown"

    def _is_thousandth_of_chest(self) -> bool:
        counts = self._of_thousandfold
        between = _counted(counts, _BETWEEN_HU) / _width(_BETWEEN_HU)
        soft_tissue = _counted(counts, _FAT_AND_SOFT_TISSUE_HU) / _width(_FAT_AND_SOFT_TISSUE_HU)
        mostly_inside = counts.sum() >= _MOSTLY * self._num_counted
        return bool(mostly_inside and between < _DIP * soft_tissue)


def _count_into(counts: NDArray[np.int64], values: NDArray[np.float32]) -> None:
    inside = values[(values >= _LOWEST) & (values < _HIGHEST)]
    bins = ((inside - _LOWEST) / _BIN_HU).astype(np.int64)
    counts += np.bincount(bins, minlength=len(counts))


def _evidence(counts: NDArray[np.int64], total: int, offset: int) -> float:
    """Return the smaller share of ``total`` that lies in one of the two windows."""
    windows = (_AIR_AND_LUNG_HU, _FAT_AND_SOFT_TISSUE_HU)
    return min(_counted(counts, window, offset) for window in windows) / max(1, total)


def _counted(counts: NDArray[np.int64], window: tuple[int, int], offset: int = 0) -> int:
    low, high = ((offset + edge - _LOWEST) // _BIN_HU for edge in window)
    return int(counts[low:high].sum())


def _width(window: tuple[int, int]) -> int:
    return window[1] - window[0]
