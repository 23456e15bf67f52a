"""Check that a volume lost no more in the cast than its error bound allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.bound import ErrorLimit
from ctrate_convert.store.records.record import Intensity


@dataclass(frozen=True)
class Measured:
    """The measurements of a cast: error and range over all finite voxels, in the source's unit.

    ``low`` and ``high`` are the percentiles of `Spread`. ``flattened`` is True if all finite voxels
    became one value although they differ.
    """

    max_abs_error: float
    value_min: float
    value_max: float
    nan_count: int
    infinite_count: int
    new_infinite_count: int
    intensity: Intensity
    target: np.dtype[Any]
    value_scale: float = 1.0
    low: float = 0.0
    high: float = 0.0
    flattened: bool = False

    def check(self, max_error: float | None, excess: Callable[[ErrorLimit], float]) -> None:
        """Raise if the cast degraded the volume.

        The bound is an `ErrorLimit`. If the largest error alone does not settle the question,
        ``excess`` checks the error of each voxel and returns the largest one that breaks its bound.

        Raises:
            SampleError: NaN, new infinities, a constant result, or an error past the bound.
        """
        self._check_finite()
        if self.flattened:
            raise SampleError(
                "precision loss past the bound, all voxels become one value",
                seen=f"values from {self.value_min} to {self.value_max}",
                expected=f"values that stay apart; give {self._finer()}",
            )
        limit = ErrorLimit.of(self.low, self.high, self.target, self.value_scale, max_error)
        if limit.holds_everywhere(self.max_abs_error):
            return
        lost = excess(limit)
        if lost > 0.0:
            bound = f"≤ {limit.within:.6g}"
            reason = "(--max_error)" if max_error is not None else self._spread_and_advice(lost)
            raise SampleError(
                "precision loss past the bound",
                seen=f"{lost:.6g}",
                expected=f"{bound} {reason}",
            )

    def _spread_and_advice(self, lost: float) -> str:
        accepted = _rounded_up(max(lost, self.max_abs_error))
        return (
            f"(2⁻¹⁰ of the spread of its values, {self.low:.6g} to {self.high:.6g}); "
            f"give --max_error {accepted} to accept it, or {self._finer()}"
        )

    def _check_finite(self) -> None:
        if self.nan_count:
            raise SampleError("volume has NaN voxels", seen=self.nan_count, expected=0)
        if self.new_infinite_count:
            raise SampleError(
                "values too large for the output type become infinite",
                seen=f"{self.new_infinite_count} voxels, range {self.value_min}…{self.value_max}",
                expected="within ±65504 for float16",
            )

    def _finer(self) -> str:
        """Return the option that makes the stored type finer."""
        if self.target.kind == "i":
            return "a finer --step"
        return "--dtype int16 (floats: with a --step) in another --output_dir"


def _rounded_up(number: float) -> str:
    """Return ``number`` (above 0) as text of three digits, rounded up."""
    text = f"{number:.3g}"
    if float(text) < number:
        text = f"{number + 10.0 ** (math.floor(math.log10(number)) - 2):.3g}"
    return text
