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
from ctrate_convert.reading.cache import open_shard
from ctrate_convert.reading.index import StoredSample
from ctrate_convert.reading.samples import read_json, read_labels, read_report
from ctrate_convert.reading.shard_file import ShardFile


def look_at(stored: StoredSample) -> Look:
    """Return the look of one sample; a few planes of its array are in memory at a time.

    Raises:
        DamageError: the shard does not hold what its record says.
        EnvironmentProblem: it cannot be read.
    """
    with open_shard(stored.shard) as file:
        fields = read_json(file, stored)
        report = read_report(file, stored)
        labels = read_labels(file, stored)
        cuts = _cuts(file, stored)
    array = stored.array
    slope, intercept = (
        (array.hu_slope, array.hu_intercept) if array.hu_slope else (array.value_scale, 0.0)
    )
    known = Known(
        key=stored.key,
        where=stored.shard.path,
        dtype=f"{np.dtype(array.dtype).name}, {array.encoding}",
        axes=str(fields.get("axes", "")),
        orientation=str(fields.get("orientation", "")),
        spacing_mm=tuple(map(float, fields.get("spacing_axes_mm", ()))),
        geometry_from=_evidence(fields),
        to_hu=(slope, intercept) if array.hu_slope else None,
        intensity=str(fields.get("intensity", "")),
        unit_from=str(fields.get("hu_from", "")),
        labels=tuple(
            name for name, value in zip(LABEL_NAMES, labels.tolist(), strict=True) if value
        ),
        findings=report.partition("\n")[0],
    )
    return Look(known, cuts.scaled(slope, intercept))


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
