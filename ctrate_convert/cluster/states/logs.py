"""Logs: find what one attempt at a task printed, with its traceback."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.cluster.submissions import SubmissionFiles, load_submissions
from ctrate_convert.errors import SettingsError
from ctrate_convert.store.attempts import PastAttempt, load_attempts
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import require_plans


@dataclass(frozen=True)
class TaskLog:
    """One attempt and the end of its log.

    ``attempt`` is None if an element never got so far as to begin one.
    """

    task: int
    attempt: PastAttempt | None
    number: int
    attempts: int
    path: Path | None
    tail: tuple[str, ...]


def task_log(
    dataset: Dataset, task: int, *, attempt: int | None = None, lines: int = 60
) -> TaskLog:
    """Return the log of the newest attempt at ``task``, or of attempt number ``attempt``, from 1.

    Raises:
        SettingsError: there is no such task or attempt.
    """
    known = {number for plan in require_plans(dataset) for number in plan.tasks}
    if task not in known:
        raise SettingsError(f"no task {task}", where=dataset.out, expected=f"0-{max(known)}")
    mine = [one for one in load_attempts(dataset) if task in one.start.tasks]
    if attempt is not None and not 1 <= attempt <= len(mine):
        raise SettingsError(
            f"no attempt {attempt} at task {task}", where=dataset.attempts, seen=f"{len(mine)}"
        )
    submissions = load_submissions(dataset)
    newest = _newest_element_log(submissions, task)
    if attempt is None and newest is not None and not _is_of(mine, newest):
        # The task's newest element began no attempt: its log has all that it said.
        return TaskLog(task, None, len(mine) + 1, len(mine), newest, _tail(newest, lines))
    if not mine:
        return TaskLog(task, None, 0, 0, None, ())
    number = attempt or len(mine)
    chosen = mine[number - 1]
    path = _log_of(submissions, chosen)
    return TaskLog(task, chosen, number, len(mine), path, _tail(path, lines))


def _newest_element_log(submissions: list[SubmissionFiles], task: int) -> Path | None:
    for files in reversed(submissions):
        for place, array in enumerate(files.submission.arrays):
            if array.kind == "convert" and task in array.tasks:
                # Look by the index alone: the submitter may have lost sbatch's answer, the job id.
                logs = files.logs(place).glob(f"*_{array.tasks.index(task)}_0_log.out")
                return next(logs, None)
    return None


def _is_of(attempts: list[PastAttempt], log: Path) -> bool:
    """Return True if one of the attempts is of the element that has written ``log``."""
    name = log.name.removesuffix("_0_log.out")
    return any(job.name == name for one in attempts if (job := one.start.job) is not None)


def _log_of(submissions: list[SubmissionFiles], attempt: PastAttempt) -> Path | None:
    job = attempt.start.job
    if job is None or job.index is None:
        return None
    logs = (
        files.log(place, job.array_job_id, job.index)
        for files in submissions
        if job.submission == files.submission.number
        for place, _ in enumerate(files.submission.arrays)
    )
    return next((log for log in logs if log.exists()), None)


def _tail(path: Path | None, lines: int) -> tuple[str, ...]:
    if path is None or not path.exists():
        return ()
    with path.open(encoding="utf-8", errors="replace") as stream:
        return tuple(line.rstrip("\n") for line in deque(stream, maxlen=lines))
