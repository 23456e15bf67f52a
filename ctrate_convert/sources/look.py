"""Look at a source file: one pass over it, with what it says of itself and what its voxels show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.geometry import geometry_of
from ctrate_convert.formats.hounsfield import IntensityHistogram, to_hounsfield
from ctrate_convert.looking.cuts import Cuts, Shape, cut, planes_at_once
from ctrate_convert.looking.look import Known, Look
from ctrate_convert.sources.kinds import open_source, split_name
from ctrate_convert.sources.source import Source


def look_at_file(path: Path, array_key: str | None = None) -> Look:
    """Return the look of a source: in Hounsfield units if its voxels and its header show them.

    Without the metadata table: geometry is what the file itself says.

    Raises:
        SampleError: the file cannot be read, or holds no single volume.
    """
    with open_source(path, array_key) as source:
        shown = IntensityHistogram(source.header.scaling)
        extremes = [math.inf, -math.inf]
        cuts = _cuts(source, shown, extremes)
        header = source.header
    intensity = shown.intensity(*extremes) if extremes[0] <= extremes[1] else "unknown"
    unit = to_hounsfield(intensity, header.scaling, 1.0, {})
    geometry = geometry_of(header, {})
    named = split_name(path.name)
    evidence = (geometry.affine_from, geometry.spacing_from, geometry.axes_from)
    slope, intercept = (unit.slope, unit.intercept) if unit.slope else header.scaling
    known = Known(
        key=named[0] if named else path.name,
        where=str(path),
        dtype=np.dtype(header.dtype).name,
        axes=geometry.axes,
        orientation=geometry.orientation,
        spacing_mm=geometry.spacing_axes_mm,
        geometry_from="; ".join(dict.fromkeys(filter(None, evidence))),
        to_hu=(slope, intercept) if unit.slope else None,
        intensity=intensity,
        unit_from=unit.evidence,
        notes=tuple(f"a shard would not hold: {name}" for name in header.left_out),
    )
    return Look(known, cuts.scaled(slope, intercept))


def cuts_of_file(path: Path, array_key: str | None, slope: float, intercept: float) -> Cuts:
    """Return the cuts of a source whose elements are scaled like this. Raises as `look_at_file`."""
    with open_source(path, array_key) as source:
        return _cuts(source).scaled(slope, intercept)


def _cuts(
    source: Source, shown: IntensityHistogram | None = None, extremes: list[float] | None = None
) -> Cuts:
    if len(source.array.shape) != 3:
        raise SampleError("not a volume of three axes", where=source.path, seen=source.array.shape)
    first, second, third = source.array.shape
    # Elements in Fortran order are those of the reversed axes in C order.
    shape: Shape = (third, second, first) if source.array.fortran_order else (first, second, third)
    plane = shape[1] * shape[2]

    def slabs() -> Iterator[NDArray[Any]]:
        for block in source.blocks(planes_at_once(shape) * plane):
            if shown is not None and extremes is not None:
                finite = block if block.dtype.kind != "f" else block[np.isfinite(block)]
                if finite.size:
                    shown.add(finite)
                    extremes[0] = min(extremes[0], float(finite.min()))
                    extremes[1] = max(extremes[1], float(finite.max()))
            yield block.reshape(-1, *shape[1:])

    cuts = cut(shape, slabs())
    return cuts.reversed() if source.array.fortran_order else cuts
