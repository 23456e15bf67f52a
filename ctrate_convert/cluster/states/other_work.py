"""List the jobs that convert nothing: verifications, audits and deletions.

What a check has found out lies in its results, and what was deleted in the journals. So these jobs
have no states of their own: they are in the queue, or they are over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctrate_convert.cluster.states.scheduler_view import SchedulerView
from ctrate_convert.cluster.states.stuck import stuck_element
from ctrate_convert.cluster.submissions import SubmissionFiles
from ctrate_convert.store.layout import Dataset


@dataclass(frozen=True)
class OtherWork:
    """One submission of ``verify``, ``audit`` or ``delete``, and its elements in the queue.

    ``is_open`` is True while it is not known whether Slurm accepted it. ``results`` of ``units``
    are there; a deletion has neither. ``why_stuck`` is the reason of the elements that wait in
    vain.
    """

    submission: int
    command: str
    is_open: bool
    running: int
    waiting: int
    jobs: tuple[str, ...]
    why_stuck: str
    units: int
    results: int

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
    """Return all submissions that convert nothing, oldest first."""
    found = []
    for files in submissions:
        number, arrays = files.submission.number, files.submission.arrays
        if files.submission.converts or arrays[0].kind == "finalise":
            continue
        names = {array.job_name for array in arrays}
        rows = [row for row in said.queue if row.name in names and row.live]
        stuck = [one for row in rows if (one := stuck_element(row, None, "")) is not None]
        units, results = _progress(dataset, arrays[0].check)
        found.append(
            OtherWork(
                submission=number,
                command=files.submission.command,
                is_open=any(said.answers.get((number, at)) is None for at in range(len(arrays))),
                running=sum(not row.waiting for row in rows),
                waiting=sum(row.waiting for row in rows),
                jobs=tuple(f"{row.key[0]}_{row.key[1]}" for row in rows),
                why_stuck=stuck[0].reason if stuck and len(stuck) == len(rows) else "",
                units=units,
                results=results,
            )
        )
    return tuple(found)


def _progress(dataset: Dataset, check: int) -> tuple[int, int]:
    """Return the number of a check's units, and of those that have a result; nothing is parsed."""
    folder = dataset.check(check)
    try:
        units = (folder / "units.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0, 0
    return units, sum(1 for _ in folder.glob("*-shard-*.json"))
