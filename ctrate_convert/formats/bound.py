"""Bound the error of each voxel by the spread of the volume's own values.

A step or a type that suits one scale destroys a volume in another: ``--step 10`` turns every voxel
of HU/1000 into 0, and float16 every value around 1e-9. Both errors are within half a step or half a
unit in the last place, but far above 2⁻¹⁰ of the spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]

OF_SPREAD = 2.0**-10
"""The part of the spread that a voxel between the percentiles may lose."""

_MOST_KEPT = 2**18
"""The voxels kept for the percentiles: 2 MiB of float64, with 262 beyond each percentile."""

_TAIL = 0.001
"""The part of the voxels that lies outside the spread on each side."""

_HALF_PRECISION = 2.0**-11
"""Half a unit in the last place of float16: the largest relative error of rounding to it."""

_HALF_SUBNORMAL = 2.0**-25
"""The largest absolute error of rounding values too small for float16's exponent."""

_ARITHMETIC = 2.0**-22
"""The largest relative error of counting steps in float32 beside half a step: four roundings."""

_ARITHMETIC_SUBNORMAL = 2.0**-150
"""The largest error, in steps, if the product is too small for float32's exponent."""


class Spread:
    """The 0.1 and the 99.9 percentile of a volume's finite voxels.

    The percentiles come from at most 2¹⁸ voxels at an even distance, or from all voxels of a
    smaller volume. Which voxels are used depends only on ``num_voxels``, not on the division into
    blocks.
    """

    def __init__(self, num_voxels: int) -> None:
        self._stride = _stride(num_voxels)
        self._skip = 0
        self._kept: list[Values] = []

    def add(self, values: Values) -> None:
        """Keep some of the volume's next ``values`` (1-D); NaN and infinities are not kept."""
        some = values[self._skip :: self._stride]
        self._skip = (self._skip - len(values)) % self._stride
        if len(some):
            self._kept.append(some[np.isfinite(some)])  # a copy, since the caller reuses the block

    def percentiles(self) -> tuple[float, float]:
        """Return the values below and above which a thousandth of the voxels lies.

        At least one voxel lies outside on each side, so that a single outlier has no effect in a
        small volume either. Both values are 0 if no voxel is finite.
        """
        kept = np.concatenate(self._kept) if self._kept else np.empty(0)
        if not len(kept):
            return 0.0, 0.0
        last = len(kept) - 1
        outside = min(math.ceil(_TAIL * last), last // 2)
        kept.partition((outside, last - outside))
        return float(kept[outside]), float(kept[last - outside])


def _stride(num_voxels: int) -> int:
    """Return the smallest odd distance that keeps few enough voxels and is coprime to their number.

    A distance that shares a factor with an axis could meet the same columns in every row. One that
    is coprime to ``num_voxels`` shares no factor with any axis.
    """
    stride = max(1, -(-num_voxels // _MOST_KEPT)) | 1
    while math.gcd(stride, num_voxels) != 1 and stride < num_voxels:
        stride += 2
    return stride


@dataclass(frozen=True)
class ErrorLimit:
    """The largest error that each voxel may have, in the source's unit.

    ``within`` bounds the voxels from ``low`` to ``high``. Outside them, in metal and padding, a
    voxel v may lose ``relative`` · \\|v\\| + ``absolute``.
    """

    low: float
    high: float
    within: float
    relative: float
    absolute: float

    @classmethod
    def of(
        cls,
        low: float,
        high: float,
        target: np.dtype[Any],
        value_scale: float,
        max_error: float | None,
    ) -> ErrorLimit:
        """Return the limit for a volume whose percentiles are ``low`` and ``high``.

        Its voxels are stored as ``target``, and one unit of ``target`` stands for ``value_scale``.
        If ``max_error`` is given, it bounds every voxel instead.
        """
        if max_error is not None:
            return cls(-math.inf, math.inf, max_error, 0.0, max_error)
        # If both percentiles are one value, take its size as the spread: 0.1 may become the nearest
        # float16, but 1e-9 must not become 0.
        within = OF_SPREAD * high - OF_SPREAD * low or OF_SPREAD * abs(low)
        if target.kind == "f":
            return cls(low, high, within, _HALF_PRECISION, _HALF_SUBNORMAL)
        half_a_step = (0.5 + _ARITHMETIC_SUBNORMAL) * value_scale
        return cls(low, high, within, _ARITHMETIC, half_a_step)

    def holds_everywhere(self, max_abs_error: float) -> bool:
        """Return True if the volume's largest error is too small to break any voxel's bound.

        If the result is False, all voxels may still be within bounds: those outside the percentiles
        may lose more than those within.
        """
        return max_abs_error <= self.within

    def excess(self, values: Values, errors: Values) -> float:
        """Return the largest of ``errors`` that breaks the bound of its value; 0.0 if none does.

        Both arrays are 1-D. ``values`` are the source's, ``errors`` have at least double precision.
        Errors of NaN and infinite values do not count.
        """
        exact = values.astype(errors.dtype, copy=False)
        inside = (exact >= self.low) & (exact <= self.high)
        with np.errstate(invalid="ignore"):  # 0 times infinity
            bounds = np.where(inside, self.within, self.relative * np.abs(exact) + self.absolute)
        # Not errors > bounds, which would pass an error that is NaN.
        broken = errors[~(errors <= bounds) & np.isfinite(exact)]
        return float(np.nan_to_num(broken, nan=np.inf, posinf=np.inf).max(initial=0.0))
