"""How large a voxel's error may be: measured against the spread of the volume's own values.

A step or a type that suits one scale destroys a volume in another: ``--step 10`` turns every voxel
of HU/1000 into 0, and float16 every value around 1e-9. Half a step and half a unit in the last
place allow both; the spread of the values allows neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]

OF_SPREAD = 2.0**-10
"""The share of the spread that a voxel within it may lose."""

_MOST_KEPT = 2**18
"""Voxels kept for the percentiles: 2 MiB of float64, and 262 of them beyond each percentile."""

_TAIL = 0.001
"""The part of the voxels that lies outside the spread on each side."""

_HALF_PRECISION = 2.0**-11
"""Half a unit in the last place of float16, relative: the most that rounding to it can cost."""

_HALF_SUBNORMAL = 2.0**-25
"""What rounding costs where values are too small for float16's exponent, absolute."""

_ARITHMETIC = 2.0**-22
"""What counting steps in float32 may cost beside half a step, relative: four roundings."""

_ARITHMETIC_SUBNORMAL = 2.0**-150
"""The part of a step that it may cost where the product is too small for float32's exponent."""


class Spread:
    """The 0.1 and the 99.9 percentile of a volume's finite voxels, from a part of them.

    Voxels at an even distance are kept, at most 2¹⁸; all of a volume that has no more. Which ones
    follows from ``num_voxels`` alone, however the volume is cut into blocks.
    """

    def __init__(self, num_voxels: int) -> None:
        self._stride = _stride(num_voxels)
        self._skip = 0
        self._kept: list[Values] = []

    def add(self, values: Values) -> None:
        """Keep some of ``values``, the volume's next ones, 1-D; NaN and infinities are not kept."""
        some = values[self._skip :: self._stride]
        self._skip = (self._skip - len(values)) % self._stride
        if len(some):
            self._kept.append(some[np.isfinite(some)])  # a copy

    def percentiles(self) -> tuple[float, float]:
        """Return the value below and the value above which a thousandth of the voxels lies.

        At least one voxel lies outside on each side, so that an outlier does not count in a small
        volume either. Both are 0 where no voxel is finite.
        """
        kept = np.concatenate(self._kept) if self._kept else np.empty(0)
        if not len(kept):
            return 0.0, 0.0
        last = len(kept) - 1
        outside = min(math.ceil(_TAIL * last), last // 2)
        kept.partition((outside, last - outside))
        return float(kept[outside]), float(kept[last - outside])


def _stride(num_voxels: int) -> int:
    """Return the least odd distance that keeps few enough, and that is no multiple of an axis.

    Having no factor in common with ``num_voxels`` it has none with an axis: else it could meet the
    same columns of every row.
    """
    stride = max(1, -(-num_voxels // _MOST_KEPT)) | 1
    while math.gcd(stride, num_voxels) != 1 and stride < num_voxels:
        stride += 2
    return stride


@dataclass(frozen=True)
class ErrorLimit:
    """The largest error that each voxel may have, in the source's unit.

    ``within`` bounds the voxels from ``low`` to ``high``. Outside them, where metal and padding
    lie, a voxel v may lose ``relative`` · \\|v\\| + ``absolute``.
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
        """Return the limit of a volume whose percentiles are ``low`` and ``high``.

        Its voxels are stored as ``target``, one unit of which stands for ``value_scale``. A
        ``max_error`` bounds every voxel in place of all this.
        """
        if max_error is not None:
            return cls(-math.inf, math.inf, max_error, 0.0, max_error)
        # Of one value, its own size: 0.1 may become the nearest float16, 1e-9 must not become 0.
        within = OF_SPREAD * high - OF_SPREAD * low or OF_SPREAD * abs(low)
        if target.kind == "f":
            return cls(low, high, within, _HALF_PRECISION, _HALF_SUBNORMAL)
        half_a_step = (0.5 + _ARITHMETIC_SUBNORMAL) * value_scale
        return cls(low, high, within, _ARITHMETIC, half_a_step)

    def holds_everywhere(self, max_abs_error: float) -> bool:
        """Return True if no voxel can break its bound, as the volume's largest error is so small.

        False does not say that one does: only voxels outside may lose more than those within.
        """
        return max_abs_error <= self.within

    def excess(self, values: Values, errors: Values) -> float:
        """Return the largest of ``errors`` that breaks the bound of its value; 0.0 if none does.

        Both are 1-D; ``values`` are the source's, ``errors`` at least in double precision. Those of
        NaN and infinities do not count.
        """
        exact = values.astype(errors.dtype, copy=False)
        inside = (exact >= self.low) & (exact <= self.high)
        with np.errstate(invalid="ignore"):  # 0 times infinity
            bounds = np.where(inside, self.within, self.relative * np.abs(exact) + self.absolute)
        broken = errors[~(errors <= bounds) & np.isfinite(exact)]
        return float(np.nan_to_num(broken, nan=np.inf, posinf=np.inf).max(initial=0.0))
