"""`status` and `relaunch --dry_run` of a set that went through Slurm.

Records and attempts are copies of one real record and one real attempt under other numbers, and
squeue and sacct are scripts that print what Slurm would.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Table, Target
from benchmarks.scale.commands import Ran, inputs_of, like_the_first, made_at, ran
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
from ctrate_convert.store.merger import merge

_STATES = {
    "done": "COMPLETED",
    "failed": "FAILED",
    "memory": "OUT_OF_MEMORY",
    "running": "RUNNING",
    "pending": "PENDING",
}
"""What accounting says of each fate of a task."""

_ARRAY = 1000
"""Elements of an array: one less than Slurm's own MaxArraySize."""


def status_table(work: Path, points: Sequence[int]) -> Table:
    rows = []
    worst: list[Ran] = []
    for tasks in points:
        environment = _cluster_of(work, tasks)
        worst = [
            ran("status", work / "out", environment=environment),
            ran("relaunch", work / "out", "--dry_run", environment=environment),
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
    made = made_at(work, tasks)
    ran("plan", *inputs_of(made, work), "--samples_per_shard", 1, "--probe", 0)
    ran("run", work / "out", "--task", 0, "--num_workers", 1)
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
        accounted, job = states.get(fate, "FAILED"), f"{100 + array}_{index}"
        ran_for = f"0:0|{times}|2026-11-01T00:02:00|60|n1"
        accounts.append(f"{job}|{name}|{accounted}|{ran_for}||200M|{task}|00:30.000|1")
        if fate != "pending":
            accounts += [
                f"{job}.{step}|{step}|{accounted}|{ran_for}|100M||{task}|00:30.000|1"
                for step in ("batch", "extern")
            ]
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
        dataset.record(index).write_bytes(like_the_first(ledger, index).to_json())
    merge(dataset, ledger.plans)


def _shims(folder: Path, lines: dict[str, list[str]]) -> dict[str, str]:
    """Write Slurm's commands, which print ``lines`` or nothing; return an environment with them."""
    folder.mkdir()
    for name in ("squeue", "sacct", "srun", "sbatch", "scontrol", "sacctmgr", "sinfo"):
        output = folder / f"{name}.out"
        output.write_text("".join(f"{line}\n" for line in lines.get(name, ())))
        (folder / name).write_text(f"#!/bin/sh\nexec cat {output}\n")
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
