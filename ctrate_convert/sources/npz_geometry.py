"""Find the geometry that an NPZ states in the entries beside its volume.

Two forms are known: a ``metadata`` entry, JSON with ``affine.original`` and ``affine.final`` (and
``spacing`` from the slowest axis to the fastest), and an ``affine`` entry of 4×4 numbers. Both map
an index of the array, in the order of its own axes, to RAS+ mm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.affines import (
    Affine,
    anatomical_axes,
    is_usable,
    orientation_of,
    rows_of,
    spacing_of,
)
from ctrate_convert.formats.npy_header import small_array
from ctrate_convert.sources.extra import Look
from ctrate_convert.store.records.geometry import Axes, Geometry

_METADATA, _AFFINE = "metadata.npy", "affine.npy"
_MOST_BYTES = 2**16
_EQUAL = 0.001

Read = Callable[[Look], tuple[bytes, bytes, str]]
"""A function that returns an entry's header, its content, and the JSON text in it."""


def entries_with_geometry(looks: list[Look]) -> list[Look]:
    """Return the entries that may state the volume's geometry; all are small."""
    return [
        look
        for look in looks
        if look.entry.name in (_METADATA, _METADATA.removesuffix(".npy"), "metadata.json", _AFFINE)
        and look.content_bytes <= _MOST_BYTES
    ]


def stated_geometry(looks: list[Look], read: Read) -> Geometry | None:
    """Return what the entries ``looks`` state; None if they state nothing that can be used."""
    # The metadata come before the bare affine, since they also tell whether the array was
    # resampled.
    for look in sorted(looks, key=lambda one: one.entry.name == _AFFINE):
        try:
            header, content, text = read(look)
        except SampleError:
            continue  # converting tells that it is damaged
        if look.entry.name == _AFFINE:
            found = _from_affine(header, content)
        else:
            found = _from_metadata(text)
        if found is not None:
            return found
    return None


def _from_affine(header: bytes, content: bytes) -> Geometry | None:
    try:
        matrix = small_array(header + content)
    except SampleError:
        return None
    if matrix.dtype.kind not in "fiu":
        return None
    return _geometry(rows_of(matrix), "entry affine") if is_usable(matrix) else None


def _from_metadata(text: str) -> Geometry | None:
    try:
        fields = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    affines = fields.get("affine")
    nested: Mapping[str, Any] = affines if isinstance(affines, dict) else {}
    final = _affine(fields.get("affine.final", nested.get("final")))
    original = _affine(fields.get("affine.original", nested.get("original")))
    if not final or not _agrees(fields.get("spacing"), spacing_of(final)):
        return None
    found = _geometry(final, "entry metadata: affine.final")
    if not original:
        return found
    # The order of the axes may have changed too, so only the sizes are compared.
    resampled = not _close(sorted(spacing_of(original)), sorted(spacing_of(final)))
    if not resampled:
        return found
    why = "entry metadata: affine.final has another spacing than affine.original"
    return found.model_copy(update={"grid": "resampled", "grid_from": why})


def _affine(value: Any) -> Affine:
    return rows_of(value) if is_usable(value) else ()


def _agrees(stated: Any, spacing: tuple[float, ...]) -> bool:
    """Return False if the stated spacing, in whatever order, is not the affine's."""
    if stated is None:
        return True
    try:
        return _close(sorted(map(float, stated)), sorted(spacing))
    except (TypeError, ValueError, OverflowError):
        return False


def _close(first: list[float], second: list[float]) -> bool:
    return len(first) == len(second) and all(
        math.isclose(one, other, rel_tol=_EQUAL) for one, other in zip(first, second, strict=True)
    )


def _geometry(affine: Affine, evidence: str) -> Geometry:
    spacing = spacing_of(affine)
    axes = anatomical_axes(affine)
    known = axes in get_args(Axes)
    return Geometry.model_validate(
        {
            "axes": axes if known else "",
            "axes_from": evidence if known else "",
            "spacing_axes_mm": spacing,
            "spacing_mm": tuple(spacing[axes.index(axis)] for axis in "xyz"),
            "spacing_from": evidence,
            "affine": affine,
            "affine_from": evidence,
            "orientation": orientation_of(affine),
        }
    )
