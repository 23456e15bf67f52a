"""Look at a sample in its shard: one pass over its array, and the facts that its JSON tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.members import LABEL_NAMES
from ctrate_convert.looking.cuts import Cuts, cut, planes_at_once
from ctrate_convert.looking.look import Known, Look
from ctrate_convert.reading.arrays import read_boxes
from ctrate_convert.reading.asked import Asked
from ctrate_convert.reading.boxes import whole
from ctrate_convert.reading.cache import open_shard
from ctrate_convert.reading.index import StoredSample
from ctrate_convert.reading.samples import read_json, read_labels, read_report
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.reading.viewed import Viewed, reader_of
from ctrate_convert.store.records.geometry import Axes
from ctrate_convert.store.records.recipe import Recipe
from ctrate_convert.views.described import geometry_of, unit_of, view_facts


def look_at(stored: StoredSample, recipe: Recipe | None = None, assume_axes: Axes = "") -> Look:
    """Return the look of one sample; a few planes of its array are in memory at a time.

    With a ``recipe`` it is the look of this view of the sample, which is in memory whole.

    Raises:
        SampleError: there can be no such view of this sample.
        DamageError: the shard does not hold what its record says.
        EnvironmentProblem: it cannot be read.
    """
    asked = Asked(view=recipe, assume_axes=assume_axes)
    with open_shard(stored.shard) as file:
        fields = read_json(file, stored)
        reader = reader_of(asked, stored.array, fields)
        report = read_report(file, stored)
        labels = read_labels(file, stored)
        if isinstance(reader, Viewed):
            view = reader.view
            array = reader.read(file, stored.array, whole(view.shape))
            cuts = cut(view.shape, [array])
            facts = view_facts(view)
            unit, intensity = unit_of(facts)
            fields = {**fields, **geometry_of(view).model_dump(), "view": facts.as_json()}
            fields |= {"intensity": intensity, "hu_from": unit.evidence}
            slope, intercept = unit.slope, unit.intercept
            dtype = array.dtype.name
        else:
            cuts = _cuts(file, stored)
            slope, intercept = stored.array.hu_slope, stored.array.hu_intercept
            dtype = f"{np.dtype(stored.array.dtype).name}, {stored.array.encoding}"
    known = Known(
        key=stored.key,
        where=stored.shard.path,
        dtype=dtype,
        axes=str(fields.get("axes", "")),
        orientation=str(fields.get("orientation", "")),
        spacing_mm=tuple(map(float, fields.get("spacing_axes_mm", ()))),
        geometry_from=_evidence(fields),
        to_hu=(slope, intercept) if slope else None,
        intensity=str(fields.get("intensity", "")),
        unit_from=str(fields.get("hu_from", "")),
        labels=tuple(
            name for name, value in zip(LABEL_NAMES, labels.tolist(), strict=True) if value
        ),
        findings=report.partition("\n")[0],
        view=_view_words(fields.get("view", {})),
    )
    if not slope:
        slope, intercept = stored.array.value_scale, 0.0
    return Look(known, cuts.scaled(slope, intercept))


def _view_words(facts: dict[str, Any]) -> str:
    if not facts:
        return ""
    shape = " × ".join(map(str, facts["native_shape"]))
    return f"{facts['recipe']} ({facts['recipe_id'][:12]}) of {shape}, {facts['native_axes']}"


def _evidence(fields: dict[str, Any]) -> str:
    named = (fields.get(name, "") for name in ("affine_from", "spacing_from", "axes_from"))
    return "; ".join(dict.fromkeys(str(one) for one in named if one))


def _cuts(file: ShardFile, stored: StoredSample) -> Cuts:
    shape = stored.array.shape
    step = planes_at_once(shape)

    def slabs() -> Iterator[NDArray[Any]]:
        boxes = [
            (slice(first, min(first + step, shape[0])), slice(0, shape[1]), slice(0, shape[2]))
            for first in range(0, shape[0], step)
        ]
        yield from read_boxes(file, stored.array, boxes)

    return cut(shape, slabs())
