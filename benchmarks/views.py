"""Views: the kernel alone, and reading through it, against the step that training code does today.

That step is CT-CLIP's `nii_img_to_tensor` (scripts/data.py, b85bec5) after the file is loaded, all
in float64. Where torch is installed its own `interpolate` resamples, else the same in numpy.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from numpy.typing import NDArray

from benchmarks import original_way, our_way
from benchmarks.conversion import Size
from benchmarks.measure import Cost, Spread, cost_of, in_turns, ratios
from benchmarks.report import Table, Target
from benchmarks.volumes import Shape, SourceKind, Volume, make
from ctrate_convert import Volumes
from ctrate_convert.formats.geometry import table_spacing_mm
from ctrate_convert.formats.tiling import Box
from ctrate_convert.reading.boxes import whole
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.plan import Encoding
from ctrate_convert.views.presets import presets
from ctrate_convert.views.view import Facts, View

FULL = Size((512, 512, 300), rounds=5)
QUICK = Size((480, 480, 60), rounds=1)

Array = NDArray[Any]

_KERNEL = Target("kernel, ctclip, by CPU", low=700, unit=" MB/s")
_AGAINST = Target("kernel, ctclip, against the original's step", low=8)
_READING = Target("npy shards through the view, against the original's", low=10)

_SAMPLES = 2
_PLANES_AT_ONCE = 16
_XY_MM, _Z_MM = 0.7, 1.0
_ENCODINGS: tuple[Encoding, ...] = ("npy", "b2nd")
_INT16 = SourceKind("int16", deflated=True)
_STEP = "the original's step"
_LAYOUT = "the original's shards, the original's step"


def tables(work: Path, size: Size) -> list[Table]:
    """Measure the kernel, and reading; each against the original's in the same run."""
    (source, *_) = sources = make(volumes(size.shape), work / "volumes")
    with np.load(source) as archive:
        yxz = archive["data"]
    return [_kernel(yxz, size.rounds), _reading(sources, work / "views", size)]


def volumes(shape: Shape) -> list[Volume]:
    """The volumes that are read: int16, deflated."""
    return [Volume(_INT16, shape, seed) for seed in range(_SAMPLES)]


def _kernel(yxz: Array, rounds: int) -> Table:
    zyx = np.ascontiguousarray(yxz.transpose(2, 0, 1))
    work: dict[str, Callable[[], object]] = {
        _STEP: functools.partial(original_step, yxz, _XY_MM, _Z_MM),
        **{name: functools.partial(_view, name, zyx) for name in presets()},
    }
    costs = costs_in_turns(work, rounds)
    megabytes = zyx.nbytes / 1e6
    rows = [
        [
            name,
            f"{1e3 * Spread.of(cost.cpu_s for cost in seen).median:,.0f} ms",
            f"{_speed(seen, megabytes):,.0f} MB/s",
            str(ratios(costs[_STEP], seen)),
        ]
        for name, seen in costs.items()
    ]
    return Table(
        "Views: the kernel, from an array in memory, one core",
        ["view", "CPU a volume", "of int16 input", "against the original's step"],
        rows,
        [
            f"{times(zyx.shape)} voxels of {_XY_MM}, {_XY_MM} and {_Z_MM} mm.",
            f"The original's resampling here: {resampler()}.",
            _KERNEL.note(_speed(costs["ctclip"], megabytes)) + ".",
            _AGAINST.note(ratios(costs[_STEP], costs["ctclip"]).median) + ".",
        ],
    )


def _reading(sources: list[Path], folder: Path, size: Size) -> Table:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    original_way.convert(sources, folder / "original.tar")
    our_way.write_inputs(folder / "inputs", sources, shape=size.shape)
    work: dict[str, Callable[[], object]] = {}
    for encoding in _ENCODINGS:
        out = folder / encoding
        our_way.plan(folder / "inputs", out, _SAMPLES, encoding)
        our_way.convert(out, 0)
        dataset = Dataset(out)
        merge(dataset, load_plans(dataset))
        volumes = Volumes(out, view="ctclip", assume_axes="yxz")
        work[f"{encoding} shards, view ctclip"] = functools.partial(read_all, volumes)
    spacing = spacing_of(folder / "npy")
    work = {_LAYOUT: functools.partial(original, folder / "original.tar", spacing), **work}
    costs = costs_in_turns(work, size.rounds)
    shutil.rmtree(folder)
    rows = [
        [
            name,
            f"{Spread.of(cost.cpu_s for cost in seen).median / _SAMPLES:,.3f} s",
            str(ratios(costs[_LAYOUT], seen)),
        ]
        for name, seen in costs.items()
    ]
    npy = costs[f"{_ENCODINGS[0]} shards, view ctclip"]
    return Table(
        "Views while reading: CPU a sample of one worker",
        ["what is read, and how", "CPU a sample", "against the original's"],
        rows,
        [
            f"Volumes of {times(size.shape)}, {spacing[0]:g} and {spacing[1]:g} mm, from the page "
            f"cache, whole. The original's resampling here: {resampler()}.",
            _READING.note(ratios(costs[_LAYOUT], npy).median) + ".",
        ],
    )


