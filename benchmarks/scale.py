"""Curves over the size of a set: planning it, starting one task of it, its status and relaunch.

Every figure is of the command line as a person gives it, in a process of its own. Volumes are tiny
and real. For `status`, records and attempts are copies of one real record and one real attempt
under other numbers, and squeue and sacct are scripts that print what Slurm would.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Table, Target
from ctrate_convert.cluster.scheduler.profile import ClusterProfile
from ctrate_convert.cluster.submissions import (
    ArrayIntent,
    Resources,
    Submission,
    SubmissionFiles,
    job_name,
    publish,
)
from ctrate_convert.store.attempts import load_attempts
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.merger import merge, merge_when_due
from ctrate_convert.store.plans import load_plans, load_samples
from ctrate_convert.store.records.plan import Plan
from ctrate_convert.store.records.record import ConvertedSample, ShardRecord
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate

_STATES = {
    "done": "COMPLETED",
    "failed": "FAILED",
    "memory": "OUT_OF_MEMORY",
    "running": "RUNNING",
    "pending": "PENDING",
}
"""What accounting says of each fate of a task."""

_TASKS = 4
_MOST_MERGED = 3_000
"""Merging after every shard takes minutes beyond."""

_ARRAY = 1000
"""Elements of an array: one less than Slurm's own MaxArraySize."""


@dataclass(frozen=True)
class Sizes:
    """The points of the curves."""

    samples: tuple[int, ...]
    tasks: tuple[int, ...]
    records: tuple[int, ...]
    shards: tuple[int, ...]


FULL = Sizes(
    samples=(3_000, 10_000, 30_000, 100_000),
    tasks=(100, 1_000, 3_000, 10_000),
    records=(1_000, 3_000, 10_000, 30_000),
    shards=(100, 300, 1_000),
)
QUICK = Sizes((10, 20), (100, 110), (10, 20), (4, 8))


def tables(work: Path, sizes: Sizes) -> list[Table]:
    """Measure every curve."""
    return [
        _planning(work / "scale", sizes.samples),
        _status(work / "scale", sizes.tasks),
        _merging(work / "scale", sizes.records),
        _overhead(work / "scale", sizes.shards),
    ]


# --- Planning -------------------------------------------------------------------------------------


def _planning(work: Path, points: Sequence[int]) -> Table:
    rows = []
    for samples in points:
        made = _made(work, samples)
        planned = _ran("plan", *_inputs(made, work), "--samples_per_shard", 20, "--probe", 0)
        first = _ran("run", work / "out", "--task", 0, "--num_workers", 1)
        rows.append([f"{samples:,}", *planned.cells(), f"{first.wall_s:.1f} s"])
        shutil.rmtree(work)
    return Table(
        "Planning a set, and one task of it",
        ["samples", "plan", "memory", "run one task of 20 samples"],
        rows,
        ["Wall clock and peak memory of the command. All sources are in the page cache."],
    )


# --- Status ---------------------------------------------------------------------------------------


def _status(work: Path, points: Sequence[int]) -> Table:
    rows = []
    worst: list[Ran] = []
    for tasks in points:
        environment = _cluster_of(work, tasks)
        worst = [
            _ran("status", work / "out", environment=environment),
            _ran("relaunch", work / "out", "--dry_run", environment=environment),
        ]
        rows.append([f"{tasks:,}", *worst[0].cells(), *worst[1].cells()])
        shutil.rmtree(work)
    seconds, memory = Target("s", high=3.0, unit=" s"), Target("MiB", high=150, unit=" MiB")
    return Table(
        "What `status` and `relaunch --dry_run` take",
        ["tasks", "status", "memory", "relaunch --dry_run", "memory"],
        rows,
        [
            "Of every hundred tasks 90 are done, 2 failed by their own word, 1 ran out of memory, "
            "3 run and 4 wait. Every task that began has an attempt.",
            seconds.note(worst[0].wall_s) + ", of status with most tasks.",
            memory.note(worst[0].peak_mib) + ", of status with most tasks.",
        ],
    )


