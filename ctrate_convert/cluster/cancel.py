"""Cancel live tasks, all or some; what is published stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctrate_convert.cluster.scheduler.client import SlurmClient
from ctrate_convert.cluster.selection import refuse_in_the_dark
from ctrate_convert.cluster.states.cluster_view import Looker
from ctrate_convert.cluster.submissions import clusters_of
from ctrate_convert.errors import RefusedError, SettingsError
from ctrate_convert.store.layout import Dataset


@dataclass(frozen=True)
class Cancelled:
    """The tasks whose conversion was cancelled, the jobs, and what else jobs were doing."""

    tasks: tuple[int, ...]
    jobs: tuple[str, ...]
    commands: tuple[str, ...] = ()


def cancel(
    dataset: Dataset, tasks: Sequence[int] = (), client: SlurmClient | None = None
) -> Cancelled:
    """Cancel the live elements of ``tasks``, or of all tasks and then the finalisers too.

    What verifies, audits or deletes is cancelled likewise.

    The cancellation is written down first: without accounting, only that tells later why the tasks
    ended.

    Raises:
        SettingsError: there is no such task.
        RefusedError: nothing is live, or that cannot be known.
        EnvironmentProblem: the scheduler could not be told.
    """
    client = client or SlurmClient()
    view = Looker(dataset, client).look()
    refuse_in_the_dark(view)
    known = {task.number for task in view.tasks}
    unknown = sorted(set(tasks) - known)
    if unknown:
        raise SettingsError(f"no task {unknown[0]}", where=dataset.out, expected=f"0-{max(known)}")
    chosen = [
        task for task in view.tasks if task.jobs_in_queue and (not tasks or task.number in tasks)
    ]
    # A task may have several: one that is held, say, and one of a job script by hand.
    jobs = [job for task in chosen for job in task.jobs_in_queue]
    if not tasks:
        jobs += view.finalisers
    others = [
        (one.name, job)
        for one in view.other_work
        for task, job in zip(one.tasks, one.jobs, strict=False)
        if not tasks or task in tasks
    ]
    jobs += [job for _, job in others]
    if not jobs:
        raise RefusedError(
            "nothing is live that could be cancelled",
            where=dataset.out,
            next_command=f"ctrate-convert status {dataset.out}",
        )
    for files in view.submissions:
        mine = [
            task
            for task in chosen
            if task.element and task.element.submission == files.submission.number
        ]
        if mine:
            files.write_cancel(
                [task.number for task in mine], [job for task in mine for job in task.jobs_in_queue]
            )
    client.at(clusters_of(view.submissions)).scancel(jobs)
    commands = tuple(dict.fromkeys(name for name, _ in others))
    return Cancelled(tuple(task.number for task in chosen), tuple(jobs), commands)