def spacing_of(native: Path) -> tuple[float, float]:
    """Return the first sample's spacing in mm, in the plane and through it."""
    sample = next(iter(Volumes(native).values()))
    in_plane, _, through = table_spacing_mm(sample.json["metadata"])
    return in_plane, through


def costs_in_turns(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[Cost]]:
    """Return what each work cost in each round, by its name."""
    costs = in_turns([functools.partial(cost_of, one) for one in work.values()], rounds)
    return dict(zip(work, costs, strict=True))


def _speed(costs: Iterable[Cost], megabytes: float) -> float:
    return megabytes / Spread.of(cost.cpu_s for cost in costs).median


def _view(name: str, zyx: Array) -> Array:
    facts = Facts("", zyx.shape, "zyx", (_Z_MM, _XY_MM, _XY_MM), "SPL", (), 1.0, 0.0)
    view = View(presets()[name], facts)

    def slabs(box: Box) -> Iterator[Array]:
        part = zyx[box]
        for start in range(0, len(part), _PLANES_AT_ONCE):
            yield part[start : start + _PLANES_AT_ONCE]

    return view.read(whole(view.shape), slabs)


def read_all(volumes: Volumes) -> None:
    """Read every array whole."""
    for sample in volumes.values():
        np.asarray(sample.array)


def original(path: Path, spacing: tuple[float, float]) -> None:
    """Read the original's shard, and do its step with every volume."""
    for sample in webdataset.WebDataset(str(path), shardshuffle=False).decode():
        shape = sample["json"]["volume_shape"]
        original_step(np.frombuffer(sample["bin"], np.float16).reshape(shape), *spacing)


def original_step(hwd: Array, xy_mm: float, z_mm: float) -> Array:
    """CT-CLIP's tensor, float32, (1, 240, 480, 480), from (h, w, d) in Hounsfield units."""
    data = (1.0 * hwd.astype(np.float64) + 0.0).transpose(2, 0, 1)
    factors = (z_mm / 1.5, xy_mm / 0.75, xy_mm / 0.75)
    size = [max(1, int(n * factor)) for n, factor in zip(data.shape, factors, strict=True)]
    data = np.transpose(_interpolated(data, size), (1, 2, 0))
    data = (np.clip(data, -1000, 1000) / 1000).astype(np.float32)
    inside, pads = [], []
    for n, wanted in zip(data.shape, (480, 480, 240), strict=True):
        start = max((n - wanted) // 2, 0)
        length = min(start + wanted, n) - start
        before = (wanted - length) // 2
        inside.append(slice(start, start + length))
        pads.append((before, wanted - length - before))
    padded = np.pad(data[tuple(inside)], pads, constant_values=-1)
    return np.ascontiguousarray(padded.transpose(2, 0, 1))[None]


def resampler() -> str:
    """Tell what resamples in the original's step here."""
    return "torch" if importlib.util.find_spec("torch") else "numpy, since torch is not installed"


def _interpolated(data: Array, size: list[int]) -> Array:
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        tensor = torch.tensor(data)[None, None]
        found = torch.nn.functional.interpolate(
            tensor, size=size, mode="trilinear", align_corners=False
        )
        resampled: Array = found.numpy()[0, 0]
        return resampled
    for axis, wanted in enumerate(size):
        n = data.shape[axis]
        place = np.maximum((np.arange(wanted) + 0.5) * (n / wanted) - 0.5, 0.0)
        low = np.minimum(place.astype(np.intp), n - 1)
        weight = (place - low).reshape([-1 if one == axis else 1 for one in range(3)])
        one, other = data.take(low, axis), data.take(np.minimum(low + 1, n - 1), axis)
        data = one * (1 - weight) + other * weight
    return data


def times(shape: tuple[int, ...]) -> str:
    """Return a shape in words."""
    return "×".join(map(str, shape))
