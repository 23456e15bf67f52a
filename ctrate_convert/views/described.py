"""Describe a view in the terms of the records: its place in the patient, its header, its unit."""

from __future__ import annotations

from collections.abc import Mapping

from ctrate_convert.formats.affines import orientation_of
from ctrate_convert.formats.hounsfield import ToHounsfield
from ctrate_convert.store.records.geometry import Axes, Geometry
from ctrate_convert.store.records.plan import ArrayHeader
from ctrate_convert.store.records.record import ConvertedSample, Intensity
from ctrate_convert.store.records.view import NativeArray, ViewFacts
from ctrate_convert.views.view import Facts, View, facts_of

_INTENSITY: dict[tuple[float, float], Intensity] = {(1.0, 0.0): "hu", (1000.0, 0.0): "normalised"}


def facts_of_record(
    sample: ConvertedSample, metadata: Mapping[str, str], assume_axes: Axes = ""
) -> Facts:
    """Return what a sample's record and its row of the metadata table say of its volume.

    The sample's JSON says the same, but it lies in the shard.

    Raises:
        SampleError: as `facts_of`.
    """
    array = sample.array
    fields = {
        **sample.geometry.model_dump(mode="json"),
        "hu_slope": array.hu_slope,
        "hu_intercept": array.hu_intercept,
        "metadata": metadata,
    }
    return facts_of(fields, array.name, array.shape, assume_axes)


def view_facts(view: View, native: NativeArray | None = None) -> ViewFacts:
    """Return the facts of a view; ``native`` names the stored array that it is made from."""
    slope, intercept = view.elements.to_hu
    volume = view.volume
    return ViewFacts(
        recipe=view.recipe.name,
        recipe_id=view.recipe.recipe_id,
        axes=view.recipe.axes,
        assumed_axes=volume.assumed_axes,
        native_shape=volume.shape,
        native_axes=volume.axes,
        shape=view.shape,
        dtype=view.elements.dtype.name,
        resampled_shape=view.resampled,
        origin=view.origin,
        spacing_axes_mm=view.spacing_mm,
        affine=view.affine,
        hu_slope=slope,
        hu_intercept=intercept,
        native=native,
    )


def view_header(view: View, native: NativeArray) -> ArrayHeader:
    """Return the header of a view that is going to be stored."""
    return ArrayHeader(
        array_key="",
        dtype=view.elements.dtype.newbyteorder("<").str,
        shape=view.shape,
        fortran_order=False,
        compression="stored",
        kind="shard",
        geometry=geometry_of(view),
        view=view_facts(view, native),
    )


def unit_of(facts: ViewFacts) -> tuple[ToHounsfield, Intensity]:
    """Return how elements of a view become Hounsfield units, and the scale that they are in."""
    unit = facts.hu_slope, facts.hu_intercept
    evidence = f"the recipe {facts.recipe}, of the volume's Hounsfield units"
    return ToHounsfield(*unit, evidence), _INTENSITY.get(unit, "unknown")


def geometry_of(view: View) -> Geometry:
    """Return what is known of a view's axes, spacing and place, with the recipe as evidence."""
    axes, affine = view.recipe.axes, view.affine
    why = f"the recipe {view.recipe.name}"
    of_volume = f"{why}, and the volume's own"
    return Geometry(
        axes=axes,
        axes_from=of_volume,
        spacing_axes_mm=view.spacing_mm,
        spacing_mm=tuple(view.spacing_mm[axes.index(axis)] for axis in "xyz"),
        spacing_from=of_volume,
        affine=affine,
        affine_from=of_volume if affine else "",
        orientation=orientation_of(affine) if affine else "",
        grid="resampled",
        grid_from=why,
    )
