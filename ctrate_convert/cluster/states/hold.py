"""Decide which tasks a run by hand carries out, and which it must leave to Slurm."""

from __future__ import annotations

import os

from ctrate_convert.cluster.scheduler.here import scheduler_facts
from ctrate_convert.errors import RefusedError
from ctrate_convert.running.run import Tasks
from ctrate_convert.store.layout import Dataset


def tasks_here(
    dataset: Dataset, only: frozenset[int] | None, *, ignore_submissions: bool
) -> tuple[Tasks, dict[str, str]]:
    """Return the tasks for this command, without those that Slurm holds, and the job it is part of.

    A command that names its tasks within a Slurm job was given by a plain job script. Its task is
    live in Slurm because of this very command, so nothing is left to Slurm then.

    Raises:
        RefusedError: the scheduler cannot be asked about tasks that it was given.
    """
    job = scheduler_facts(os.environ) if only is not None else {}
    held = frozenset[int]() if job or ignore_submissions else held_tasks(dataset)
    return Tasks(only, held), job


def held_tasks(dataset: Dataset) -> frozenset[int]:
    """Return the tasks that are live under Slurm, or are being submitted.

    Raises:
        RefusedError: the scheduler cannot be asked about tasks that it was given.
    """
    if not (dataset.submissions.is_dir() and any(dataset.submissions.iterdir())):
        return frozenset()
    # Imported only if something was submitted: most runs by hand have nothing to do with Slurm.
    from ctrate_convert.cluster.scheduler.client import SlurmClient
    from ctrate_convert.cluster.states.cluster_view import Looker

    view = Looker(dataset, SlurmClient()).look()
    given = [
        task for task in view.tasks if task.verdict.state != "done" and task.element is not None
    ]
    if given and not view.queue_asked:
        raise RefusedError(
            f"{len(given)} unfinished tasks were submitted to Slurm, which cannot be asked whether "
            "they are live: " + "; ".join(map(str, view.unavailable)),
            where=dataset.out,
            next_command=f"the same command on a login node, or with --ignore_submissions if you "
            f"know that no job is left: ctrate-convert run {dataset.out} --ignore_submissions",
        )
    return frozenset(task.number for task in view.tasks if task.is_held)
