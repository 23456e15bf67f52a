"""Where a view's voxels lie among those of its volume, along one axis at a time.

Sizes and places are computed in double precision: single precision would move voxels by up to 0.06
HU, and some sizes by a voxel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.store.records.recipe import Coordinates, SizeRule


@dataclass(frozen=True)
class Taps:
    """Which two voxels of an axis make each voxel of the view, and how.

    ``one`` and ``other``: intp, neighbours or the same voxel; ``weight``: float32, 0 to 1. A voxel
    of the view is ``values[one] + weight·(values[other] - values[one])``.
    """

    one: NDArray[np.intp]
    other: NDArray[np.intp]
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.one)

    @property
    def needed(self) -> slice:
        """The voxels of the source that are needed, from the first to the last."""
        low = min(int(self.one.min()), int(self.other.min()))
        high = max(int(self.one.max()), int(self.other.max()))
        return slice(low, high + 1)

    def after(self, start: int) -> Taps:
        """Return the taps of a source whose first ``start`` voxels are left out."""
        return Taps(self.one - start, self.other - start, self.weight)


@dataclass(frozen=True)
class Axis:
    """An axis of ``voxels`` voxels that is resampled to ``resampled`` voxels, then cut or padded.

    The view has ``size`` of them, from number ``origin`` on; where that is negative, or beyond the
    last one, stands padding. Neighbours of the resampled axis are ``step`` voxels of the source
    apart. They are counted from the axis' end if it is ``flipped``.
    """

    voxels: int
    resampled: int
    size: int
    origin: int
    step: float
    coordinates: Coordinates
    flipped: bool

    def inside(self, part: slice) -> slice:
        """Return the voxels of the view's ``part`` that are no padding; they may be none."""
        start = max(part.start, -self.origin)
        return slice(start, max(start, min(part.stop, self.resampled - self.origin)))

    def taps(self, part: slice) -> Taps:
        """Return the taps of the view's voxels ``part``, none of which is padding.

        The arithmetic is that of ``compute_source_index_and_lambda`` and
        ``area_pixel_compute_source_index`` in torch's ``aten/src/ATen/native/UpSample.h``.
        """
        number = np.arange(part.start + self.origin, part.stop + self.origin, dtype=np.float64)
        if self.coordinates == "half_pixel":
            place = self.step * (number + 0.5) - 0.5
        elif self.coordinates == "center":
            place = self.step * (number - 0.5 * (self.resampled - 1)) + 0.5 * (self.voxels - 1)
        else:
            place = self.step * number
        place = np.minimum(np.maximum(place, 0.0), self.voxels - 1.0)
        one = place.astype(np.intp)
        weight = (place - one).astype(np.float32)
        other = np.minimum(one + 1, self.voxels - 1)
        if self.flipped:
            last = self.voxels - 1
            one, other = last - one, last - other
        return Taps(one, other, weight)

    @property
    def to_source(self) -> tuple[float, float]:
        """The factor and the addend that turn a view's index into one of the source."""
        shift = 0.0
        if self.coordinates == "half_pixel":
            shift = 0.5 * self.step - 0.5
        elif self.coordinates == "center":
            shift = 0.5 * (self.voxels - 1) - 0.5 * (self.resampled - 1) * self.step
        first = self.step * self.origin + shift
        return (-self.step, self.voxels - 1 - first) if self.flipped else (self.step, first)


def resampled_voxels(rule: SizeRule, voxels: int, spacing_mm: float, target_mm: float) -> int:
    """Return how many voxels an axis has after it was resampled; 0 is possible."""
    if rule == "int(n*(c/t))":
        return int(voxels * (spacing_mm / target_mm))
    if rule == "int(n*c/t)":
        return int(voxels * spacing_mm / target_mm)
    if rule == "round(n*c/t)":
        return round(voxels * spacing_mm / target_mm)
    return round((voxels - 1) * spacing_mm / target_mm + 1)


def centred(resampled: int, size: int, odd_voxel: Literal["before", "after"]) -> int:
    """Return the first voxel of a part of ``size`` in the middle; negative where it is larger.

    An odd voxel is cut, or padded, after the middle or before it.
    """
    surplus = resampled - size
    fewer = abs(surplus) // 2
    before = fewer if odd_voxel == "after" else abs(surplus) - fewer
    return before if surplus > 0 else -before