def _cluster_of(work: Path, tasks: int) -> dict[str, str]:
    """Make a dataset of so many tasks that went through Slurm; return the environment to look."""
    made = _made(work, tasks)
    _ran("plan", *_inputs(made, work), "--samples_per_shard", 1, "--probe", 0)
    _ran("run", work / "out", "--task", 0, "--num_workers", 1)
    dataset = Dataset(work / "out")
    submission = _submit(dataset, tasks)
    _copy_records(dataset, [task for task in range(1, tasks) if _fate(task) == "done"])
    queue, accounts = [], []
    for task in range(tasks):
        array, index = divmod(task, _ARRAY)
        fate, name = _fate(task), submission.arrays[array].job_name
        job = f"{100 + array}|{index}|{100_000 + task}|{name}"
        times = "2026-11-01T00:00:00|2026-11-01T00:01:00"
        if fate in ("running", "pending"):
            state = "RUNNING|None|n1" if fate == "running" else "PENDING|Priority|"
            queue.append(f"{job}|{state}|{times}|0|/x/submission.sh|")
        states = {
            "done": "COMPLETED",
            "running": "RUNNING",
            "pending": "PENDING",
            "memory": "OUT_OF_MEMORY",
        }
        accounts.append(
            f"{100 + array}_{index}|{name}|{states.get(fate, 'FAILED')}|0:0|{times}|"
            f"2026-11-01T00:02:00|60|n1||200M|{task}|00:30.000|1"
        )
    return _shims(work / "bin", {"squeue": queue, "sacct": accounts})


def _fate(task: int) -> str:
    """What becomes of a task: every hundred tasks look alike."""
    fates = ("failed", "failed", "memory", "running", "running", "running", *["pending"] * 4)
    return fates[task % 100 - 90] if task % 100 >= 90 else "done"


def _submit(dataset: Dataset, tasks: int) -> Submission:
    """Write a submission of all tasks, with the job ids 100, 101, …; begin those that began."""
    numbers = range(tasks)
    submission = Submission(
        number=1,
        created="2026-11-01T00:00:00+00:00",
        command="submit",
        user="user",
        host="login",
        pid=1,
        pid_started="",
        program_version="0",
        plans=(),
        profile=ClusterProfile().model_dump(mode="json"),
        arrays=tuple(
            ArrayIntent(
                job_name=job_name("bench", 1, place),
                kind="convert",
                tasks=tuple(numbers[first : first + _ARRAY]),
                resources=Resources(timeout_min=60, mem_mb=512, cpus_per_task=1),
                parallelism=256,
                why="pending",
            )
            for place, first in enumerate(range(0, tasks, _ARRAY))
        ),
    )
    files = publish(dataset, submission)
    if not isinstance(files, SubmissionFiles):
        raise RuntimeError("the submission cannot be written")
    for place in range(len(submission.arrays)):
        files.write_answer(place, job_id=str(100 + place), found_by="sbatch")
    (attempt,) = load_attempts(dataset)
    folder = dataset.attempts / attempt.start.attempt
    for task in numbers:
        fate = _fate(task)
        if fate == "pending":
            continue
        array, index = divmod(task, _ARRAY)
        job = {
            "kind": "slurm", "job_id": str(100_000 + task), "array_job_id": str(100 + array),
            "array_task_id": str(index), "restart_count": "0", "node": "n1", "submission": "1",
        }  # fmt: skip
        update = {"attempt": f"attempt-{task}", "tasks": (task,), "scheduler": job}
        copy = dataset.attempts / f"attempt-{task}"
        copy.mkdir()
        start = attempt.start.model_copy(update={**update, "started": "2026-11-01T00:01:00+00:00"})
        (copy / "start.json").write_bytes(start.to_pretty_json())
        shutil.copyfile(folder / "progress.json", copy / "progress.json")
        if attempt.end is not None and fate in ("done", "failed"):
            ended = {"attempt": f"attempt-{task}", "outcome": fate, "reason": "disk full"}
            (copy / "end.json").write_bytes(attempt.end.model_copy(update=ended).to_pretty_json())
    shutil.rmtree(folder)
    return submission


