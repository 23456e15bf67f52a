"""Put a prediction on a view back on the grid of the volume that the view was made from."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from ctrate_convert.errors import SettingsError
from ctrate_convert.store.records.view import ViewFacts
from ctrate_convert.views.elements import Elements, NotFinite
from ctrate_convert.views.grid import Taps
from ctrate_convert.views.kernel import resample

Array = NDArray[Any]

_SLAB = 16
_KINDS = "biuf"

_EXACT = 2**24
"""float32 holds all integers up to this one."""


def unview(
    prediction: ArrayLike, fields: Mapping[str, Any], *, linear: bool = False, fill: float = 0
) -> Array:
    """Return ``prediction``, an array of a view's shape, on the grid of the view's volume.

    ``fields`` is ``sample.json["view"]``. What comes back has the shape and the axes of the stored
    volume, in C order, and the type of ``prediction``. Each of its voxels takes the value of the
    nearest voxel of the view: a label stays a label. ``linear=True`` is for probabilities and
    Hounsfield units: it interpolates in float32, and rounds where the type is an integer one;
    integers beyond ±2^24, which float32 does not hold, are refused.
    Voxels of the volume that the view cut off are ``fill``; what was predicted for the view's
    padding is left out. Memory: the result and a few planes.

    Raises:
        SettingsError: ``fields`` is no view, or ``prediction`` does not have its shape, or is not
            of numbers or of True and False; ``fill`` is no number or does not fit its type; or
            ``linear`` of True and False, of a number that is not finite, or of a large integer.
    """
    facts = _facts(fields)
    array = np.asarray(prediction)
    if array.shape != facts.shape:
        raise SettingsError(
            "not a prediction on this view", seen=f"shape {array.shape}",
            expected=f"{facts.shape}, the axes {facts.axes}",
        )  # fmt: skip
    if array.dtype.kind not in _KINDS or (linear and array.dtype.kind == "b"):
        raise SettingsError(
            "this type cannot be put back", seen=array.dtype,
            expected="integers or floats" if linear else "integers, floats or booleans",
        )  # fmt: skip
    if linear and array.dtype.kind in "iu" and array.dtype.itemsize > 2:
        _check_exact(array)
    found = np.full(facts.native_shape, _fitting(fill, array.dtype), array.dtype)
    order = tuple(facts.axes.index(axis) for axis in facts.native_axes)
    lines = [_line(facts, place, n) for place, n in zip(order, facts.native_shape, strict=True)]
    if all(line.covered.start < line.covered.stop for line in lines):
        # The same memory with the volume's axes, only those voxels that are no padding.
        part = array.transpose(order)[tuple(line.real for line in lines)]
        into = found[tuple(line.covered for line in lines)]
        (_linear if linear else _nearest)(part, lines, into)
    return found


@dataclass(frozen=True)
class _Line:
    """An axis of the volume: which of its voxels the view covers, and where they lie in it.

    ``real`` are the view's voxels that are no padding, and ``places`` those of the ``covered``
    voxels, counted from the first real one.
    """

    covered: slice
    real: slice
    places: NDArray[np.float64]


def _facts(fields: Mapping[str, Any]) -> ViewFacts:
    try:
        # By JSON, because only there a list may stand for a tuple.
        facts = ViewFacts.model_validate_json(json.dumps(dict(fields)))
        if not (facts.axes and facts.native_axes and all(facts.native_step)):
            raise ValueError("an axis or a step is missing")
        return facts
    except (ValidationError, TypeError, ValueError) as error:
        raise SettingsError(
            "these fields describe no view", expected='sample.json["view"] of a sample of a view'
        ) from error


def _check_exact(array: Array) -> None:
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    if low < -_EXACT or high > _EXACT:
        raise SettingsError(
            "integers too large to interpolate in float32", seen=f"{low} to {high}",
            expected=f"±{_EXACT}, or linear=False, which copies them",
        )  # fmt: skip


def _fitting(fill: float, dtype: np.dtype[Any]) -> float:
    if not isinstance(fill, (numbers.Real, np.bool_)):
        raise SettingsError("fill is no number", seen=repr(fill), expected=dtype)
    if dtype.kind == "f":
        # NaN and infinity are numbers of these types; a number must not become infinite.
        fits = abs(fill) == math.inf or not abs(fill) > float(np.finfo(dtype).max)
    else:
        limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        fits = limits[0] <= fill <= limits[1] and float(fill).is_integer()
    if not fits:
        raise SettingsError("fill does not fit the prediction's type", seen=fill, expected=dtype)
    return fill


def _line(facts: ViewFacts, place: int, voxels: int) -> _Line:
    origin, size = facts.origin[place], facts.shape[place]
    start = max(0, -origin)
    real = slice(start, max(start, min(size, facts.resampled_shape[place] - origin)))
    number = np.arange(voxels, dtype=np.float64)
    places = (number - facts.native_start[place]) / facts.native_step[place] - real.start
    length = real.stop - real.start
    # A voxel reaches half a voxel to either side of its centre.
    (inside,) = np.nonzero((places >= -0.5) & (places <= length - 0.5))
    if not len(inside) or not length:
        return _Line(slice(0, 0), real, places[:0])
    covered = slice(int(inside[0]), int(inside[-1]) + 1)
    return _Line(covered, real, np.clip(places[covered], 0, length - 1))


def _nearest(part: Array, lines: list[_Line], into: Array) -> None:
    along, rows, columns = (np.floor(line.places + 0.5).astype(np.intp) for line in lines)
    last, plane = -1, into[:0]
    for number, place in enumerate(along.tolist()):
        if place != last:
            plane = part[place].take(rows, axis=0).take(columns, axis=1)
            last = place
        into[number] = plane


def _linear(part: Array, lines: list[_Line], into: Array) -> None:
    elements = Elements(1.0, 0.0, None, None, 1.0, 0.0, into.dtype)
    along, rows, columns = (_taps(line.places) for line in lines)
    try:
        resample(_slabs(part), (along, rows, columns), elements, into)
    except NotFinite as error:
        raise SettingsError(
            f"not a prediction to interpolate: {error}", expected="linear=False, which copies it"
        ) from error


def _slabs(part: Array) -> Iterator[Array]:
    return (part[start : start + _SLAB] for start in range(0, len(part), _SLAB))


def _taps(places: NDArray[np.float64]) -> Taps:
    one = places.astype(np.intp)
    other = np.minimum(one + 1, int(one.max()) + 1)
    weight = (places - one).astype(np.float32)
    return Taps(one, np.where(weight > 0, other, one), weight)
