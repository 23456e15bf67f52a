"""Select the tasks that a command submits, their arrays and resources; change nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ctrate_convert.cluster.scheduler.limits import ClusterLimits
from ctrate_convert.cluster.scheduler.profile import ClusterProfile
from ctrate_convert.cluster.scheduler.resources import default_resources
from ctrate_convert.cluster.states.cluster_view import ClusterView, Task
from ctrate_convert.cluster.submissions import ArrayIntent, ArrayKind, Resources, job_name
from ctrate_convert.errors import RefusedError
from ctrate_convert.running.space import require_room

_FINALISER = Resources(timeout_min=60, mem_mb=1024, cpus_per_task=1)


@dataclass(frozen=True)
class Group:
    """Tasks that get the same resources for the same reason, and delete under the same consent."""

    why: str
    tasks: tuple[Task, ...]
    resources: Resources
    consent: str = ""
    kind: ArrayKind = "convert"
    check: int = 0


@dataclass(frozen=True)
class Selection:
    """The tasks to submit, and notes that tell a person about the rest."""

    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return sum(len(group.tasks) for group in self.groups)


Select = Callable[[ClusterView, ClusterLimits], Selection]


def pending_selection(
    view: ClusterView, profile: ClusterProfile, limits: ClusterLimits, consent: str = ""
) -> Selection:
    """Select the tasks that nobody has tried or holds, to delete under ``consent``, if any.

    Raises:
        RefusedError: there is none, or it cannot be known.
    """
    free = [task for task in view.tasks if task.verdict.state == "pending" and not task.is_held]
    held = [task for task in view.tasks if task.is_held and task.verdict.state != "done"]
    out = view.dataset.out
    notes = []
    stuck = [task for task in held if task.stuck is not None]
    if stuck:
        notes.append(f"{_count(stuck)} stuck in the queue; see: ctrate-convert status {out}")
    held = [task for task in held if task.stuck is None]
    if held:
        jobs = sorted({task.job.partition("_")[0] for task in held if task.job})
        at = f", job{'s' if len(jobs) > 1 else ''} {', '.join(jobs)}" if jobs else ""
        notes.append(f"{_count(held)} live or being submitted{at or ', by another command'}")
    for state, command in (
        ("failed", f"ctrate-convert relaunch {out}"),
        ("cancelled", f"ctrate-convert relaunch {out}"),
        ("unknown", f"ctrate-convert status {out}"),
    ):
        others = [t for t in view.tasks if t.verdict.state == state and not t.is_held]
        if others:
            notes.append(f"{_count(others)} {state}; see: {command}")
    local = [t for t in view.tasks if t.verdict.state == "running" and not t.is_held]
    if local:
        notes.append(f"{_count(local)} being converted by hand")
    if not free:
        why = "; ".join(notes) or "every task is done"
        raise RefusedError(
            f"nothing is free to be submitted: {why}",
            where=out,
            next_command=f"ctrate-convert status {out}",
        )
    wanted = usual_resources(view, free, profile)
    notes += limits.partition.cuts(wanted)
    resources = limits.partition.cap(wanted)
    return Selection((Group("pending", tuple(free), resources, consent),), tuple(notes))


def usual_resources(view: ClusterView, tasks: Sequence[Task], profile: ClusterProfile) -> Resources:
    """Return what ``tasks`` want if nobody asked for anything else."""
    return default_resources(
        view.ledger,
        [task.shards for task in tasks],
        view.attempts,
        profile,
    )


def refuse_in_the_dark(view: ClusterView) -> None:
    """Raise if squeue could not be asked, since then nobody knows what is live.

    Raises:
        RefusedError: squeue could not be asked.
    """
    if not view.queue_asked:
        why = "; ".join(map(str, view.unavailable))
        raise RefusedError(
            f"the scheduler cannot be asked which tasks are live: {why}",
            where=view.dataset.out,
            next_command=f"ctrate-convert status {view.dataset.out}, once squeue answers",
        )


def that_fit(selection: Selection, limits: ClusterLimits) -> Selection:
    """Return as many tasks as may be in the queue now, with a note on the rest.

    Raises:
        RefusedError: there is no room for a single one.
    """
    room = limits.elements_now
    if room is None or selection.tasks <= room:
        return selection
    if room < 1:
        raise RefusedError(
            "the limit on submitted jobs leaves no room for one more",
            next_command="give the same command again once some jobs have ended",
        )
    note = (
        f"the limit on submitted jobs leaves room for {room} of {selection.tasks} tasks; "
        "give the same command again later for the rest"
    )
    return first_tasks(dataclasses.replace(selection, notes=(*selection.notes, note)), room)


def first_tasks(selection: Selection, most: int) -> Selection:
    """Return the first ``most`` tasks of the selection."""
    groups = []
    for group in selection.groups:
        taken = group.tasks[:most]
        most -= len(taken)
        if taken:
            groups.append(dataclasses.replace(group, tasks=taken))
    return Selection(tuple(groups), selection.notes)


def with_room(view: ClusterView, selection: Selection, profile: ClusterProfile) -> Selection:
    """Return ``selection``, with a note if the output may not have the room.

    Space that elements free by deleting is not counted, since it comes only as they go.

    Raises:
        EnvironmentProblem: it certainly does not fit, and ``min_free_gb`` lets no element pause.
    """
    ledger = view.ledger
    work = [
        ledger.planned[shard.index]
        for group in selection.groups
        if group.kind == "convert"  # the others write no shard
        for task in group.tasks
        for shard in task.shards
    ]
    workers = max((group.resources.cpus_per_task for group in selection.groups), default=1)
    words = require_room(
        view.dataset,
        work,
        ledger.recorded,
        num_workers=workers * profile.array_parallelism,
        least_workers=1,  # Slurm decides how many run at once
        consent=None,
        may_wait=profile.min_free_gb > 0,
    )
    return Selection(selection.groups, (*selection.notes, words)) if words else selection


def arrays_of(
    selection: Selection,
    limits: ClusterLimits,
    profile: ClusterProfile,
    token: str,
    number: int,
) -> tuple[ArrayIntent, ...]:
    """Return the arrays, none larger than the cluster permits, and the finaliser of a conversion.

    The indices of each array run from 0.
    """
    size = limits.elements_per_array
    chunks = [
        (group, group.tasks[first : first + size])
        for group in selection.groups
        for first in range(0, len(group.tasks), size)
    ]
    # Slurm limits each array on its own, so the arrays share the total.
    share, more = divmod(profile.array_parallelism, len(chunks) or 1)
    arrays = [
        ArrayIntent(
            job_name=job_name(token, number, place),
            kind=group.kind,
            tasks=tuple(task.number for task in tasks),
            resources=group.resources,
            parallelism=max(1, share + (place < more)),
            why=group.why,
            consent=group.consent,
            check=group.check,
        )
        for place, (group, tasks) in enumerate(chunks)
    ]
    if arrays and all(array.kind != "convert" for array in arrays):
        return tuple(arrays)
    finaliser = ArrayIntent(
        job_name=job_name(token, number, len(arrays)),
        kind="finalise",
        tasks=(),
        resources=limits.partition.cap(_FINALISER),
        parallelism=1,
        why="merges, verifies and reports after all",
    )
    return (*arrays, finaliser)


def _count(tasks: Sequence[Task]) -> str:
    number = len(tasks)
    return f"{number:,} task{' is' if number == 1 else 's are'}"
