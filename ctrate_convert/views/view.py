"""A view of one volume: its shape, its place in the patient, and the part of the volume it needs.

What a volume is comes from its sample's JSON. A view is refused by name where that does not say
which axes, which spacing or which unit the volume has, or says that it was resampled before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.affines import Affine, rows_of
from ctrate_convert.formats.geometry import table_sizes, table_spacing_mm
from ctrate_convert.formats.tiling import Box, Shape, box_shape
from ctrate_convert.store.records.base import MAX_ARRAY_BYTES
from ctrate_convert.store.records.geometry import ArrayAxes, Axes
from ctrate_convert.store.records.recipe import Recipe
from ctrate_convert.views.elements import Elements, NotFinite, elements_of
from ctrate_convert.views.grid import Axis, centred, resampled_voxels
from ctrate_convert.views.kernel import resample

_SAME = 1e-6
"""The relative difference up to which the table's spacing is a header's in more digits.

A NIfTI holds single precision, 0.8 as 0.800000012, and 300 slices of 0.8 mm would become another
number of slices than training code computes from the table.
"""

_SPACING_MM = (0.001, 1000.0)
"""A spacing beyond these is no scanner's, and the arithmetic would overflow."""

_ORDERS: tuple[ArrayAxes, ...] = get_args(ArrayAxes)
_OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))

ReadSlabs = Callable[[Box], Iterable[NDArray[Any]]]
"""Give a box of the stored volume as slabs of whole planes across its first axis."""


@dataclass(frozen=True)
class Facts:
    """What a view has to know of a stored volume; each entry is one per axis of its array.

    ``affine`` may be empty. ``orientation`` has the direction in which each axis grows, or is
    empty. An element times ``slope`` plus ``intercept`` is in Hounsfield units. ``assumed_axes``
    are the ``axes`` if nothing told them.
    """

    name: str
    shape: Shape
    axes: ArrayAxes
    spacing_mm: tuple[float, ...]
    orientation: str
    affine: Affine
    slope: float
    intercept: float
    assumed_axes: ArrayAxes = ""


def facts_of(fields: Mapping[str, Any], name: str, shape: Shape, assume_axes: Axes = "") -> Facts:
    """Return what the JSON of a sample says of its volume.

    ``assume_axes`` are its axes where nothing tells them.

    Raises:
        SampleError: it does not say what the axes, the spacing or the unit are, or it says that
            the volume was resampled before, or what is assumed contradicts the table.
    """
    told = fields.get("axes")
    axes: ArrayAxes = next((one for one in _ORDERS if one == told), "")
    metadata = fields.get("metadata", {})
    table = dict(zip("xyz", table_spacing_mm(metadata), strict=False))
    spacing = tuple(fields.get("spacing_axes_mm", ()))
    assumed: ArrayAxes = "" if axes else assume_axes
    axes = axes or assumed
    if not axes:
        more = ", or assume_axes= tells them"
        raise _refused("it is not known what this volume's axes are", name, more)
    if assumed and table and not spacing and fields.get("grid") == "native":
        # The shard gives the table's spacing to no axis if it does not know which is which.
        spacing = tuple(table[axis] for axis in assumed)
    least, most = _SPACING_MM
    if len(spacing) != 3 or not all(least <= one <= most for one in spacing):
        raise _refused("it is not known what this volume's spacing is", name)
    if fields.get("grid") == "resampled":
        raise _refused("this volume's grid was resampled before it was converted", name)
    slope = float(fields.get("hu_slope", 0.0))
    if not slope:
        raise _refused("this volume's intensity is unknown: nothing tells Hounsfield units", name)
    if assumed and fields.get("grid") == "native":
        _require_fit(assumed, shape, metadata, name)
    return Facts(
        name=name,
        shape=shape,
        axes=axes,
        spacing_mm=tuple(
            _in_more_digits(own, table.get(axis, own))
            for axis, own in zip(axes, spacing, strict=True)
        ),
        orientation=str(fields.get("orientation", "")),
        affine=rows_of(fields["affine"]) if fields.get("affine") else (),
        slope=slope,
        intercept=float(fields.get("hu_intercept", 0.0)),
        assumed_axes=assumed,
    )


def _require_fit(axes: str, shape: Shape, metadata: Mapping[str, str], name: str) -> None:
    sizes = dict(zip("xyz", table_sizes(metadata), strict=False))
    if sizes and tuple(sizes[axis] for axis in axes) != shape:
        raise SampleError(
            "the axes that are assumed contradict the table", where=name,
            seen=f"{axes} of {'×'.join(map(str, shape))}",
            expected=", ".join(f"{size} along {axis}" for axis, size in sizes.items()),
        )  # fmt: skip


def _refused(what: str, name: str, more: str = "") -> SampleError:
    return SampleError(
        what, where=name,
        expected="known axes, spacing and unit, the scanner's own grid; keys= leaves out others"
        + more,
    )  # fmt: skip


def _in_more_digits(own: float, table: float) -> float:
    return table if math.isclose(own, table, rel_tol=_SAME) else own


