"""Find the tasks that a run by hand must leave to Slurm."""

from __future__ import annotations

from ctrate_convert.cluster.scheduler.client import SlurmClient
from ctrate_convert.cluster.states.cluster_view import Looker
from ctrate_convert.errors import RefusedError
from ctrate_convert.store.layout import Dataset


def held_tasks(dataset: Dataset, client: SlurmClient | None = None) -> frozenset[int]:
    """Return the tasks that are live under Slurm, or are being submitted.

    Raises:
        RefusedError: the scheduler cannot be asked about tasks that it was given.
    """
    view = Looker(dataset, client or SlurmClient()).look()
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
