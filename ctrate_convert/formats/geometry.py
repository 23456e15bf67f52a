"""Tell a volume's geometry from its own header, or else from the metadata table, or not at all.

The table describes the NIfTI that CT-RATE publishes. An NPZ made from it may be resampled, cropped
or padded; Rows, Columns and NumberofSlices against the array's shape tell. Where they contradict
each other, the table's spacing is not this array's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import TypeVar, get_args

from ctrate_convert.formats.literals import literal
from ctrate_convert.store.records.geometry import NO_GEOMETRY, Axes, Geometry
from ctrate_convert.store.records.plan import ArrayHeader

_EQUAL = 0.01
"""The relative difference of two spacings from which on they contradict each other.

The table rounds them to at most five digits, and NIfTI holds them in single precision.
"""


_ORDERS = tuple("".join(order) for order in permutations("xyz"))
_PLACES = {order: tuple(map("xyz".index, order)) for order in _ORDERS}

T = TypeVar("T")


@dataclass(frozen=True)
class _Table:
    """The table's row of a volume, as [x, y, z]; empty where it does not say."""

    sizes: tuple[int, ...]
    spacing_mm: tuple[float, ...]


def geometry_of(header: ArrayHeader, metadata: Mapping[str, str]) -> Geometry:
    """Return the geometry of the array that ``header`` describes.

    Each part is from the file's own header if that says it, or from the row ``metadata`` of the
    table if its sizes are those of the array, or empty.
    """
    own = header.geometry or NO_GEOMETRY
    table = _Table(table_sizes(metadata), tuple(table_spacing_mm(metadata)))
    # The table describes the scan as it was before: a resampled array has other sizes without any
    # contradiction.
    if not table.sizes or len(header.shape) != 3 or own.grid == "resampled":
        return own
    axes = [order for order in _ORDERS if _in_order(table.sizes, order) == header.shape]
    if own.axes:
        axes = [order for order in axes if order == own.axes]
    if not axes:
        return own.model_copy(update={"contradiction": _sizes_differ(table, header)})
    why = "Rows, Columns and NumberofSlices of the table are the array's"
    found: dict[str, object] = {"grid": "native", "grid_from": why}
    if not own.axes:
        found |= _axes_told_by(axes)
    if own.spacing_mm:
        if table.spacing_mm and _differ(table, own):
            found = {"contradiction": _spacings_differ(table, own)}
    elif table.spacing_mm and not own.affine:
        found |= _spacing_told_by(axes, table)
    return own.model_copy(update=found)


def table_spacing_mm(metadata: Mapping[str, str]) -> list[float]:
    """Return [x, y, z] from XYSpacing and ZSpacing, or an empty list unless all are known."""
    in_plane = _in_plane_mm(metadata.get("XYSpacing", ""))
    through = number_in(metadata, "ZSpacing")
    return [*in_plane, through] if in_plane and through is not None else []


@lru_cache
def _in_plane_mm(text: str) -> tuple[float, ...]:
    """Return the two numbers in a cell of XYSpacing; empty if it has others."""
    try:
        # The table holds a Python list as text, such as [0.75, 0.75].
        in_plane = literal(text or "[]")
        x, y = (_number(str(value)) for value in in_plane)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ()
    return (x, y) if isinstance(in_plane, list) and x is not None and y is not None else ()


def number_in(metadata: Mapping[str, str], column: str) -> float | None:
    """Return the number in a column of the table; None if there is none, or it is not finite."""
    return _number(metadata.get(column, ""))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def table_sizes(metadata: Mapping[str, str]) -> tuple[int, ...]:
    """Return (x, y, z) from Columns, Rows and NumberofSlices; empty unless all are known."""
    numbers = [number_in(metadata, name) for name in ("Columns", "Rows", "NumberofSlices")]
    sizes = tuple(int(number) for number in numbers if number and number == int(number))
    return sizes if len(sizes) == 3 else ()


def _in_order(values: Sequence[T], order: str) -> tuple[T, ...]:
    first, second, third = _PLACES[order]
    return values[first], values[second], values[third]


def _axes_told_by(orders: Sequence[str]) -> dict[str, object]:
    """Return the axes if only one order of them fits the sizes."""
    if len(orders) > 1 or orders[0] not in get_args(Axes):
        return {}
    return {"axes": orders[0], "axes_from": "Rows, Columns and NumberofSlices of the table"}


def _spacing_told_by(orders: Sequence[str], table: _Table) -> dict[str, object]:
    """Return the spacing if all orders of the axes that fit the sizes agree on it."""
    if min(table.spacing_mm) <= 0:
        return {}
    spacings = {_in_order(table.spacing_mm, order) for order in orders}
    if len(spacings) > 1:
        return {}
    return {
        "spacing_axes_mm": spacings.pop(),
        "spacing_mm": table.spacing_mm,
        "spacing_from": "XYSpacing and ZSpacing of the table",
    }


def _differ(table: _Table, own: Geometry) -> bool:
    pairs = zip(table.spacing_mm, own.spacing_mm, strict=True)
    return any(not math.isclose(one, other, rel_tol=_EQUAL) for one, other in pairs)


def _sizes_differ(table: _Table, header: ArrayHeader) -> str:
    sizes = "×".join(map(str, table.sizes))
    shape = "×".join(map(str, header.shape))
    return f"the table's columns, rows and slices are {sizes}, the array's axes {shape}"


def _spacings_differ(table: _Table, own: Geometry) -> str:
    told, header = map(_in_mm, (table.spacing_mm, own.spacing_mm))
    return f"the table's spacing is {told}, the file's {header}"


def _in_mm(spacing_mm: tuple[float, ...]) -> str:
    return "×".join(f"{size:.4g}" for size in spacing_mm) + " mm"
