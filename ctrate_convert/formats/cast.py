"""Cast a volume to the array type of the shard and measure the error of every voxel."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.bound import Spread
from ctrate_convert.formats.halves import halve, widen
from ctrate_convert.formats.hounsfield import IntensityHistogram
from ctrate_convert.formats.measured import Measured
from ctrate_convert.store.records.plan import ArrayHeader

Values = NDArray[Any]

BLOCK_VOXELS = 2**17
"""Few enough that source, result and difference stay in the second-level cache."""

_SINGLE_PRECISION = 2.0**-24
"""Half a unit in the last place of float32, relative."""

_DOUBLE_PRECISION = 2.0**-53
"""Half a unit in the last place of float64, relative."""

_SINGLE_SUBNORMAL = 2.0**-150
"""The largest absolute error of rounding values too small for float32's exponent."""

_LEAST_STEP = 2.0**-100
"""For steps from this value to its reciprocal, float32 holds 1 / step in full precision."""


class Int16Overflow(SampleError):
    """An error for an integer volume with values that int16 cannot hold."""


@lru_cache
def output_dtype(source_dtype: str, setting: str) -> str:
    """Return the array type in the shard, ``int16`` or ``float16``, for ``--dtype setting``.

    With ``auto``, integers stay integers and floats become float16, as in the original script.

    Raises:
        SampleError: ``source_dtype`` is not a number type that volumes come in.
    """
    dtype = np.dtype(source_dtype)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise SampleError("unsupported array type", seen=dtype.name, expected="int or float")
    if setting != "auto":
        return setting
    return "float16" if dtype.kind == "f" else "int16"


def stored_dtype(header: ArrayHeader, setting: str) -> str:
    """Return the array type in the shard: that of a view as it is, else as `output_dtype` says.

    Raises:
        SampleError: the source's type is not a number type that volumes come in.
    """
    return np.dtype(header.dtype).name if header.view else output_dtype(header.dtype, setting)


