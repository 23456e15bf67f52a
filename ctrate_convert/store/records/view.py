"""The facts of one view: the recipe, the volume it was made from, and its place in the patient."""

from __future__ import annotations

from typing import Any

from ctrate_convert.store.records.base import Blake3, Record, Sha256
from ctrate_convert.store.records.geometry import ArrayAxes, Row

Three = tuple[int, int, int]


class NativeArray(Record):
    """The stored array that a view was made from.

    ``record_sha256`` is that of the record of its shard, and ``blake3`` that of its elements.
    """

    shard: str
    record_sha256: Sha256
    blake3: Blake3


class ViewFacts(Record):
    """What puts a prediction on a view back into the patient; the ``view`` of a sample's JSON.

    ``shape``, ``origin``, ``resampled_shape`` and ``spacing_axes_mm`` are in the order of ``axes``.
    ``origin`` is the place of the view's first voxel in the resampled volume, whose shape is
    ``resampled_shape``; a negative one is padding. ``spacing_axes_mm`` is the true spacing,
    in·c/out and not the target. ``affine`` maps an index of the view to RAS+ mm; it is empty if
    that of the volume is not known. An element times ``hu_slope`` plus ``hu_intercept`` is in
    Hounsfield units.
    ``native_shape`` and ``native_axes`` are those of the stored volume; ``assumed_axes`` are the
    latter if a person assumed them, else empty. Along each axis of the view its voxel i lies at
    voxel ``native_start + native_step·i`` of the stored volume. ``native`` is None in views that
    are made while reading.
    """

    recipe: str
    recipe_id: Sha256
    axes: ArrayAxes
    assumed_axes: ArrayAxes
    native_shape: Three
    native_axes: ArrayAxes
    native_start: tuple[float, float, float]
    native_step: tuple[float, float, float]
    shape: Three
    dtype: str
    resampled_shape: Three
    origin: Three
    spacing_axes_mm: tuple[float, ...]
    affine: tuple[Row, ...]
    hu_slope: float
    hu_intercept: float
    native: NativeArray | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the ``view`` of a sample's JSON."""
        return self.model_dump(mode="json", exclude_none=True)
