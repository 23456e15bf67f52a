"""Go on until all is done: the finaliser relaunches what more memory, time or a sound node mends.

It stops where only a person can help. Nothing but the files says how far it has come, so a crash at
any moment loses nothing and starts nothing twice: the next finaliser, or a person's `relaunch`,
finds the same tasks failed, or live.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ctrate_convert.cluster.relaunch import NothingToRelaunch, latest_profile, relaunch
from ctrate_convert.cluster.scheduler.client import SlurmClient, SubmissionRejected
from ctrate_convert.cluster.states.cluster_view import ClusterView, Looker, Task
from ctrate_convert.cluster.states.lost_answers import ANSWER_GRACE_ELSEWHERE
from ctrate_convert.errors import RefusedError
from ctrate_convert.store.layout import Dataset

_MENDED_BY_A_RELAUNCH = frozenset({"memory", "time", "node"})
_POLL_S = 15.0
_PATIENCE = ANSWER_GRACE_ELSEWHERE + timedelta(minutes=5)
"""Longer than an array whose submitter was killed can stay unanswered."""


@dataclass(frozen=True)
class GoneOn:
    """The tasks that a finaliser relaunched, and a line on each that it left to a person."""

    relaunched: tuple[int, ...]
    for_a_person: tuple[str, ...]


def go_on(dataset: Dataset, max_attempts: int, client: SlurmClient | None = None) -> GoneOn:
    """Relaunch what a relaunch mends, with a finaliser that goes on like this one.

    An earlier run of this finaliser may have been killed as it submitted. What became of that is
    waited for. If Slurm refuses, that is left to a person, too.

    Raises:
        RefusedError: Slurm cannot be asked.
        SubmissionUnclear: sbatch gave no answer.
    """
    client = client or SlurmClient()
    view = _settled_view(dataset, client)
    why = {task.number: why_a_person(task, max_attempts) for task in view.tasks}
    tasks = frozenset(number for number, reason in why.items() if reason is None)
    left = [f"task {number}: {reason}" for number, reason in why.items() if reason]
    if not tasks:
        return GoneOn((), tuple(left))
    try:
        done = relaunch(
            dataset,
            latest_profile(dataset),
            given={},
            dry_run=False,
            include_unknown=False,
            only=tasks,
            max_attempts=max_attempts,
            client=client,
        )
    except (NothingToRelaunch, SubmissionRejected) as error:
        return GoneOn((), (*left, error.one_line()))
    pairs = zip(done.scripts, done.job_ids, strict=True)
    gone = {task.number for script, job_id in pairs if job_id for task in script.tasks}
    refused = [error.one_line() for error in done.refused]
    notes = done.notes if gone != tasks else ()
    return GoneOn(tuple(sorted(gone)), (*left, *notes, *refused))


def why_a_person(task: Task, max_attempts: int) -> str | None:
    """Return why a relaunch by itself would not help the task; None if it may help.

    Only tasks that ended without success are asked about; for the others it is empty.
    """
    verdict = task.verdict
    if task.is_held or verdict.state not in ("failed", "cancelled", "unknown"):
        return ""
    if verdict.state != "failed":
        return f"{verdict.state}: {verdict.reason}"
    # A cluster that cancels what it preempts does not queue it again.
    preempted = verdict.reason.startswith("PREEMPTED")
    if verdict.cause not in _MENDED_BY_A_RELAUNCH and not preempted:
        return verdict.reason
    if task.times_submitted >= max_attempts:
        return f"{verdict.reason}; submitted {task.times_submitted} times, as often as allowed"
    return None


def _settled_view(dataset: Dataset, client: SlurmClient) -> ClusterView:
    """Return a view in which it is known of every array whether it came to be.

    Raises:
        RefusedError: that does not become known in time.
    """
    deadline = datetime.now(UTC) + _PATIENCE
    while True:
        view = Looker(dataset, client).look(write_answers=True)
        if all(answer is not None for answer in view.answers.values()):
            return view
        if datetime.now(UTC) > deadline:
            raise RefusedError(
                "it is not known what became of an earlier submission",
                where=dataset.submissions,
                next_command=f"ctrate-convert status {dataset.out}",
            )
        time.sleep(_POLL_S)
