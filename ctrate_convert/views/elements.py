"""How stored elements become Hounsfield units, and how these become the elements of a view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.store.records.recipe import Recipe

_UINT8_STEPS = 255.0


class NotFinite(ValueError):
    """An error for a voxel that is NaN or infinite."""


@dataclass(frozen=True)
class Elements:
    """The arithmetic on single voxels before and after they are resampled; all in float32.

    A stored element times ``slope`` plus ``intercept`` is in Hounsfield units, clipped to
    ``before`` if there are such limits. After resampling it is clipped to ``after``. Times
    ``scale`` plus ``offset`` it is an element of ``dtype``, rounded to even if that is an integer,
    and never beyond what ``dtype`` holds.
    """

    slope: float
    intercept: float
    before: tuple[float, float] | None
    after: tuple[float, float] | None
    scale: float
    offset: float
    dtype: np.dtype[Any]

    @property
    def to_hu(self) -> tuple[float, float]:
        """The slope and the intercept that turn an element of the view to Hounsfield units."""
        return 1.0 / self.scale, 0.0 - self.offset / self.scale

    def of_hu(self, hu: float) -> float:
        """Return the element that ``hu`` becomes, clipped, as a number that ``dtype`` holds."""
        low, high = self.after or self.before or (hu, hu)
        value = min(max(hu, low), high) * self.scale + self.offset
        return float(np.rint(value)) if self.dtype.kind in "iu" else value

    def enter(self, stored: NDArray[Any], into: NDArray[np.float32]) -> None:
        """Write a part of the source into ``into``, in Hounsfield units.

        Raises:
            NotFinite: a voxel is no finite number.
        """
        np.copyto(into, stored, casting="same_kind")
        if stored.dtype.kind == "f" and not np.isfinite(into).all():
            raise NotFinite("a voxel is no finite number")
        if self.slope != 1.0:
            np.multiply(into, np.float32(self.slope), out=into)
        if self.intercept:
            np.add(into, np.float32(self.intercept), out=into)
        if self.before is not None:
            _clip(into, self.before)

    def leave(self, values: NDArray[np.float32], into: NDArray[Any]) -> None:
        """Write Hounsfield units as elements into ``into``; ``values`` are overwritten."""
        if self.after is not None:
            _clip(values, self.after)
        if self.scale != 1.0:
            np.multiply(values, np.float32(self.scale), out=values)
        if self.offset:
            np.add(values, np.float32(self.offset), out=values)
        if self.dtype.kind in "iu":
            np.rint(values, out=values)
        if self.scale != 1.0 or self.offset:
            # The window's end may come out a rounding error above 255, which is 0 to the cast.
            _clip(values, _limits(self.dtype))
        np.copyto(into, values, casting="unsafe")


def elements_of(recipe: Recipe, slope: float, intercept: float) -> Elements:
    """Return the arithmetic of ``recipe`` for a volume with this way to Hounsfield units."""
    dtype = np.dtype(recipe.output)
    window, scale, offset = recipe.window_hu, 1.0, 0.0
    before = window if recipe.clip == "before" else None
    # What was clipped before lies within the window after linear interpolation too.
    after = window if recipe.clip == "after" else None
    if window is None:
        after = _limits(dtype)
    elif recipe.output != "int16":
        low, high = window
        first, last = (0.0, _UINT8_STEPS) if recipe.output == "uint8" else recipe.values or window
        scale = (last - first) / (high - low)
        offset = first - low * scale
    return Elements(slope, intercept, before, after, scale, offset, dtype)


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return float(limits.min), float(limits.max)


def _clip(values: NDArray[np.float32], limits: tuple[float, float]) -> None:
    np.clip(values, np.float32(limits[0]), np.float32(limits[1]), out=values)