class View:
    """The view that ``recipe`` makes of the volume that ``facts`` are about.

    ``shape``, ``spacing_mm`` (the true one, in·c/out), ``origin``, ``native_start`` and
    ``native_step`` have the view's axes in their order. ``origin`` is the place of the view's
    first voxel in the resampled volume; a negative one is padding. The view's voxel i lies at voxel
    ``native_start + native_step·i`` of the volume; the step is negative where an axis is turned.

    Raises:
        SampleError: the recipe asks for an orientation that the volume does not tell; or nothing
            is left of the volume when it is resampled; or the view takes more than
            `MAX_ARRAY_BYTES`.
    """

    def __init__(self, recipe: Recipe, facts: Facts) -> None:
        self.recipe = recipe
        self.volume = facts
        self._order = tuple(facts.axes.index(axis) for axis in recipe.axes)
        self._axes = tuple(_axis(recipe, facts, place) for place in range(3))
        own = [self._axes[place] for place in self._order]
        self.shape: Shape = _three(axis.size for axis in own)
        self.origin: Shape = _three(axis.origin for axis in own)
        self.resampled: Shape = _three(axis.resampled for axis in own)
        self.spacing_mm = tuple(
            facts.spacing_mm[place] * axis.step
            for place, axis in zip(self._order, own, strict=True)
        )
        self.native_step = _three_numbers(axis.to_source[0] for axis in own)
        self.native_start = _three_numbers(axis.to_source[1] for axis in own)
        self.elements: Elements = elements_of(recipe, facts.slope, facts.intercept)
        self.padding: float = 0.0 if recipe.pad_hu is None else self.elements.of_hu(recipe.pad_hu)
        size_bytes = math.prod(self.shape) * self.elements.dtype.itemsize
        if size_bytes > MAX_ARRAY_BYTES:
            raise SampleError(
                "this view is too large", where=facts.name,
                seen=f"{size_bytes} bytes, {'×'.join(map(str, self.shape))}",
                expected=f"≤ {MAX_ARRAY_BYTES} bytes: a recipe with a coarser spacing_mm or a size",
            )  # fmt: skip

    @property
    def affine(self) -> Affine:
        """The matrix from an index of the view to RAS+ mm; empty if the volume's is not known."""
        if not self.volume.affine:
            return ()
        stored = np.array(self.volume.affine)
        matrix = stored.copy()
        for to, place in enumerate(self._order):
            matrix[:3, to] = stored[:3, place] * self.native_step[to]
            matrix[:3, 3] += stored[:3, place] * self.native_start[to]
        return rows_of(matrix)

    def read(self, box: Box, slabs: ReadSlabs, into: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return a box of the view: C order, writable. ``slabs`` is asked for what it needs.

        ``into``, if it is given, is filled and returned; it has that shape and the view's type.

        Raises:
            SampleError: a voxel of the volume is no finite number.
        """
        found = np.empty(box_shape(box), self.elements.dtype) if into is None else into
        inside = [
            self._axes[place].inside(part) for place, part in zip(self._order, box, strict=True)
        ]
        if any(part.start == part.stop for part in inside):
            found[...] = self.padding
            return found
        if inside != list(box):
            found[...] = self.padding
        target = tuple(
            slice(part.start - whole.start, part.stop - whole.start)
            for part, whole in zip(inside, box, strict=True)
        )
        taps = [self._axes[place].taps(inside[self._order.index(place)]) for place in range(3)]
        first, second, third = (one.needed for one in taps)
        a, b, c = (one.after(one.needed.start) for one in taps)
        into = found[target].transpose([self._order.index(place) for place in range(3)])
        try:
            resample(slabs((first, second, third)), (a, b, c), self.elements, into)
        except NotFinite as error:
            raise SampleError(f"no view: {error}", where=self.volume.name) from error
        return found


def _axis(recipe: Recipe, facts: Facts, place: int) -> Axis:
    name, voxels, own_mm = facts.axes[place], facts.shape[place], facts.spacing_mm[place]
    target_mm = float(getattr(recipe.spacing_mm, name))
    resampled = resampled_voxels(recipe.size_rule, voxels, own_mm, target_mm)
    if not resampled:
        raise SampleError(
            "nothing is left of this volume when it is resampled", where=facts.name,
            seen=f"{voxels} × {own_mm:g} mm along {name}", expected=f"≥ {target_mm:g} mm",
        )  # fmt: skip
    size = getattr(recipe.size, name) if recipe.size else resampled
    if recipe.size_is == "least":
        size = max(size, resampled)
    half_pixel = recipe.coordinates == "half_pixel"
    return Axis(
        voxels=voxels,
        resampled=resampled,
        size=size,
        origin=centred(resampled, size, recipe.odd_voxel),
        step=voxels / resampled if half_pixel else target_mm / own_mm,
        coordinates=recipe.coordinates,
        flipped=_flipped(recipe, facts, place),
    )


def _flipped(recipe: Recipe, facts: Facts, place: int) -> bool:
    if not recipe.orientation:
        return False
    wanted = recipe.orientation["xyz".index(facts.axes[place])]
    own = facts.orientation[place] if len(facts.orientation) == 3 else ""
    if own not in (wanted, _OPPOSITE[wanted]):
        raise SampleError(
            "it is not known in which directions this volume's axes grow", where=facts.name,
            seen=facts.orientation or None, expected=f"{wanted} or its opposite along "
            f"{facts.axes[place]}",
        )  # fmt: skip
    return own != wanted


def _three(numbers: Iterable[int]) -> Shape:
    one, two, three = numbers
    return one, two, three


def _three_numbers(numbers: Iterable[float]) -> tuple[float, float, float]:
    one, two, three = numbers
    return one, two, three
