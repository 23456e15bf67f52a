"""List the jobs that convert nothing: verifications, audits and deletions.

What a check has found out lies in its results, and what was deleted in the journals. So these jobs
have no states of their own: they are in the queue, or they are over.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ctrate_convert.cluster.scheduler.query import UNSUCCESSFUL, JobKey
from ctrate_convert.cluster.states.scheduler_view import SchedulerView
from ctrate_convert.cluster.states.stuck import stuck_element
from ctrate_convert.cluster.submissions import SubmissionFiles
from ctrate_convert.errors import DamageError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.base import read
from ctrate_convert.store.records.check import CHECK_FILE, Check


@dataclass
class OtherWork:
    """One verification, audit or deletion, and its elements in the queue.

    ``command`` has the options that ask for the same. ``is_open`` is True while it is not known
    whether Slurm accepted all of it. ``jobs`` and ``tasks`` are of the live elements. ``results``
    of ``units`` are there; a deletion has neither. ``why_stuck`` is why all live elements wait in
    vain. ``failures`` counts the elements of the newest submission that ended without success, by
    the state that accounting gives them, and ``logs`` is the folder of their logs.
    """

    submission: int
    command: str
    is_open: bool = False
    running: int = 0
    waiting: int = 0
    jobs: list[str] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)
    why_stuck: str = ""
    units: int = 0
    results: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    logs: str = ""
    submissions: list[int] = field(default_factory=list)
    live_submissions: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The command without its options."""
        return self.command.split()[0]

    @property
    def is_live(self) -> bool:
        """True if the work is going on, or may be."""
        return self.is_open or bool(self.jobs)

    @property
    def is_moving(self) -> bool:
        """True if waiting changes anything, as far as anybody can know."""
        return self.is_open or (self.is_live and not self.why_stuck)


def other_work(
    dataset: Dataset, submissions: Sequence[SubmissionFiles], said: SchedulerView
) -> tuple[OtherWork, ...]:
    """Return every work that converts nothing, the oldest first.

    The submissions that went on with one check, or act under one consent, are one work.
    """
    found: dict[tuple[str, int | str], OtherWork] = {}
    checks: dict[tuple[str, int | str], int] = {}
    for files in submissions:
        arrays = files.submission.arrays
        if files.submission.converts or arrays[0].kind == "finalise":
            continue
        first = arrays[0]
        key: tuple[str, int | str] = (first.kind, first.check or first.consent)
        work = found.pop(key, OtherWork(files.submission.number, files.submission.command))
        found[key] = work  # the newest last
        checks[key] = first.check
        _add(work, files, said)
    for key, work in found.items():
        # Only of the newest: to count the results of all would cost more with each.
        newest = [one for one in found.values() if one.name == work.name][-1]
        if checks[key] and work is newest:
            work.units, work.results = _progress(dataset, checks[key])
    return tuple(found.values())


def _add(work: OtherWork, files: SubmissionFiles, said: SchedulerView) -> None:
    """Add a later submission of the same work."""
    number = work.submission = files.submission.number
    work.submissions.append(number)
    work.logs = str(files.logs(0).parent)
    ended: dict[JobKey, str] = {}
    live = False
    for place, array in enumerate(files.submission.arrays):
        answer = said.answers.get((number, place))
        work.is_open |= answer is None
        rows = [row for row in said.queue if row.name == array.job_name and row.live]
        work.running += sum(not row.waiting for row in rows)
        work.waiting += sum(row.waiting for row in rows)
        work.jobs += [f"{row.key[0]}_{row.key[1]}" for row in rows]
        work.tasks += [array.tasks[row.key[1]] for row in rows if row.key[1] < len(array.tasks)]
        stuck = [one for row in rows if (one := stuck_element(row, None, "")) is not None]
        live |= answer is None or bool(rows)
        work.why_stuck = stuck[0].reason if stuck and len(stuck) == len(rows) else ""
        ended |= {row.key: row.state for row in said.accounts if row.name == array.job_name}
    work.live_submissions += [number] if live else []
    work.failures = dict(Counter(state for state in ended.values() if state in UNSUCCESSFUL))


def _progress(dataset: Dataset, check: int) -> tuple[int, int]:
    """Return the number of a check's units, and of those with a result; no result is read."""
    folder = dataset.check(check)
    with contextlib.suppress(FileNotFoundError, DamageError):
        units = read(Check, folder / CHECK_FILE).units
        return units, sum(1 for _ in folder.glob("*-shard-*.json"))
    return 0, 0