def _copy_records(dataset: Dataset, shards: Sequence[int]) -> None:
    """Write records of ``shards`` that are like the first one's, and merge them."""
    ledger = Ledger.load(dataset)
    for index in shards:
        dataset.record(index).write_bytes(_like_the_first(ledger, index).to_pretty_json())
    merge(dataset, ledger.plans)


def _like_the_first(ledger: Ledger, index: int) -> ShardRecord:
    """Return the record of shard 0 as one of shard ``index``, with its keys."""
    template = ledger.record(0)
    plan, shard = ledger.planned[index]
    keys = [sample.key for sample in load_samples(ledger.dataset, plan, shard)]
    samples = tuple(
        one.model_copy(update={"key": key})
        for one, key in zip(template.samples, keys, strict=True)
        if isinstance(one, ConvertedSample)
    )
    return template.model_copy(update={"shard": index, "samples": samples})


def _shims(folder: Path, lines: dict[str, list[str]]) -> dict[str, str]:
    """Write Slurm's commands, which print ``lines`` or nothing; return an environment with them."""
    folder.mkdir()
    for name in ("squeue", "sacct", "srun", "sbatch", "scontrol", "sacctmgr", "sinfo"):
        output = folder / f"{name}.out"
        output.write_text("".join(f"{line}\n" for line in lines.get(name, ())))
        (folder / name).write_text(f"#!/bin/sh\nexec cat {output}\n")
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


# --- Merging --------------------------------------------------------------------------------------


def _merging(work: Path, points: Sequence[int]) -> Table:
    rows = []
    for shards in points:
        made = _made(work, shards)
        _ran("plan", *_inputs(made, work), "--samples_per_shard", 1, "--probe", 0)
        _ran("run", work / "out", "--task", 0, "--num_workers", 1)
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
        record = _like_the_first(ledger, index)
        dataset.record(index).write_bytes(record.to_pretty_json())
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


# --- Overhead -------------------------------------------------------------------------------------


def _overhead(work: Path, points: Sequence[int]) -> Table:
    rows = []
    for shards in points:
        made = _made(work, shards)
        _ran("plan", *_inputs(made, work), "--samples_per_shard", 1, "--probe", 0)
        done = _ran("run", work / "out", "--num_workers", 2)
        files = sum(len(names) for _, _, names in os.walk(work / "out"))
        rows.append([f"{shards:,}", f"{shards / done.wall_s:.0f}", f"{files / shards:.1f}"])
        shutil.rmtree(work)
    return Table(
        "Overhead: shards of one tiny volume, two workers",
        ["shards", "shards/s", "files per shard"],
        rows,
        ["Each shard is written, synced, read back, published, recorded and merged."],
    )


# --- Commands -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """What one command took."""

    wall_s: float
    peak_mib: float

    def cells(self) -> list[str]:
        """As two cells of a table."""
        return [f"{self.wall_s:.1f} s", f"{self.peak_mib:,.0f} MiB"]


def _ran(*words: object, environment: dict[str, str] | None = None) -> Ran:
    """Run a command; its workers do not count as its memory."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "ctrate_convert", *map(str, words)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{words[0]} ended with exit code {process.returncode}")
    return Ran(time.monotonic() - started, usage.ru_maxrss / 1024)


def _made(work: Path, samples: int) -> SyntheticCtRate:
    shutil.rmtree(work, ignore_errors=True)
    return write_synthetic_ctrate(work / "ct", samples=samples, shape=(6, 5, 4), layout="flat")


def _inputs(made: SyntheticCtRate, work: Path) -> list[object]:
    return [
        "--data_folder", made.data_folder, "--reports_file", made.reports_file,
        "--meta_file", made.meta_file, "--labels_file", made.labels_file,
        "--output_dir", work / "out",
    ]  # fmt: skip
