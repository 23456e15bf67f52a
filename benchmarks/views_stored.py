"""Stored views: what making them costs, and what reading them saves, against the original's step.

The original's step is that of `benchmarks.views`: its own shards are read, then CT-CLIP's
arithmetic runs in float64.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import original_way, our_way, views
from benchmarks.conversion import Size
from benchmarks.measure import Cost, Spread, cost_of, in_turns, ratios, settle
from benchmarks.report import Table, Target
from benchmarks.volumes import make
from ctrate_convert import Volumes
from ctrate_convert.planning.views.plan import plan_views
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.base import Encoding
from ctrate_convert.store.records.plan import PlanSettings
from ctrate_convert.store.records.recipe import Recipe
from ctrate_convert.views.presets import presets

_MAKING = Target("npy shards to a proven b2nd view", low=1.6, unit=" samples/s")
_MAKING_RATIO = Target("the same, against the original's step", low=1.6 * 2.1)
"""1.6 samples a second were asked of a machine where that step takes 2.1 s."""
_READING: dict[str, Target] = {
    "npy": Target("reading the npy view, against the original's step", low=100),
    "b2nd": Target("reading the b2nd view, against the original's step", low=25),
}
_ORIGINAL = "the original's shards, the original's step"
_ENCODINGS: tuple[Encoding, ...] = ("npy", "b2nd")


def tables(work: Path, size: Size) -> list[Table]:
    """Make views of native shards, then read them; both in turns with the original's step."""
    folder = work / "stored"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sources = make(views.volumes(size.shape), work / "volumes")
    our_way.write_inputs(folder / "inputs", sources, shape=size.shape)
    natives = {encoding: _native(folder, encoding, len(sources)) for encoding in _ENCODINGS}
    original_way.convert(sources, folder / "original.tar")
    found = [_making(folder, natives, size), _reading(folder, natives["npy"], size)]
    shutil.rmtree(folder)
    return found


def _native(folder: Path, encoding: Encoding, samples: int) -> Path:
    out = folder / f"native-{encoding}"
    our_way.plan(folder / "inputs", out, samples, encoding)
    our_way.convert(out, 0)
    _merge(out)
    return out


def _merge(out: Path) -> None:
    dataset = Dataset(out)
    merge(dataset, load_plans(dataset))


def _planned(native: Path, out: Path, recipe: Recipe, encoding: Encoding) -> None:
    shutil.rmtree(out, ignore_errors=True)
    settings = PlanSettings(
        data_folder=str(native),
        reports_file="",
        meta_file="",
        labels_file="",
        view=recipe,
        encoding=encoding,
        assume_axes="yxz",
        probe=0,
    )
    plan_views(Dataset(out), settings)
    settle()


def _making(folder: Path, natives: dict[Encoding, Path], size: Size) -> Table:
    recipe = presets()["ctclip"]

    def make_view(native: Path, encoding: Encoding) -> Cost:
        out = folder / "made"
        _planned(native, out, recipe, encoding)
        return cost_of(functools.partial(our_way.convert, out, 0))

    original = _original(folder, natives["npy"])
    work: dict[str, Callable[[], Cost]] = {_ORIGINAL: functools.partial(cost_of, original)}
    for one, out in natives.items():
        work |= {f"{one} → {other}": functools.partial(make_view, out, other) for other in natives}
    costs = dict(zip(work, in_turns(list(work.values()), size.rounds), strict=True))
    samples = len(views.volumes(size.shape))
    rows = [
        [
            way,
            f"{_speed(samples, (cost.cpu_s for cost in seen)):,.2f} samples/s",
            f"{_speed(samples, (cost.wall_s for cost in seen)):,.2f}",
            str(ratios(costs[_ORIGINAL], seen)),
        ]
        for way, seen in costs.items()
    ]
    made = costs["npy → b2nd"]
    return Table(
        "Stored views: native shards to proven shards of ctclip, one worker",
        ["from → to", "by CPU", "by wall clock", "against the original's step"],
        rows,
        [
            "The whole native volume is read and its BLAKE3 compared, the view is made, written, "
            "read back, compared and published. "
            f"{views.times(size.shape)} voxels become 240×480×480.",
            _MAKING.note(_speed(samples, (cost.cpu_s for cost in made))) + ".",
            _MAKING_RATIO.note(ratios(costs[_ORIGINAL], made).median) + ".",
        ],
    )


def _speed(samples: int, seconds: Iterable[float]) -> float:
    return samples / Spread.of(seconds).median


def _original(folder: Path, native: Path) -> Callable[[], object]:
    return functools.partial(views.original, folder / "original.tar", views.spacing_of(native))


def _reading(folder: Path, native: Path, size: Size) -> Table:
    work: dict[str, Callable[[], object]] = {}
    stored_bytes = {}
    for name, recipe in _recipes().items():
        for encoding in _ENCODINGS:
            out = folder / f"{name}-{encoding}"
            _planned(native, out, recipe, encoding)
            our_way.convert(out, 0)
            _merge(out)
            volumes = Volumes(out)
            way = f"{name} as {encoding}"
            stored_bytes[way] = _bytes_of(out) / len(volumes)
            work[way] = functools.partial(views.read_all, volumes)
    all_work: dict[str, Callable[[], object]] = {_ORIGINAL: _original(folder, native), **work}
    costs = views.costs_in_turns(all_work, size.rounds)
    samples = len(views.volumes(size.shape))
    rows = [
        [
            way,
            f"{stored_bytes[way] / 1e6:,.1f} MB" if way in stored_bytes else "",
            f"{1e3 * Spread.of(cost.cpu_s for cost in seen).median / samples:,.1f} ms",
            str(ratios(costs[_ORIGINAL], seen)),
        ]
        for way, seen in costs.items()
    ]
    return Table(
        "Stored views: CPU a sample of one worker that reads whole views",
        ["what is read", "stored", "CPU a sample", "against the original's step"],
        rows,
        [
            "From the page cache, into the same process, as a training loop without workers does. "
            f"The original's resampling here: {views.resampler()}.",
            *(
                target.note(ratios(costs[_ORIGINAL], costs[f"int16 as {encoding}"]).median) + "."
                for encoding, target in _READING.items()
            ),
        ],
    )


def _recipes() -> dict[str, Recipe]:
    int16 = presets()["ctclip"]
    return {"int16": int16, "uint8": int16.model_copy(update={"output": "uint8", "values": None})}


def _bytes_of(out: Path) -> int:
    return sum(path.stat().st_size for path in out.glob("*.tar"))
