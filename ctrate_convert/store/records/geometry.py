"""The known geometry of a volume, each part with the evidence that it rests on."""

from __future__ import annotations

from typing import Literal

from ctrate_convert.store.records.base import Record

Axes = Literal["", "xyz", "yxz", "zyx"]
"""The axes of a volume's array, first to last; empty if they are not known."""

ArrayAxes = Literal["", "xyz", "xzy", "yxz", "yzx", "zxy", "zyx"]
"""As `Axes`; a recipe may order the axes of a view in any way."""

Grid = Literal["native", "resampled", "unknown"]
"""Whether the voxels lie where the scanner's reconstruction put them."""

Row = tuple[float, float, float, float]


class Geometry(Record):
    """A volume's geometry. Each part rests on the evidence that it names, or is empty.

    ``spacing_axes_mm`` is the distance between neighbours along each axis of the array, and
    ``spacing_mm`` the same as [x, y, z]. ``affine`` maps an index of the array, in the order of its
    own axes, to RAS+ mm. ``orientation`` tells for each axis of the array the direction in which it
    grows, such as ``LPS``. ``contradiction`` says where the metadata table and the array disagree.
    """

    axes: ArrayAxes = ""
    axes_from: str = ""
    spacing_axes_mm: tuple[float, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    spacing_from: str = ""
    affine: tuple[Row, ...] = ()
    affine_from: str = ""
    orientation: str = ""
    grid: Grid = "unknown"
    grid_from: str = ""
    contradiction: str = ""


NO_GEOMETRY = Geometry()
"""The geometry of a volume of which nothing is known."""
