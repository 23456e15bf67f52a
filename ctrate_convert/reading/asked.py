"""How a reader wants arrays: in which unit, and with which order of the axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError, SettingsError
from ctrate_convert.reading.arrays import read_crops
from ctrate_convert.reading.boxes import Box, Shape, shape_of
from ctrate_convert.reading.index import ArrayMember
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.store.records.geometry import Axes
from ctrate_convert.store.records.recipe import Recipe

Units = Literal["stored", "source", "hu"]
"""``stored``: the array as it lies in the shard. ``source``: float32 in the source's own unit.
``hu``: float32 in Hounsfield units."""

BODY_HU = -500.0
"""Body is above: fat and soft tissue, vessels and bone, but neither air nor most of the lung."""

_AS_STORED = (0, 1, 2)


@dataclass(frozen=True)
class Asked:
    """The unit and the axes of the arrays to give; axes that are empty are those of the shard.

    With a ``view`` its recipe decides both, and `Viewed` gives the arrays. ``assume_axes`` are then
    those of the shard where nothing tells them.

    Raises:
        SettingsError: there are no such units or axes, or they are asked for together with a view.
    """

    units: Units = "stored"
    axes: Axes = ""
    view: Recipe | None = None
    assume_axes: Axes = ""

    def __post_init__(self) -> None:
        if self.units not in get_args(Units):
            raise SettingsError("no such units", seen=self.units, expected="stored, source or hu")
        if self.axes not in get_args(Axes):
            raise SettingsError("no such axes", seen=self.axes, expected="xyz, yxz or zyx")
        if self.assume_axes not in get_args(Axes) or (self.assume_axes and not self.view):
            raise SettingsError(
                "assume_axes tells a view the axes of volumes that do not tell them",
                seen=self.assume_axes, expected="view=… and xyz, yxz or zyx",
            )  # fmt: skip
        if self.view and (self.units, self.axes) != ("stored", ""):
            raise SettingsError(
                "a view has its own units and axes", seen=f"view={self.view.name!r} and "
                + (f"units={self.units!r}" if self.units != "stored" else f"axes={self.axes!r}"),
                expected="view= alone, or a recipe with other axes or another output",
            )  # fmt: skip

    def order(self, array: ArrayMember) -> tuple[int, int, int]:
        """Return the order that ``numpy.transpose`` takes to give the axes that were asked for.

        Raises:
            SampleError: it is not known which axes the array has.
        """
        if not self.axes or self.axes == array.axes:
            return _AS_STORED
        if not array.axes:
            raise SampleError(
                "it is not known what this volume's axes are", where=array.name,
                expected=f"axes='' instead of {self.axes!r}: the order of the shard",
            )  # fmt: skip
        first, second, third = (array.axes.index(axis) for axis in self.axes)
        return first, second, third

    def shape(self, array: ArrayMember) -> Shape:
        """Return the shape of the whole volume in the axes that were asked for."""
        first, second, third = (array.shape[axis] for axis in self.order(array))
        return first, second, third

    def dtype(self, array: ArrayMember) -> np.dtype[Any]:
        """Return the type of the arrays that `read` gives."""
        return np.dtype(array.dtype if self.units == "stored" else np.float32)

    def read(
        self, file: ShardFile, array: ArrayMember, box: Box, into: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return a box, whose axes are those that were asked for: C order, writable.

        ``into``, if it is given, is filled and returned; it has that shape and order, and `dtype`.

        Raises:
            SampleError: the axes, or the Hounsfield units, of the volume are not known.
            DamageError: the shard does not hold what its record says.
            EnvironmentProblem: it cannot be read.
        """
        found = np.empty(shape_of(box), self.dtype(array)) if into is None else into
        if found.size:
            self.read_crops(file, array, [box], [found])
        return found

    def read_crops(
        self,
        file: ShardFile,
        array: ArrayMember,
        boxes: Sequence[Box],
        into: Sequence[NDArray[Any]],
    ) -> None:
        """Fill each array of ``into`` with its box, as `read` does; decode once what boxes share.

        Raises:
            SampleError: the axes, or the Hounsfield units, of the volume are not known.
            DamageError: the shard does not hold what its record says.
            EnvironmentProblem: it cannot be read.
        """
        scaling = (1.0, 0.0) if self.units == "stored" else self._to_units(array)
        order = self.order(array)
        stored_boxes = [_as_stored(box, order) for box in boxes]
        if self.units == "stored" and order == _AS_STORED:
            read_crops(file, array, stored_boxes, into)
            return
        stored = [np.empty(shape_of(box), array.dtype) for box in stored_boxes]
        read_crops(file, array, stored_boxes, stored)
        for values, found in zip(stored, into, strict=True):
            put_in_unit(values.transpose(order), found, scaling)

    def is_body(self, array: ArrayMember) -> Callable[[float], bool]:
        """Return a function that tells if a value is body, above `BODY_HU`, and not air or lung.

        Raises:
            SampleError: the Hounsfield units of the volume are not known.
        """
        slope, intercept = replace(self, units="hu")._to_units(array)
        if self.units == "hu":
            slope, intercept = 1.0, 0.0
        elif self.units == "source":
            slope /= array.value_scale
        return lambda value: value * slope + intercept > BODY_HU

    def smallest(self, array: ArrayMember) -> float:
        """Return the volume's smallest value in the unit that was asked for."""
        # The record's ``value_min`` is in the source's unit.
        stored = array.value_min / array.value_scale
        if self.units == "stored":
            # The division above may miss the integer by a rounding error.
            return round(stored) if np.dtype(array.dtype).kind in "iu" else stored
        slope, intercept = self._to_units(array)
        return stored * slope + intercept

    def _to_units(self, array: ArrayMember) -> tuple[float, float]:
        if self.units != "hu":
            return array.value_scale, 0.0
        if not array.hu_slope:
            raise SampleError(
                "it is not known how this volume's values become Hounsfield units",
                where=array.name,
                expected="units='source' or 'stored'",
            )
        return array.hu_slope, array.hu_intercept


def put_in_unit(elements: NDArray[Any], into: NDArray[Any], scaling: tuple[float, float]) -> None:
    """Write elements times a slope plus an intercept into an array of the same shape."""
    slope, intercept = scaling
    if scaling == (1.0, 0.0):
        into[...] = elements
        return
    # In double precision: steps of 0.001 then give back the float32 values that they were made
    # from.
    np.multiply(elements, slope, out=into, dtype=np.float64, casting="same_kind")
    if intercept:
        into += np.float32(intercept)


def _as_stored(box: Sequence[slice], order: Sequence[int]) -> Box:
    """Return the box of the stored array that ``box`` of the transposed one is."""
    parts = dict(zip(order, box, strict=True))
    return parts[0], parts[1], parts[2]
