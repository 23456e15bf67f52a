"""Turn cuts into axial, coronal and sagittal images as radiologists hang them, if that is known.

The patient's right is on the left of the image, the front and the head are at the top; a sagittal
plane has the front on the left. What the evidence does not tell is not claimed: without an
orientation the planes stay as they are stored, and bear no letters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.looking.cuts import Cuts
from ctrate_convert.looking.look import Known

_AXIS = {"R": "x", "L": "x", "A": "y", "P": "y", "S": "z", "I": "z"}
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
# The plane, the axis across which it lies, and the directions of its top and of its left.
_PLANES = (("axial", "z", "A", "R"), ("coronal", "y", "S", "R"), ("sagittal", "x", "S", "A"))


@dataclass(frozen=True)
class Plane:
    """One image: its rows from the top, its columns from the left.

    ``letters`` are the directions of its left, right, top and bottom; empty if not known.
    ``mm`` is the distance of rows and of columns; equal numbers if not known.
    """

    name: str
    values: NDArray[np.float32]
    mm: tuple[float, float]
    letters: str


def planes_of(known: Known, cuts: Cuts) -> list[Plane]:
    """Return three planes: axial, coronal and sagittal if the axes are known."""
    spacing = known.spacing_mm or (1.0, 1.0, 1.0)
    if known.orientation:
        return [_hung(known.orientation, cuts, spacing, *plane) for plane in _PLANES]
    if known.axes:
        return [_as_stored(known.axes, cuts, spacing, *plane) for plane in _PLANES]
    found = []
    for axis in range(3):
        rows, columns = (one for one in range(3) if one != axis)
        mm = (spacing[rows], spacing[columns])
        found.append(Plane(f"across axis {axis}", cuts.planes[axis], mm, ""))
    return found


def _hung(
    orientation: str,
    cuts: Cuts,
    spacing: tuple[float, ...],
    name: str,
    across: str,
    top: str,
    left: str,
) -> Plane:
    axes = [_AXIS[letter] for letter in orientation]
    values, mm = _rows_and_columns(axes, cuts, spacing, across, _AXIS[top], _AXIS[left])
    # An axis that leads to the top begins at the bottom.
    if orientation[axes.index(_AXIS[top])] == top:
        values = values[::-1]
    if orientation[axes.index(_AXIS[left])] == left:
        values = values[:, ::-1]
    return Plane(name, values, mm, left + _OPPOSITE[left] + top + _OPPOSITE[top])


def _as_stored(
    axes: str,
    cuts: Cuts,
    spacing: tuple[float, ...],
    name: str,
    across: str,
    top: str,
    left: str,
) -> Plane:
    values, mm = _rows_and_columns(list(axes), cuts, spacing, across, _AXIS[top], _AXIS[left])
    return Plane(name, values, mm, "")


def _rows_and_columns(
    axes: list[str],
    cuts: Cuts,
    spacing: tuple[float, ...],
    across: str,
    row_axis: str,
    column_axis: str,
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Return the plane with these axes for its rows and columns, and their spacing."""
    plane = cuts.planes[axes.index(across)]
    rows, columns = axes.index(row_axis), axes.index(column_axis)
    return plane if rows < columns else plane.T, (spacing[rows], spacing[columns])
