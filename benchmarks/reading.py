"""Samples a second of one worker: as NPZ, in the original's layout, and in each of our encodings.

Whole volumes and crops, by key and through pipelines. All of it from the page cache: storage
would slow down most what reads most.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import webdataset
from numpy.typing import NDArray

from benchmarks import original_way, our_way
from benchmarks.conversion import Size
from benchmarks.measure import Cost, Spread, cost_of, in_turns, ratios
from benchmarks.report import Table, Target
from benchmarks.volumes import Shape, SourceKind, Volume, make
from ctrate_convert import Volumes, decoder, open_dataset
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.plan import Encoding

FULL = Size((512, 512, 300), rounds=5)
QUICK = Size((480, 480, 60), rounds=2)

_CROP_TARGET = Target("b2nd with cubes", low=15)

_ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
_KINDS = (SourceKind("float32", deflated=True), SourceKind("int16", deflated=True))
_SAMPLES = 2
_CROP_EDGE = 128
_CROP_PASSES = 20

Array = NDArray[Any]


@dataclass(frozen=True)
class Candidate:
    """One way of reading. A pass of ``read`` gives all samples; ``passes`` make one round."""

    name: str
    read: Callable[[], Iterable[Array]]
    passes: int = 1

    def cost(self) -> Cost:
        """What one sample costs, averaged over a round."""
        count = 0

        def work() -> None:
            nonlocal count
            for _ in range(self.passes):
                count += sum(1 for _ in self.read())

        whole = cost_of(work)
        return Cost(whole.cpu_s / count, whole.wall_s / count)


def tables(work: Path, size: Size) -> list[Table]:
    """Write the same volumes in every way, and read them in turns."""
    folder = work / "reading"
    shutil.rmtree(folder, ignore_errors=True)
    candidates = _candidates(work, folder, size.shape)
    costs = in_turns([candidate.cost for candidate in candidates], size.rounds)
    shutil.rmtree(folder)
    by_name = dict(zip([candidate.name for candidate in candidates], costs, strict=True))
    return [_speed_table(by_name, size.shape), _crop_table(by_name, size.shape)]


def _candidates(work: Path, folder: Path, shape: Shape) -> list[Candidate]:
    folder.mkdir(parents=True)
    sources = {
        kind: make([Volume(kind, shape, seed) for seed in range(_SAMPLES)], work / "volumes")
        for kind in _KINDS
    }
    found = [
        Candidate(f"NPZ, {kind.name}: np.load", functools.partial(_load_all, paths))
        for kind, paths in sources.items()
    ]
    original = folder / "original.tar"
    original_way.convert(sources[_KINDS[0]], original)
    found.append(Candidate(_ORIGINAL, functools.partial(_original_layout, original)))
    our_way.write_inputs(folder / "inputs", sources[_KINDS[1]])
    crop = _crop(shape)
    for encoding in _ENCODINGS:
        out = _convert(folder, encoding)
        volumes = Volumes(out)
        plain = functools.partial(_plain, out, encoding)
        found += [
            Candidate(f"{encoding}: webdataset with decoder()", plain),
            Candidate(f"{encoding}: open_dataset", functools.partial(_arrays, open_dataset(out))),
            Candidate(_by_key(encoding), functools.partial(_whole, volumes)),
            Candidate(
                f"{encoding}: open_dataset, crop",
                functools.partial(_arrays, open_dataset(out, crop=crop)),
                1 if encoding == "npy.gz" else _CROP_PASSES,
            ),
            Candidate(
                _by_key(encoding) + ", crop",
                functools.partial(_crops, volumes, crop, np.random.default_rng(0)),
                1 if encoding == "npy.gz" else _CROP_PASSES,
            ),
        ]
    return found


_ORIGINAL = "original's layout: webdataset, np.frombuffer"


def _by_key(encoding: Encoding) -> str:
    return f"{encoding}: by key"


def _crop(shape: Shape) -> Shape:
    """128³, or half of what is smaller than twice that."""
    depth, height, width = (min(_CROP_EDGE, size // 2) for size in shape)
    return depth, height, width


def _convert(folder: Path, encoding: Encoding) -> Path:
    out = folder / encoding
    our_way.plan(folder / "inputs", out, _SAMPLES, encoding)
    our_way.convert(out, 0)
    dataset = Dataset(out)
    merge(dataset, load_plans(dataset))
    return out


def _load_all(paths: list[Path]) -> Iterable[Array]:
    for path in paths:
        with np.load(path, allow_pickle=False) as archive:
            yield archive["data"]


def _original_layout(path: Path) -> Iterable[Array]:
    """As the original project's loader reads it: the shape stands in the JSON."""
    stream = webdataset.WebDataset(str(path), shardshuffle=False).decode()
    for sample in stream:
        shape = sample["json"]["volume_shape"]
        yield np.frombuffer(sample["bin"], np.float16).reshape(shape)


def _plain(out: Path, encoding: Encoding) -> Iterable[Array]:
    shards = [str(path) for path in sorted(out.glob("*.tar"))]
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode(decoder()):
        yield sample[f"volume.{encoding}"]


def _arrays(samples: Iterable[dict[str, Any]]) -> Iterable[Array]:
    for sample in samples:
        yield sample["array"]


def _whole(volumes: Volumes) -> Iterable[Array]:
    for sample in volumes.values():
        yield sample.array[...]


def _crops(volumes: Volumes, crop: Shape, rng: np.random.Generator) -> Iterable[Array]:
    for sample in volumes.values():
        shape = sample.array.shape
        first = [int(rng.integers(0, n - m + 1)) for n, m in zip(shape, crop, strict=True)]
        z, y, x = (slice(at, at + n) for at, n in zip(first, crop, strict=True))
        yield sample.array[z, y, x]


def _speed_table(costs: dict[str, list[Cost]], shape: Shape) -> Table:
    rows = []
    for name, seen in costs.items():
        cpu, wall = (
            1 / Spread.of(seconds).median
            for seconds in ([cost.cpu_s for cost in seen], [cost.wall_s for cost in seen])
        )
        rows.append([name, f"{cpu:,.1f}", f"{wall:,.1f}", str(ratios(costs[_ORIGINAL], seen))])
    slower = [
        name
        for name, seen in costs.items()
        if name != _ORIGINAL and ratios(costs[_ORIGINAL], seen).median < 1
    ]
    return Table(
        "Reading: samples a second of one worker",
        ["what is read, and how", "by CPU", "by wall clock", "against the original's layout (CPU)"],
        rows,
        [
            f"Volumes of {_times(shape)}, from the page cache; crops of {_times(_crop(shape))} at "
            "random places. Above 1× a way is faster than the original's layout.",
            "Ours hold int16, the original's layout float16; np.load of float32 gives twice the "
            "bytes. `open_dataset` also reads the JSON, the report and the labels.",
            "Slower than the original's layout: " + ("; ".join(slower) or "nothing") + ".",
        ],
    )


def _crop_table(costs: dict[str, list[Cost]], shape: Shape) -> Table:
    rows = []
    for encoding in _ENCODINGS:
        name = _by_key(encoding)
        rows.append([name, str(ratios(costs[name], costs[f"{name}, crop"]))])
    reached = ratios(costs[_by_key("b2nd")], costs[f"{_by_key('b2nd')}, crop"]).median
    return Table(
        f"Crops of {_times(_crop(shape))} against whole volumes of {_times(shape)}",
        ["how", "times as fast"],
        rows,
        [f"By CPU. {_CROP_TARGET.note(reached)}."],
    )


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape))
