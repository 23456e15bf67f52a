"""Curves over the size of a set: planning it, starting one task of it, its status, its manifest.

Every figure is of the command line as a person gives it, in a process of its own. Volumes are tiny
and real.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Table, Target
from benchmarks.scale.commands import inputs_of, made_at, ran
from benchmarks.scale.many import many_at
from benchmarks.scale.merging import merging_table
from benchmarks.scale.start import start_table
from benchmarks.scale.status import status_table


@dataclass(frozen=True)
class Sizes:
    """The points of the curves."""

    samples: tuple[int, ...]
    tasks: tuple[int, ...]
    records: tuple[int, ...]
    shards: tuple[int, ...]
    many: tuple[int, ...] = ()
    on_paper: tuple[int, ...] = ()


_SECONDS, _MEMORY = Target("s", high=90.0, unit=" s"), Target("MiB", high=1536, unit=" MiB")

FULL = Sizes(
    samples=(3_000, 10_000, 30_000, 100_000),
    tasks=(100, 1_000, 3_000, 10_000),
    records=(1_000, 10_000, 30_000, 100_000),
    shards=(100, 1_000, 10_000),
    many=(300_000, 1_000_000),
    on_paper=(1_000, 10_000, 100_000),
)
QUICK = Sizes((10, 20), (100, 110), (10, 20), (4, 8), (30, 40), (10, 20))


def tables(work: Path, sizes: Sizes) -> Iterator[Table]:
    """Measure every curve."""
    yield _planning(work / "scale", sizes)
    yield start_table(work / "scale", sizes.on_paper)
    yield status_table(work / "scale", sizes.tasks)
    yield merging_table(work / "scale", sizes.records)
    yield _overhead(work / "scale", sizes.shards)


def _planning(work: Path, sizes: Sizes) -> Table:
    rows = []
    for samples in (*sizes.samples, *sizes.many):
        made = many_at(work, samples) if samples in sizes.many else made_at(work, samples)
        planned = ran("plan", *inputs_of(made, work), "--samples_per_shard", 20, "--probe", 0)
        first = ran("run", work / "out", "--task", 0, "--num_workers", 1)
        rows.append([f"{samples:,}", *planned.cells(), f"{first.wall_s:.1f} s"])
        shutil.rmtree(work)
    return Table(
        "Planning a set, and one task of it",
        ["samples", "plan", "memory", "run one task of 20 samples"],
        rows,
        [
            "Wall clock of the command with its workers, and peak memory of the command alone. All "
            "sources are in the page cache. "
            f"Files of {', '.join(f'{many:,}' for many in sizes.many)} samples repeat a few.",
            _SECONDS.note(planned.wall_s) + ", of the last set.",
            _MEMORY.note(planned.peak_mib) + ", of the last set.",
        ],
    )


def _overhead(work: Path, points: Sequence[int]) -> Table:
    rows = []
    for shards in points:
        made = made_at(work, shards)
        ran("plan", *inputs_of(made, work), "--samples_per_shard", 1, "--probe", 0)
        done = ran("run", work / "out", "--num_workers", 2)
        files = sum(len(names) for _, _, names in os.walk(work / "out"))
        rows.append([f"{shards:,}", f"{shards / done.wall_s:.0f}", f"{files / shards:.1f}"])
        shutil.rmtree(work)
    return Table(
        "Overhead: shards of one tiny volume, two workers",
        ["shards", "shards/s", "files per shard"],
        rows,
        ["Each shard is written, synced, read back, published, recorded and merged."],
    )
