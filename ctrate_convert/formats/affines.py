"""Affines: 4×4 matrices that map a voxel's index in its array to RAS+ millimetres.

RAS+: the first coordinate grows to the patient's right, the second to the front, the third to the
head, as nibabel and NIfTI have it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Affine = tuple[tuple[float, float, float, float], ...]
"""Four rows of four numbers; empty if the affine is not known."""

REVERSED = (2, 1, 0)
"""The axes of an array, last to first."""

_DIRECTIONS = (("L", "R"), ("P", "A"), ("I", "S"))
_AXIS_OF_DIRECTION = "xyz"


def is_usable(matrix: ArrayLike) -> bool:
    """Return True if ``matrix`` is 4×4, finite, affine, and no axis of the array is lost in it."""
    with np.errstate(all="ignore"):  # numbers too large or too small to count make no axis
        try:
            values = np.asarray(matrix, np.float64)
        except (TypeError, ValueError, OverflowError):
            return False
        if values.shape != (4, 4) or not np.isfinite(values).all():
            return False
        # A voxel's axes may not be parallel; a determinant alone would depend on the voxel's size.
        sizes = np.linalg.norm(values[:3, :3], axis=0)
        if not (sizes > 0).all() or tuple(values[3]) != (0.0, 0.0, 0.0, 1.0):
            return False
        return bool(abs(np.linalg.det(values[:3, :3] / sizes)) > 1e-6)


def rows_of(matrix: ArrayLike) -> Affine:
    """Return ``matrix`` as rows of plain numbers."""
    a, b, c, d = (tuple(map(float, row)) for row in np.asarray(matrix, np.float64))
    return (_four(a), _four(b), _four(c), _four(d))


def _four(row: tuple[float, ...]) -> tuple[float, float, float, float]:
    x, y, z, t = row
    return x, y, z, t


def spacing_of(affine: Affine) -> tuple[float, ...]:
    """Return the distance in mm between neighbours along each axis of the array."""
    if not affine:
        return ()
    return tuple(float(size) for size in np.linalg.norm(np.array(affine)[:3, :3], axis=0))


def permuted(affine: Affine, axes: Sequence[int]) -> Affine:
    """Return the affine of the array that ``numpy.transpose(array, axes)`` gives."""
    if not affine:
        return ()
    matrix = np.array(affine)
    return rows_of(matrix[:, [*axes, 3]])


def orientation_of(affine: Affine) -> str:
    """Return three letters, such as ``LPS``: the direction in which each axis of the array grows.

    The letters are those of ``nibabel.aff2axcodes``, whose algorithm this is: the closest rotation
    by a singular value decomposition, and of it the largest coordinate of each axis.
    """
    directions = _directions(affine)
    return "".join(_DIRECTIONS[world][sign > 0] for world, sign in directions)


def anatomical_axes(affine: Affine) -> str:
    """Return the axes' names by the coordinate that each follows, such as ``yxz``."""
    return "".join(_AXIS_OF_DIRECTION[world] for world, _ in _directions(affine))


def _directions(affine: Affine) -> list[tuple[int, float]]:
    """Return for each axis of the array the world coordinate that it follows, and its sign."""
    if not affine:
        return []
    matrix = np.array(affine)[:3, :3]
    left, _, right = np.linalg.svd(matrix / np.linalg.norm(matrix, axis=0))
    rotation: NDArray[np.float64] = left @ right
    found = []
    # The clearest axis chooses first, so that two oblique axes never follow one coordinate.
    for axis in np.argsort(np.min(-(rotation**2), axis=0), kind="stable"):
        world = int(np.argmax(np.abs(rotation[:, axis])))
        found.append((int(axis), (world, float(rotation[world, axis]))))
        rotation[world, :] = 0
    return [direction for _, direction in sorted(found)]
