"""Records merged while a thousand tasks finish at random, in a few processes."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.report import Table
from benchmarks.scale.commands import inputs_of, like_the_first, made_at, ran
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.merger import merge, merge_when_due
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.record import ShardRecord

_PROCESSES = 4
_TASKS = 1_000
_MOST_MERGED = 1_000
"""Merging after every shard takes minutes beyond."""


def merging_table(work: Path, points: Sequence[int]) -> Table:
    rows = []
    for shards in points:
        made = made_at(work, shards)
        ran("plan", *inputs_of(made, work), "--samples_per_shard", 1, "--probe", 0)
        ran("run", work / "out", "--task", 0, "--num_workers", 1)
        for name, job in (("as tasks do", _finish), ("after every shard", _finish_and_merge)):
            if job is _finish_and_merge and shards > _MOST_MERGED:
                continue
            _forget(Dataset(work / "out"))
            parts = [(work / "out", part) for part in _parts(shards)]
            started = time.monotonic()
            with multiprocessing.get_context("spawn").Pool(_PROCESSES) as pool:
                told = pool.map(job, parts)
            dataset = Dataset(work / "out")
            merge(dataset, load_plans(dataset))
            wall_s = time.monotonic() - started
            waits = sorted(wait for part, *_ in told for wait in part)
            written = sum(size_bytes for _, size_bytes, _ in told) / 2**20
            rows.append(
                [
                    f"{shards:,}",
                    name,
                    f"{wall_s:.0f} s",
                    f"{sum(waits):.0f} s",
                    f"{sum(merges for *_, merges in told):,}",
                    f"{1000 * waits[int(len(waits) * 0.99)]:.0f} ms",
                    f"{waits[-1]:.1f} s",
                    f"{written:,.0f} MiB",
                ]
            )
        shutil.rmtree(work)
    return Table(
        f"Records merged while {_TASKS:,} tasks finish at random",
        ["shards", "merged", "total", "spent on merging", "merges", "p99", "longest", "written"],
        rows,
        [
            f"{_PROCESSES} processes carry out the tasks in a random order. A task writes the "
            "records of its shards as fast as it can, and merges after each and at its end, as an "
            "element does; at the end all is merged once more. Total: with making the records; "
            "p99 and longest: of the waits after one shard.",
        ],
    )


def _parts(shards: int) -> list[tuple[Task, ...]]:
    """Return the tasks of each process: shard 0 is recorded, and the others are dealt to tasks."""
    numbers = [*range(1, shards)]
    tasks = [tuple(numbers[one::_TASKS]) for one in range(min(_TASKS, len(numbers)))]
    random.Random(0).shuffle(tasks)
    return [tuple(tasks[one::_PROCESSES]) for one in range(_PROCESSES)]


Task = tuple[int, ...]
"""The shards of one task."""
Part = tuple[Path, tuple[Task, ...]]
Told = tuple[list[float], int, int]
Merge = Callable[[Dataset, ShardRecord | None], bool]


def _finish(part: Part) -> Told:
    """Write the records of the tasks' shards; merge when it is due."""
    return _publish(part, merge_when_due)


def _finish_and_merge(part: Part) -> Told:
    """Write the records of the tasks' shards; merge after each."""

    def always(dataset: Dataset, record: ShardRecord | None) -> bool:
        merge(dataset, load_plans(dataset), anew=[record] if record else [])
        return True

    return _publish(part, always)


def _publish(part: Part, merged: Merge) -> Told:
    """Return the seconds that each shard waited for merging, the bytes written, and the merges."""
    out, tasks = part
    dataset = Dataset(out)
    ledger = Ledger(dataset, load_plans(dataset))
    waits: list[float] = []
    size_bytes = merges = 0
    for shards in tasks:
        for index in (*shards, None):
            record = None if index is None else like_the_first(ledger, index)
            if record is not None:
                dataset.record(record.shard).write_bytes(record.to_json())
            started = time.monotonic()
            if merged(dataset, record):
                size_bytes += dataset.manifest.stat().st_size
                merges += 1
            waits.append(time.monotonic() - started)
    return waits, size_bytes, merges


def _forget(dataset: Dataset) -> None:
    """Remove all records but the first, and the manifest."""
    for path in dataset.records.glob("shard-*.json"):
        if path != dataset.record(0):
            path.unlink()
    dataset.manifest.unlink(missing_ok=True)
