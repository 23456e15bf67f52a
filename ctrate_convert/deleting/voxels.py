"""Compare two volumes box by box: integers must be equal, floats within the sample's bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.bound import ErrorLimit, Spread
from ctrate_convert.formats.halves import widen
from ctrate_convert.formats.tiling import Box
from ctrate_convert.reading.index import ArrayMember

Values = NDArray[Any]

Pairs = Iterator[tuple[Box, Values, Values]]
"""A box, the source's elements in it and the shard's elements in it; valid until the next."""

_SINGLE_PRECISION = 2.0**-24
"""Half a unit in the last place of float32, relative."""

_WORST_SHARE = 2.0**-3
"""The largest share of the spread that an accepted error may reach: above it, volumes differ."""


class Integers:
    """A comparison of integers with integers: they must be equal."""

    max_abs_error = 0.0

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._unequal = 0
        self._first = ""

    def take(self, box: Box, theirs: Values, ours: Values) -> None:
        """Compare one box."""
        if np.array_equal(theirs, ours):
            return
        places = np.flatnonzero(theirs != ours)
        if not self._unequal:
            at = int(places[0])
            self._first = f"source {theirs[at]}, shard {ours[at]} in {_words(box)}"
            self.max_abs_error = math.inf
        self._unequal += len(places)

    def mean_abs_error(self) -> float:
        """Return the mean error of all voxels."""
        return math.nan if self._unequal else 0.0

    def differences(self) -> Iterator[str]:
        """Yield a sentence on what differs, if anything does."""
        if self._unequal:
            yield (
                f"{self._unequal:,} of {math.prod(self._shape):,} voxels differ from the shard's, "
                f"the first: {self._first}"
            )


class Floats:
    """A comparison with floats on one side at least: each voxel must be within its bound."""

    def __init__(
        self,
        source: np.dtype[Any],
        array: ArrayMember,
        *,
        max_error: float | None,
        again: Callable[[], Pairs],
        exact: bool,
    ) -> None:
        """Prepare; ``again`` yields all boxes once more, in case that one pass does not decide."""
        self.max_abs_error = 0.0
        self._max_error = max_error
        self._again = again
        self._target = np.dtype(array.dtype)
        self._scale = array.value_scale
        self._voxels = math.prod(array.shape)
        self._exactly: type[np.floating[Any]]
        # Double precision cannot hold every 64-bit integer, nor the difference of two doubles.
        self._exactly = np.longdouble if source.itemsize == 8 else np.float64
        # float32 holds integers of up to 16 bits exactly, and every float16.
        small = source.kind in "biu" and source.itemsize <= 2
        self._fast = not exact and (small or (source.kind == "f" and source.itemsize <= 4))
        self._exact = exact
        self._spread = Spread(self._voxels)
        self._buffer: Values = np.empty(0, np.float32)
        self._sum = 0.0
        self._misplaced = 0
        self._first_source: Any = None
        self._first_shard: Any = None
        self._source_varies = self._shard_varies = False

    def take(self, box: Box, theirs: Values, ours: Values) -> None:
        """Compare one box."""
        self._spread.add(theirs)
        self._note_variation(theirs, ours)
        errors = self._errors_in_singles(theirs, ours) if self._fast else None
        if errors is None:
            errors, finite = self._errors_exactly(theirs, ours)
            errors = errors[finite]
        if len(errors):
            # The fast path leaves signed differences: taking the extremes spares a pass for the
            # absolutes.
            self.max_abs_error = max(self.max_abs_error, float(errors.max()), -float(errors.min()))
            if self._exact:
                self._sum += float(errors.sum())

    def _note_variation(self, theirs: Values, ours: Values) -> None:
        if self._first_source is None:
            self._first_source, self._first_shard = theirs[0], ours[0]
        if not self._source_varies:
            self._source_varies = bool((theirs != self._first_source).any())
        if not self._shard_varies:
            self._shard_varies = bool((ours != self._first_shard).any())

    def _errors_in_singles(self, theirs: Values, ours: Values) -> Values | None:
        """Return signed differences in float32; None if a value is not finite.

        The arithmetic loses at most three roundings of the largest value: `differences` adds them.
        """
        restored = self._singles(len(ours))
        if ours.dtype == np.float16:
            widen(ours, restored)
        else:
            np.copyto(restored, ours)
        if self._scale != 1.0:
            np.multiply(restored, np.float32(self._scale), out=restored)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            np.subtract(theirs, restored, out=restored, casting="same_kind")
        low, high = float(restored.min()), float(restored.max())
        return restored if math.isfinite(low) and math.isfinite(high) else None

    def _singles(self, count: int) -> Values:
        if len(self._buffer) < count:
            self._buffer = np.empty(count, np.float32)
        return self._buffer[:count]

    def _errors_exactly(self, theirs: Values, ours: Values) -> tuple[Values, Values]:
        """Return absolute errors, and a mask of the voxels that are finite on both sides."""
        finite = np.isfinite(theirs) & np.isfinite(ours)
        odd = ~finite
        if odd.any():
            # Without the scale, which is positive: an infinity stays what it is.
            equal = (theirs[odd] == ours[odd]) | (np.isnan(theirs[odd]) & np.isnan(ours[odd]))
            self._misplaced += int(np.count_nonzero(~equal))
        with np.errstate(invalid="ignore"):
            restored = np.multiply(ours, self._scale, dtype=self._exactly)
            errors = np.abs(np.subtract(theirs, restored, dtype=self._exactly))
        return errors, finite

    def mean_abs_error(self) -> float:
        """Return the mean error of all voxels; NaN unless it was asked for."""
        return self._sum / self._voxels if self._exact else math.nan

    def differences(self) -> Iterator[str]:
        """Yield a sentence on what differs; read both again if one pass does not decide."""
        if self._misplaced:
            yield f"NaN or infinity stands elsewhere in the shard, at {self._misplaced:,} voxels"
            return
        # Where nearly all voxels have one value, the few others lie outside the percentiles, and
        # the bound there might let all of them become that value.
        if self._source_varies and not self._shard_varies:
            yield "the shard's volume is constant, and the source's is not"
            return
        low, high = self._spread.percentiles()
        limit = ErrorLimit.of(low, high, self._target, self._scale, self._max_error)
        # The fast path's own rounding may have hidden that much of an error.
        lost = 3 * _SINGLE_PRECISION * max(abs(low), abs(high)) if self._fast else 0.0
        # Outliers may lose more than the bound within the spread: only a second pass can judge each
        # voxel by its own bound, since the spread is known only now.
        if not limit.holds_everywhere(self.max_abs_error + lost):
            excess = self._excess(limit)
            if excess:
                yield f"a voxel differs from the source's by {excess:.6g}, past its bound"
                return
        # An accepted error is one number for volumes of every scale: 10 is little in HU and
        # everything in HU/1000.
        accepted = self._max_error is not None
        if accepted and self.max_abs_error > _WORST_SHARE * (high - low):
            yield (
                f"the largest error, {self.max_abs_error:.6g}, is not small beside the volume's "
                f"spread, {high - low:.6g}"
            )

    def _excess(self, limit: ErrorLimit) -> float:
        worst = 0.0
        for _, theirs, ours in self._again():
            errors, finite = self._errors_exactly(theirs, ours)
            worst = max(worst, limit.excess(theirs[finite], errors[finite]))
        return worst


def _words(box: Box) -> str:
    return "[" + ", ".join(f"{part.start}:{part.stop}" for part in box) + "]"
