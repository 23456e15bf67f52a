"""History: every submission with its time, user and resources, and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ctrate_convert.cluster.scheduler.client import SlurmClient
from ctrate_convert.cluster.states.cluster_view import Looker
from ctrate_convert.cluster.submissions import FinalReport
from ctrate_convert.deleting.consents import load_consents
from ctrate_convert.store.attempts import PastAttempt, load_attempts
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.consent import Consent


@dataclass(frozen=True)
class PastArray:
    """One array of a submission.

    ``outcome`` counts its tasks by state, those that were submitted again later too.
    """

    submission: int
    created: str
    command: str
    user: str
    job: str | None
    tasks: tuple[int, ...]
    why: str
    resources: str
    outcome: dict[str, int]
    words: str
    consent: str


@dataclass(frozen=True)
class PastRun:
    """One run of a person's command on this or another machine, without a Slurm job.

    ``outcome`` is ``done``, ``failed`` or ``interrupted``, and empty while the run has no end: it
    goes on, or its process was killed. What only the end tells is None without one.
    """

    started: str
    host: str
    tasks: tuple[int, ...]
    workers: int | None
    deletes_only: bool
    outcome: str
    reason: str
    elapsed_s: float | None
    samples_converted: int | None
    samples_failed: int | None


@dataclass(frozen=True)
class History:
    """All arrays and all local runs, oldest first, the finalisers' reports, and every consent.

    ``reports`` are by the number of the submission.
    """

    arrays: tuple[PastArray, ...]
    runs: tuple[PastRun, ...]
    reports: dict[int, FinalReport]
    consents: tuple[Consent, ...]
    unavailable: tuple[str, ...]


def history(dataset: Dataset, client: SlurmClient | None = None) -> History:
    """Return everything that was ever submitted for this dataset, or run without Slurm."""
    view = Looker(dataset, client or SlurmClient()).look()
    by_number = {task.number: task for task in view.tasks}
    # A task's state is the outcome of its newest submission alone.
    newest: dict[int, int] = {}
    for files in view.submissions:
        for place, array in enumerate(files.submission.arrays):
            if array.kind != "convert":
                continue
            answer = view.answers[files.submission.number, place]
            if answer is None or answer.job_id is not None:
                newest.update(dict.fromkeys(array.tasks, files.submission.number))
    arrays = []
    reports = {}
    for files in view.submissions:
        intent = files.submission
        report = files.report()
        if report is not None:
            reports[intent.number] = report
        for place, array in enumerate(intent.arrays):
            answer = view.answers[intent.number, place]
            if array.kind == "finalise":
                continue
            outcome: Counter[str] = Counter()
            if array.kind == "convert" and (answer is None or answer.job_id is not None):
                for task in array.tasks:
                    last = newest.get(task) == intent.number
                    outcome[by_number[task].verdict.state if last else "submitted again"] += 1
            words = "not known yet" if answer is None else answer.words
            arrays.append(
                PastArray(
                    submission=intent.number,
                    created=intent.created,
                    command=intent.command,
                    user=intent.user,
                    job=answer.job_id if answer else None,
                    tasks=array.tasks,
                    why=array.why,
                    resources=array.resources.words(),
                    outcome=dict(outcome),
                    words=words,
                    consent=array.consent,
                )
            )
    return History(
        arrays=tuple(arrays),
        runs=tuple(_run(one) for one in load_attempts(dataset) if one.start.job is None),
        reports=reports,
        consents=tuple(load_consents(dataset)),
        unavailable=tuple(map(str, view.unavailable)),
    )


def _run(attempt: PastAttempt) -> PastRun:
    start, end = attempt.start, attempt.end
    return PastRun(
        started=start.started,
        host=start.host,
        tasks=start.tasks,
        workers=start.workers,
        deletes_only=start.deletes_only,
        outcome=end.outcome if end else "",
        reason=end.reason if end else "",
        elapsed_s=end.elapsed_s if end else None,
        samples_converted=end.samples_converted if end else None,
        samples_failed=end.samples_failed if end else None,
    )
