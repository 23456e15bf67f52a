"""Are a volume's voxels Hounsfield units? The voxels tell; the table's intercept may not.

CT-RATE's first release stores raw values, to which the table's intercept of -1024 or -8192 still
applies; its corrected release stores Hounsfield units under the same intercepts. Applying them
twice turns the body into air. Floats may be HU/1000, clipped or, with metal or padding, not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.store.records.record import Intensity

INTERCEPT_APPLIES: dict[Intensity, float] = {"raw-1024": -1024.0, "raw-8192": -8192.0}
"""The intercept that still has to be added to voxels of that scale."""

_OFFSETS: dict[Intensity, int] = {"hu": 0, "raw-1024": 1024, "raw-8192": 8192}
_AIR_AND_LUNG_HU = (-1060, -700)
_BETWEEN_HU = (-700, -150)
_FAT_AND_SOFT_TISSUE_HU = (-150, 150)
_ENOUGH = 0.005

_MOSTLY = 0.9
"""Of HU/1000 at least this part lies within ten thousand units; of HU that are floats, less does
within ten."""

_DIP = 0.5
"""Between lung and fat a chest has fewer voxels to a unit than this part of soft tissue's: about
a tenth, as real ones show. Noise around 0 has more."""

_BIN_HU = 10
_LOWEST, _HIGHEST = -10_000, 12_000

_STRIDE = 251
"""One voxel in so many is counted: prime, so that no row or plane length hides tissue."""

_COUNTED_AT_ONCE = 2**16


class IntensityHistogram:
    """A coarse histogram of some of a volume's voxels, filled block by block."""

    def __init__(self) -> None:
        self._counts = np.zeros((_HIGHEST - _LOWEST) // _BIN_HU, np.int64)
        self._of_thousandfold = np.zeros_like(self._counts)
        self._num_counted = 0
        self._floats = False
        self._waiting = np.empty(_COUNTED_AT_ONCE, np.float32)
        self._num_waiting = 0

    def add(self, values: NDArray[Any]) -> None:
        """Count some of ``values``; they are finite."""
        self._floats = values.dtype.kind == "f"  # all blocks of a volume have one type
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
        _count_into(self._counts, some)
        if self._floats:
            with np.errstate(over="ignore"):
                _count_into(self._of_thousandfold, some * np.float32(1000))
        self._num_counted += self._num_waiting
        self._num_waiting = 0

    def intensity(self, value_min: float, value_max: float) -> Intensity:
        """Return the scale of the voxels, from the histogram and their range.

        A chest has air or lung and soft tissue, 700 to 1100 units apart. The offset under which
        both are well filled is the scale; padding alone fills only one of them. Floats within
        ±1.5 are HU/1000 whatever they show, for nothing else has so small a range.
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
    """Return how full both windows are, of ``total``: the emptier one's share."""
    windows = (_AIR_AND_LUNG_HU, _FAT_AND_SOFT_TISSUE_HU)
    return min(_counted(counts, window, offset) for window in windows) / max(1, total)


def _counted(counts: NDArray[np.int64], window: tuple[int, int], offset: int = 0) -> int:
    low, high = ((offset + edge - _LOWEST) // _BIN_HU for edge in window)
    return int(counts[low:high].sum())


def _width(window: tuple[int, int]) -> int:
    return window[1] - window[0]
