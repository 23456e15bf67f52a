"""The bytes of 50,000 stored views: each output in each encoding, from a few volumes."""

from __future__ import annotations

import functools
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Table
from benchmarks.size import Way, write_member
from benchmarks.volumes import Shape, SourceKind, Volume, make
from ctrate_convert.formats.tiling import Box
from ctrate_convert.reading.boxes import whole
from ctrate_convert.store.records.recipe import Output
from ctrate_convert.views.presets import presets
from ctrate_convert.views.view import Facts, View

SAMPLES = 50_000

_VOLUMES = 2
_OUTPUTS: tuple[Output, ...] = ("int16", "float16", "uint8")
_WAYS = (Way("npy"), Way("b2nd"))
_INT16 = SourceKind("int16", deflated=True)
_SPACING_MM = ((0.7, 1.0), (0.703125, 1.25))
"""In plane, and between slices: the second fills the view."""

Array = NDArray[Any]


def table(work: Path, shape: Shape) -> Table:
    """Store the views of a few volumes, and extrapolate."""
    folder = work / "view-sizes"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sources = make([Volume(_INT16, shape, seed) for seed in range(_VOLUMES)], work / "volumes")
    sizes: dict[tuple[Output, str], list[int]] = {}
    filled = []
    for source, spacing in zip(sources, _SPACING_MM, strict=True):
        with np.load(source) as archive:
            zyx = np.ascontiguousarray(archive["data"].transpose(2, 0, 1))
        for output in _OUTPUTS:
            view = _view(zyx, output, spacing)
            elements = view.read(whole(view.shape), functools.partial(_slabs, zyx))
            for way in _WAYS:
                size = write_member(folder, way, elements).size_bytes
                sizes.setdefault((output, way.encoding), []).append(size)
        filled.append(float(np.prod(np.minimum(view.shape, view.resampled)) / np.prod(view.shape)))
    shutil.rmtree(folder)
    rows = []
    for (output, encoding), seen in sizes.items():
        mean = statistics.fmean(seen)
        each = f"{min(seen) / 1e6:.1f} to {max(seen) / 1e6:.1f} MB"
        rows.append([f"{output}, {encoding}", each, f"{mean * SAMPLES / 1e12:.2f} TB"])
    x, y, z = shape
    return Table(
        f"Views: bytes of {SAMPLES:,} samples of ctclip, 480×480×240",
        ["output, encoding", "an array, measured", f"{SAMPLES:,}, extrapolated"],
        rows,
        [
            f"Extrapolated from the arrays of {_VOLUMES} volumes of {x}×{y}×{z}, without the other "
            "members and the tar: "
            + " and ".join(
                f"{xy:g}, {xy:g} and {z_mm:g} mm ({part:.0%} of the view is not padding)"
                for (xy, z_mm), part in zip(_SPACING_MM, filled, strict=True)
            )
            + ". b2nd depends on the noise of the scans: these are "
            "slices of one scan, repeated with little noise.",
        ],
    )


def _view(zyx: Array, output: Output, spacing: tuple[float, float]) -> View:
    xy_mm, z_mm = spacing
    planes, rows, columns = zyx.shape
    facts = Facts("", (planes, rows, columns), "zyx", (z_mm, xy_mm, xy_mm), "SPL", (), 1.0, 0.0)
    return View(presets()["ctclip"].model_copy(update={"output": output}), facts)


def _slabs(zyx: Array, box: Box) -> list[Array]:
    return [zyx[box]]