class Caster:
    """A block-by-block cast of one volume that measures errors, range and intensity."""

    def __init__(
        self,
        source: np.dtype[Any],
        target: np.dtype[Any],
        step: float | None = None,
        *,
        num_voxels: int,
        scaling: tuple[float, float] = (1.0, 0.0),
    ) -> None:
        """Prepare the cast of a volume of ``num_voxels`` voxels.

        ``step`` is the value of one unit of an integer target if the source is float. ``scaling``
        is what the source's header asks for; only the voxels' intensity is told after it.
        """
        self._step = step
        self.value_scale = step if step and source.kind == "f" and target.kind == "i" else 1.0
        self._histogram = IntensityHistogram(scaling)
        self._source = source.newbyteorder("=")
        self._target = target
        self._limits = np.iinfo(target if target.kind == "i" else np.int16)
        self._exact = self._source == target
        self._spread = Spread(num_voxels)
        self._may_lose = not self._exact and (source.kind == "f" or target.kind == "f")
        small = self._source.kind in "biu" and self._source.itemsize <= 2
        self._halves = target == np.float16 and (small or self._source == np.float32)
        self._counts = (
            self._source == np.float32
            and target == np.int16
            and _LEAST_STEP <= self.value_scale <= 1 / _LEAST_STEP
        )
        self._result = np.empty(BLOCK_VOXELS, target)
        self._back = np.empty(BLOCK_VOXELS, np.float32)
        self._singles = np.empty(BLOCK_VOXELS, np.float32)
        self._error = 0.0
        self._min = np.inf
        self._max = -np.inf
        self._nan = self._infinite = self._new_infinite = 0

    def cast(self, values: Values) -> Values:
        """Return ``values`` (1-D, at most `BLOCK_VOXELS`) in the target type.

        The result is valid until the next call.

        Raises:
            Int16Overflow: an integer does not fit int16.
            SampleError: a float does not fit int16.
        """
        if values.dtype != self._source:
            values = values.astype(self._source)  # the source has the other byte order
        if self._may_lose:
            self._spread.add(values)
        return self._cast(values)

    def _cast(self, values: Values) -> Values:
        low, high = float(values.min()), float(values.max())
        # The smallest or the largest value shows NaN and infinities without another pass.
        if not (np.isfinite(low) and np.isfinite(high)):
            return self._cast_with_gaps(values)
        self._min, self._max = min(self._min, low), max(self._max, high)
        self._histogram.add(values)
        if self._exact:
            return values
        result = self._result[: len(values)]
        if self._target.kind == "i":
            self._round_to_integers(values, result, low, high)
        elif self._halves:
            self._halve(self._as_singles(values), result)
        else:
            with np.errstate(over="ignore"):
                result[...] = values
            self._note_error(values, result)
        return result

    def _as_singles(self, values: Values) -> Values:
        """Return the values as float32, which holds every two-byte integer exactly."""
        if values.dtype == np.float32:
            return values
        singles = self._singles[: len(values)]
        np.copyto(singles, values)
        return singles

    def _halve(self, values: Values, result: Values) -> None:
        back = self._back[: len(values)]
        halve(values, result)
        widen(result, back)
        np.subtract(values, back, out=back)
        low, high = float(back.min()), float(back.max())
        # A value too large for float16 became infinite: such errors are counted apart.
        if np.isinf(low) or np.isinf(high):
            self._note_error(values, result)
        else:
            self._error = max(self._error, -low, high)

    def _round_to_integers(self, values: Values, result: Values, low: float, high: float) -> None:
        if self._counts:
            return self._count_steps(values, result, low, high)
        scale = self.value_scale
        self._require_room(low, high, np.rint(low / scale), np.rint(high / scale))
        if self._source.kind != "f":
            result[...] = values
        else:
            # Double precision, since the error is a difference of nearly equal numbers.
            steps = np.rint(values.astype(np.float64) / scale)
            result[...] = steps
            error = float(np.abs(values - steps * scale).max())
            if not _is_power_of_two(scale):
                # Product and difference are rounded; the product is at most twice the value.
                error += 4 * _DOUBLE_PRECISION * max(-low, high)
            self._error = max(self._error, error)
        return None

    def _require_room(self, low: float, high: float, first: float, last: float) -> None:
        """Raise if ``first`` or ``last``, the outermost integers of the result, do not fit."""
        if first < self._limits.min or last > self._limits.max:
            kind = SampleError if self._source.kind == "f" else Int16Overflow
            raise kind(
                f"values do not fit {self._target.name}",
                seen=f"{low:g}…{high:g}",
                expected=f"{self._limits.min}…{self._limits.max}",
            )

    def _count_steps(self, values: Values, result: Values, low: float, high: float) -> None:
        """Round float32 to int16 in single precision, four times as fast as in double precision.

        The recorded error is never smaller than the true error.
        """
        product, whole = self._back[: len(values)], self._singles[: len(values)]
        a_step = np.float32(1 / self.value_scale)
        with np.errstate(over="ignore"):
            ends = np.array([low, high], np.float32) * a_step
        # Multiplying and rounding keep order: if both ends fit, all values fit.
        self._require_room(low, high, *np.rint(ends))
        np.multiply(values, a_step, out=product)
        np.rint(product, out=whole)
        np.copyto(result, whole, casting="unsafe")  # exact: integers that fit
        np.subtract(product, whole, out=product)
        rest = max(-float(product.min()), float(product.max()))
        error = rest * self.value_scale + self._lost_in_product(max(-low, high))
        self._error = max(self._error, error)

    def _lost_in_product(self, largest: float) -> float:
        """Return the largest part of the true error that the remainder does not show.

        The remainder is the product minus its nearest integer. This subtraction is exact: the
        integer is 0 or within a factor of two of the product. So only 1 / step and the product are
        rounded. With u = 2⁻²⁴, each of the two roundings costs at most u / (1 + u) of the value,
        together less than 2u - u². The difference to 2u is more than all arithmetic in double
        precision loses. A product too small for float32's exponent costs half the smallest float32.
        If the step is a power of two, neither is rounded. ``largest`` is the largest absolute
        value.
        """
        step = self.value_scale
        if step <= 1 and _is_power_of_two(step):
            return 0.0
        return 2 * _SINGLE_PRECISION * largest + _SINGLE_SUBNORMAL * step

    def _note_error(self, values: Values, result: Values) -> None:
        infinite = np.isinf(result)
        self._new_infinite += int(np.count_nonzero(infinite))
        # A float64 does not hold every 64-bit integer.
        exact = np.longdouble if self._source.itemsize == 8 else np.float64
        difference = np.abs(values.astype(exact) - result.astype(exact))
        self._error = max(self._error, float(difference[~infinite].max(initial=0.0)))

    def _cast_with_gaps(self, values: Values) -> Values:
        """Cast a block with NaN or infinities: count these, measure the finite values."""
        finite = np.isfinite(values)
        nan = np.isnan(values)
        self._nan += int(np.count_nonzero(nan))
        self._infinite += int(np.count_nonzero(~finite & ~nan))
        if self._target.kind == "i":
            raise SampleError("NaN or infinite voxels do not fit an integer type")
        if finite.any():
            # Only for what it measures; the whole block is cast below.
            self._cast(values[finite])
        with np.errstate(over="ignore"):
            return values.astype(self._target)

    def measured(self) -> Measured:
        """Return the measurements of all blocks so far."""
        empty = self._min > self._max
        low, high = self._spread.percentiles()
        return Measured(
            max_abs_error=self._error,
            value_min=0.0 if empty else self._min,
            value_max=0.0 if empty else self._max,
            nan_count=self._nan,
            infinite_count=self._infinite,
            new_infinite_count=self._new_infinite,
            intensity=self._histogram.intensity(self._min, self._max),
            target=self._target,
            value_scale=self.value_scale,
            low=low,
            high=high,
            flattened=self._flattens(),
        )

    def _flattens(self) -> bool:
        """Return True if the cast turns all values into one although they differ.

        Rounding keeps order, so it is enough to cast the smallest and the largest value.
        """
        # Without an error no two values have become one.
        if self._error == 0.0 or not self._min < self._max:
            return False
        ends = np.array([self._min, self._max], self._source)
        again = Caster(self._source, self._target, self._step, num_voxels=len(ends))
        first, last = again.cast(ends)
        return bool(first == last)


def _is_power_of_two(number: float) -> bool:
    return math.frexp(number)[0] == 0.5
