"""Volumes and views for the tests: grids as CT-RATE has them, only smaller."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.tiling import Box
from ctrate_convert.reading.boxes import whole
from ctrate_convert.store.records.recipe import Recipe, Size
from ctrate_convert.views.presets import presets
from ctrate_convert.views.view import Facts, View

Array = NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """A volume's grid and a view's size: sizes and spacings of x, y, z."""

    shape: tuple[int, int, int]
    xy_mm: float
    z_mm: float
    size: tuple[int, int, int]


def grids(number: int) -> list[Grid]:
    """As many grids as asked for, thick and thin slices, smaller and larger than the view."""
    rng = np.random.default_rng(14)
    in_plane = (0.341796875, 0.5859375, 0.6875, 0.7, 0.703125, 0.75, 0.78125, 0.8, 0.9765625)
    through = (0.5, 0.6, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 5.0)
    found = []
    for _ in range(number):
        x, y, z = (int(one) for one in rng.integers((20, 20, 12), (90, 90, 70)))
        size = tuple(int(one) for one in rng.integers((16, 16, 8), (80, 80, 50)))
        found.append(
            Grid((x, y, z), float(rng.choice(in_plane)), float(rng.choice(through)), size)  # type: ignore[arg-type]
        )
    return found


def noise(shape: tuple[int, ...], seed: int, low: int = -1500, high: int = 3000) -> Array:
    """Integers without any smoothness, many of them outside each window: the hardest voxels.

    They are the same for every version of numpy: the finaliser of SplitMix64.
    """
    mixed = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(seed << 32)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed % np.uint64(high - low)).astype(np.int16).reshape(shape) + np.int16(low)


def sized(name: str, size: tuple[int, int, int], **more: Any) -> Recipe:
    """The preset, with another size."""
    x, y, z = size
    return presets()[name].model_copy(update={"size": Size(x=x, y=y, z=z), **more})


def facts(stored: Array, axes: str, grid: Grid, **more: Any) -> Facts:
    spacing = {"x": grid.xy_mm, "y": grid.xy_mm, "z": grid.z_mm}
    told: dict[str, Any] = {
        "name": "one", "shape": stored.shape, "axes": axes, "orientation": "", "affine": (),
        "spacing_mm": tuple(spacing[axis] for axis in axes), "slope": 1.0, "intercept": 0.0,
    }  # fmt: skip
    return Facts(**{**told, **more})


def slabs(stored: Array, box: Box, planes: int) -> Iterable[Array]:
    part = stored[box]
    return (part[start : start + planes] for start in range(0, len(part), planes))


def read(view: View, stored: Array, planes: int = 7, box: Box | None = None) -> Array:
    """The view of an array in memory, which comes in slabs of so many planes."""
    return view.read(box or whole(view.shape), lambda needed: slabs(stored, needed, planes))


def stored_as(xyz: Array, axes: str) -> Array:
    """The volume, whose axes are x, y, z, as a shard with these axes has it."""
    return np.ascontiguousarray(xyz.transpose(["xyz".index(axis) for axis in axes]))
