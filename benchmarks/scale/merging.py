"""Records merged while several tasks publish at random."""

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
from ctrate_convert.store.records.plan import Plan
from ctrate_convert.store.records.record import ShardRecord

_TASKS = 4
_MOST_MERGED = 3_000
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
            orders = [*range(1, shards)]
            random.Random(0).shuffle(orders)
            parts = [(work / "out", tuple(orders[one::_TASKS])) for one in range(_TASKS)]
            started = time.monotonic()
            with multiprocessing.get_context("spawn").Pool(_TASKS) as pool:
                told = pool.map(job, parts)
            dataset = Dataset(work / "out")
            merge(dataset, load_plans(dataset))
            wall_s = time.monotonic() - started
            waits = sorted(wait for part, _ in told for wait in part)
            written = sum(size_bytes for _, size_bytes in told) / 2**20
            rows.append(
                [
                    f"{shards:,}",
                    name,
                    f"{wall_s:.0f} s",
                    f"{sum(waits):.0f} s",
                    f"{1000 * waits[int(len(waits) * 0.99)]:.0f} ms",
                    f"{written:,.0f} MiB",
                ]
            )
        shutil.rmtree(work)
    return Table(
        f"Records merged while {_TASKS} tasks publish at random",
        ["shards", "merged", "total", "spent on merging", "p99 of one shard", "manifests written"],
        rows,
        [
            "Each task writes its records as fast as it can, and merges as an element does; at the "
            "end all is merged once more. Total: with writing the records.",
        ],
    )


Part = tuple[Path, tuple[int, ...]]
Told = tuple[list[float], int]


def _finish(part: Part) -> Told:
    """Write the records of a task's shards; merge when it is due."""
    return _publish(part, lambda dataset, plans, record: merge_when_due(dataset, plans, record))


def _finish_and_merge(part: Part) -> Told:
    """Write the records of a task's shards; merge after each."""

    def always(dataset: Dataset, plans: Sequence[Plan], record: ShardRecord) -> bool:
        merge(dataset, plans, anew=[record])
        return True

    return _publish(part, always)


def _publish(part: Part, merged: Callable[[Dataset, Sequence[Plan], ShardRecord], bool]) -> Told:
    """Return the seconds that each shard waited for merging, and the bytes of manifests written."""
    out, shards = part
    dataset = Dataset(out)
    plans = load_plans(dataset)
    ledger = Ledger(dataset, plans)
    waits, size_bytes = [], 0
    for index in shards:
        record = like_the_first(ledger, index)
        dataset.record(index).write_bytes(record.to_json())
        started = time.monotonic()
        if merged(dataset, plans, record):
            size_bytes += dataset.manifest.stat().st_size
        waits.append(time.monotonic() - started)
    return waits, size_bytes


def _forget(dataset: Dataset) -> None:
    """Remove all records but the first, and the manifest."""
    for path in dataset.records.glob("shard-*.json"):
        if path != dataset.record(0):
            path.unlink()
    dataset.manifest.unlink(missing_ok=True)
