"""Detect from the voxels if a volume is in Hounsfield units.

The intercept in CT-RATE's metadata table does not tell. The first release stores raw values, which
still need the table's intercept of -1024 or -8192. The corrected release stores Hounsfield units
but has the same intercepts, and adding them again turns the body into air. Float volumes may hold
HU/1000, clipped, or unclipped with metal or padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.geometry import number_in
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


NOT_SCALED = (1.0, 0.0)
"""The slope and intercept of a header that asks for no scaling."""


@dataclass(frozen=True)
class ToHounsfield:
    """How an element of the stored array becomes Hounsfield units: times slope, plus intercept.

    ``evidence`` names what tells so. If nothing does, it is empty and both numbers are 0.
    """

    slope: float = 0.0
    intercept: float = 0.0
    evidence: str = ""


NOT_KNOWN = ToHounsfield()


def to_hounsfield(
    shown: Intensity,
    scaling: tuple[float, float],
    value_scale: float,
    metadata: Mapping[str, str],
) -> ToHounsfield:
    """Return how elements that are to be multiplied by ``value_scale`` become Hounsfield units.

    ``shown`` is the scale of the voxels after the header's ``scaling``. Raw values take the table's
    slope and intercept if the voxels show that intercept; else the voxels' own, and no slope.
    """
    slope, intercept = scaling
    header = "" if scaling == NOT_SCALED else "the file's slope and intercept"
    if shown == "unknown" and not header:
        return NOT_KNOWN
    factor, offset, evidence = 1.0, 0.0, "the voxels" if shown != "unknown" else ""
    if shown == "normalised":
        factor = 1000.0
    elif shown in INTERCEPT_APPLIES:
        offset = INTERCEPT_APPLIES[shown]
        if number_in(metadata, "RescaleIntercept") == offset:
            factor = number_in(metadata, "RescaleSlope") or 1.0
            evidence += " and the table's RescaleSlope and RescaleIntercept"
    return ToHounsfield(
        slope=factor * slope * value_scale,
        intercept=factor * intercept + offset,
        evidence=", ".join(filter(None, (header, evidence))),
    )


def without_scaling(shown: Intensity, scaling: tuple[float, float]) -> Intensity:
    """Return the scale of a source's own elements, if ``shown`` is theirs after ``scaling``."""
    if scaling == NOT_SCALED:
        return shown
    slope, intercept = scaling
    for raw, offset in INTERCEPT_APPLIES.items():
        if shown == "hu" and (slope, intercept) == (1.0, offset):
            return raw
    return "unknown"


class IntensityHistogram:
    """A coarse histogram of a part of a volume's voxels, filled block by block.

    ``scaling`` is the slope and the intercept that turn the given values into those to count.
    """

    def __init__(self, scaling: tuple[float, float] = NOT_SCALED) -> None:
        self._scaling = scaling
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
                self._waiting[self._num_waiting :][: len(taken)] = self._scaled(taken)
            self._num_waiting += len(taken)
            some = some[len(taken) :]
            if self._num_waiting == len(self._waiting):
                self._count()

    def _scaled(self, values: NDArray[Any]) -> NDArray[Any]:
        if self._scaling == NOT_SCALED:
            return values
        slope, intercept = self._scaling
        return values * np.float64(slope) + intercept

    def _count(self) -> None:
        some = self._waiting[: self._num_waiting]
        _count_into(self._counts, some)
        # Integers cannot hold HU/1000.
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
        with np.errstate(over="ignore"):
            ends = self._scaled(np.array([value_min, value_max], np.float64))
        if ends.min() >= -1.5 and ends.max() <= 1.5:
            return "normalised" if self._floats and np.ptp(ends) > 0.1 else "unknown"
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
