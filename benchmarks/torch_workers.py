"""Whole volumes in torch's ``DataLoader``: arrays that torch copies, and tensors in shared memory.

In a worker process a numpy array is copied to new shared memory before the main process gets it;
with ``tensors=True`` it is read there in the first place.
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import our_way
from benchmarks.conversion import Size
from benchmarks.measure import Cost, Spread, in_turns
from benchmarks.report import Table, Target
from benchmarks.volumes import Shape, SourceKind, Volume, make
from ctrate_convert import open_dataset
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.plan import Encoding

FULL = Size((512, 512, 300), rounds=5)
QUICK = Size((480, 480, 60), rounds=2)

_TARGET = Target("npy, one by one, tensors against arrays", low=2)
_WORKERS = 2
_SHARDS = 2
_SAMPLES = 4
_PASSES = 2
_WAYS: tuple[tuple[Encoding, int | None, dict[str, str]], ...] = (
    ("npy", None, {}),
    ("npy", 2, {}),
    ("b2nd", None, {}),
    ("npy", None, {"view": "ctclip", "assume_axes": "yxz"}),
)
_INT16 = SourceKind("int16", deflated=True)
_TITLE = f"Whole volumes in a DataLoader with {_WORKERS} workers"


def tables(work: Path, size: Size) -> list[Table]:
    """Read the same shards as arrays and as tensors, in turns."""
    if importlib.util.find_spec("torch") is None:
        return [Table(_TITLE, ["what"], [], ["Not measured: torch is not installed."])]
    folder = work / "torch_workers"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sources = make([Volume(_INT16, size.shape, seed) for seed in range(_SAMPLES)], work / "volumes")
    our_way.write_inputs(folder / "inputs", sources, shape=size.shape)
    candidates = [
        _Candidate(_convert(folder, encoding), encoding, tensors, batch_size, **more)
        for encoding, batch_size, more in _WAYS
        for tensors in (False, True)
    ]
    costs = in_turns([one.cost for one in candidates], size.rounds, settled=False)
    for one in candidates:
        one.close()
    shutil.rmtree(folder)
    rows = []
    for before, after in zip(range(0, len(costs), 2), range(1, len(costs), 2), strict=True):
        ratio = _faster(costs[before], costs[after])
        rows.append(
            [candidates[before].name, *map(_rate, (costs[before], costs[after])), str(ratio)]
        )
    notes = [
        f"Samples a second by the clock; int16, {_times(size.shape)}, from the page cache.",
        _TARGET.note(_faster(costs[0], costs[1]).median) + ".",
    ]
    return [
        Table(
            _TITLE,
            ["what is read, and how", "arrays", "tensors=True", "times as fast"],
            rows,
            notes,
        )
    ]


class _Candidate:
    """A loader whose workers have started; a round of it gives every sample some times."""

    def __init__(
        self, out: Path, what: str, tensors: bool, batch_size: int | None, **more: Any
    ) -> None:
        from torch.utils.data import DataLoader

        self.name = f"{what}{', view ' + more['view'] if more else ''}, "
        self.name += "one by one" if batch_size is None else f"batches of {batch_size}"
        dataset = open_dataset(out, tensors=tensors, **more).repeat(nepochs=_PASSES)
        self._loader: Any = DataLoader(
            dataset.to_tuple("array"),
            batch_size=batch_size,
            num_workers=_WORKERS,
            persistent_workers=True,
        )

    def cost(self) -> Cost:
        """What one sample costs by the clock."""
        count, started = 0, time.perf_counter()
        for (array,) in self._loader:
            count += len(array) if array.ndim == 4 else 1
        return Cost(0.0, (time.perf_counter() - started) / count)

    def close(self) -> None:
        """Stop the workers."""
        self._loader = None


def _convert(folder: Path, encoding: Encoding) -> Path:
    out = folder / encoding
    if not out.exists():
        our_way.plan(folder / "inputs", out, _SAMPLES // _SHARDS, encoding)
        for shard in range(_SHARDS):
            our_way.convert(out, shard)
        dataset = Dataset(out)
        merge(dataset, load_plans(dataset))
    return out


def _rate(costs: Iterable[Cost]) -> str:
    return f"{1 / Spread.of(cost.wall_s for cost in costs).median:,.1f}"


def _faster(before: list[Cost], after: list[Cost]) -> Spread:
    pairs = zip(before, after, strict=True)
    return Spread.of(one.wall_s / other.wall_s for one, other in pairs)


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape))
