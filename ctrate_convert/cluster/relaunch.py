"""Relaunch only what failed, with more of what it ran out of; leave what is done or live."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ctrate_convert.cluster.scheduler.client import SlurmClient
from ctrate_convert.cluster.scheduler.limits import ClusterLimits, PartitionLimits
from ctrate_convert.cluster.scheduler.profile import ClusterProfile, load_profile, profile_from
from ctrate_convert.cluster.selection import Group, Selection, usual_resources
from ctrate_convert.cluster.states.cluster_view import ClusterView, Task
from ctrate_convert.cluster.states.evidence import Cause
from ctrate_convert.cluster.submissions import Resources, load_submissions
from ctrate_convert.cluster.submit import Submitted, submit_selected
from ctrate_convert.deleting.consents import load_consent, why_not_believed
from ctrate_convert.errors import RefusedError
from ctrate_convert.store.layout import Dataset

_WHY: dict[Cause, str] = {
    "memory": "ran out of memory",
    "time": "ran out of time",
    "node": "its node failed",
    "other": "failed",
}


_MEMORY_STEP_MB = 256

MAX_ATTEMPTS = 5
"""How often a finaliser that goes on submits a task at most, unless it is told otherwise."""


class NothingToRelaunch(RefusedError):
    """Nothing failed, or nothing that may be relaunched."""


def latest_profile(dataset: Dataset) -> ClusterProfile:
    """Return the profile of the newest conversion, or the defaults if none was submitted.

    A relaunch goes on with that profile, and so does a verification, audit or deletion.
    """
    submissions = [one for one in load_submissions(dataset) if one.submission.converts]
    if not submissions:
        return load_profile(None)
    newest = submissions[-1]
    return profile_from(newest.submission.profile, newest.folder)


def relaunch(
    dataset: Dataset,
    profile: ClusterProfile,
    *,
    given: Mapping[str, Any],
    dry_run: bool,
    include_unknown: bool,
    also: frozenset[int] = frozenset(),
    keep_sources: bool = False,
    only: frozenset[int] | None = None,
    max_attempts: int = 0,
    client: SlurmClient | None = None,
) -> Submitted:
    """Submit the tasks that failed, each group of a kind as its own array.

    ``given`` are the settings of this very command line; they win over what a task had before.
    ``also`` are tasks to submit although they are only pending: new shards for failed samples. Each
    task goes on under the consent that it was submitted with; with ``keep_sources``, under none.
    ``only`` is what a finaliser may take, and only where it gives more than the task had. With
    ``max_attempts`` the new finaliser goes on likewise; then it is enough if something is live.

    Raises:
        NothingToRelaunch: nothing failed.
        RefusedError: it cannot be known.
    """
    client = client or SlurmClient()

    def select(view: ClusterView, limits: ClusterLimits) -> Selection:
        return failed_selection(
            view,
            profile,
            limits,
            given=given,
            include_unknown=include_unknown,
            also=also,
            keep_sources=keep_sources,
            only=only,
            may_wait=max_attempts > 0 and only is None,
        )

    return submit_selected(
        dataset,
        profile,
        client,
        command="relaunch --until_done" if max_attempts else "relaunch",
        dry_run=dry_run,
        select=select,
        max_attempts=max_attempts,
    )


def failed_selection(
    view: ClusterView,
    profile: ClusterProfile,
    limits: ClusterLimits,
    *,
    given: Mapping[str, Any],
    include_unknown: bool,
    also: frozenset[int] = frozenset(),
    keep_sources: bool = False,
    only: frozenset[int] | None = None,
    may_wait: bool = False,
) -> Selection:
    """Select the tasks that failed, grouped by cause, new resources and consent.

    With ``may_wait`` none is selected if none failed and some are live: they may fail later.

    Raises:
        NothingToRelaunch: there is none.
    """
    out = view.dataset.out
    wanted = {"failed", "cancelled"} | ({"unknown"} if include_unknown else set())
    chosen = [
        task
        for task in view.tasks
        if not task.is_held
        and (only is None or task.number in only)
        and (task.verdict.state in wanted or (task.number in also and _is_pending(task)))
    ]
    unknown = [t for t in view.tasks if t.verdict.state == "unknown" and t not in chosen]
    notes = notes_on_unknown(unknown)
    stuck = sum(task.stuck is not None for task in view.tasks)
    if stuck:
        notes.append(f"{stuck} stuck in the queue; see: ctrate-convert status {out}")
    moving = sum(task.is_moving for task in view.tasks)
    if not chosen and may_wait and moving:
        notes.append(f"nothing failed so far; the finaliser waits for {moving} live tasks")
        return Selection((), tuple(notes))
    if not chosen:
        raise NothingToRelaunch(
            "nothing failed that could be relaunched" + "".join(f"; {note}" for note in notes),
            where=out,
            next_command=f"ctrate-convert status {out}",
        )
    usual = usual_resources(view, chosen, profile)
    bases = {
        task.number: _as_given((task.element and task.element.resources) or usual, given)
        for task in chosen
    }
    outgrown_mb = _outgrown_mb(chosen, bases)
    groups: dict[tuple[str, Resources, str], list[Task]] = {}
    cuts: list[str] = []
    for task in chosen:
        before = task.element.resources if task.element else None
        base = bases[task.number]
        more = _more(base, task, profile, given, outgrown_mb.get(base, 0))
        resources = limits.partition.cap(more)
        # Where the partition grants no more than before, a note below says more.
        cuts += limits.partition.cuts(more) if resources != before else []
        if only is not None and not _gets_more(task, before, resources):
            continue
        consent = "" if keep_sources else _consent(view, task)
        groups.setdefault((_why(task), resources, consent), []).append(task)
    if not groups:
        raise NothingToRelaunch(
            "the partition grants no more than the tasks had that ran out of it",
            where=out,
            next_command=f"ctrate-convert relaunch {out} --partition NAME",
        )
    notes += dict.fromkeys(cuts)
    notes += _notes_on_limits(groups, limits.partition)
    notes += _notes_on_consents(view, groups)
    return Selection(
        tuple(
            Group(why, tuple(tasks), resources, consent)
            for (why, resources, consent), tasks in groups.items()
        ),
        tuple(notes),
    )


def notes_on_unknown(tasks: Sequence[Task]) -> list[str]:
    """Note how many ``tasks`` are unknown; advise to take those that nothing calls live."""
    notes = []
    alive = [task for task in tasks if task.lives_by_accounting]
    others = len(tasks) - len(alive)
    if others:
        notes.append(
            f"{others} unknown left alone; --include_unknown takes those that are not live"
        )
    if alive:
        notes.append(
            f"{len(alive)} unknown left alone that may be live: accounting calls job "
            f"{alive[0].job} {alive[0].account.state if alive[0].account else ''}, and squeue "
            "does not show it"
        )
    return notes


def _consent(view: ClusterView, task: Task) -> str:
    """Return the consent of the task's newest submission, since a relaunch asks nobody."""
    for files in reversed(view.submissions):
        for array in files.submission.arrays:
            if array.kind == "convert" and task.number in array.tasks:
                return array.consent
    return ""


def _notes_on_consents(
    view: ClusterView, groups: Mapping[tuple[str, Resources, str], list[Task]]
) -> list[str]:
    """Note by whose word sources are deleted, if any are.

    A relaunch asks nobody, so the notes quote the consent.
    """
    dataset = view.dataset
    notes = []
    for name in sorted({consent for _, _, consent in groups if consent}):
        doubt = why_not_believed(dataset, name)
        words = (
            f"kept: {doubt}"
            if doubt
            else f"let go as allowed by {load_consent(dataset, name).words()}"
        )
        notes.append(f"sources are {words}")
    kept = sum(len(tasks) for (_, _, consent), tasks in groups.items() if not consent)
    if notes and kept:
        notes.append(f"{kept} of the tasks delete nothing: no consent names them")
    return notes


def _is_pending(task: Task) -> bool:
    return task.verdict.state == "pending"


def _why(task: Task) -> str:
    if task.verdict.state == "unknown":
        return "unknown"
    return "failed samples" if task.verdict.state == "pending" else _WHY[task.verdict.cause]


def _as_given(resources: Resources, given: Mapping[str, Any]) -> Resources:
    changes: dict[str, Any] = {}
    if given.get("timeout_min"):
        changes["timeout_min"] = given["timeout_min"]
    if given.get("mem_gb"):
        changes["mem_mb"] = math.ceil(given["mem_gb"] * 1024)
    if given.get("cpus_per_task"):
        changes["cpus_per_task"] = given["cpus_per_task"]
    return resources.model_copy(update=changes)


def _outgrown_mb(tasks: Sequence[Task], bases: Mapping[int, Resources]) -> dict[Resources, float]:
    """Return the most memory that tasks with the same resources had used when it ran out.

    One number for all of them keeps them in one array. A process may use more than it asked for
    before it is killed.
    """
    most: dict[Resources, float] = {}
    for task in tasks:
        if task.verdict.cause == "memory":
            base = bases[task.number]
            seen_mb = task.account.max_rss_bytes / 2**20 if task.account else 0.0
            most[base] = max(most.get(base, base.mem_mb), seen_mb)
    return most


def _more(
    base: Resources,
    task: Task,
    profile: ClusterProfile,
    given: Mapping[str, Any],
    outgrown_mb: float,
) -> Resources:
    """Return more of what the task ran out of; a number from the command line stands."""
    cause = task.verdict.cause if task.verdict.state == "failed" else "other"
    if cause == "memory" and not given.get("mem_gb"):
        steps = math.ceil(outgrown_mb * profile.memory_factor / _MEMORY_STEP_MB)
        return base.model_copy(update={"mem_mb": steps * _MEMORY_STEP_MB})
    if cause == "time" and not given.get("timeout_min"):
        more = math.ceil(base.timeout_min * profile.time_factor)
        return base.model_copy(update={"timeout_min": more})
    if cause == "node" and task.node:
        # The node may still be broken.
        exclude = tuple(sorted({*base.exclude, task.node}))
        return base.model_copy(update={"exclude": exclude})
    return base


def _gets_more(task: Task, before: Resources | None, now: Resources) -> bool:
    """Return True unless the task ran out of something of which it gets no more now."""
    if before is None:
        return True
    if task.verdict.cause == "memory":
        return now.mem_mb > before.mem_mb
    # Shards that were done within the time are not done again, so the same time may do.
    went_on = any(one.end is not None and one.end.shards_done for one in task.attempts[-1:])
    return task.verdict.cause != "time" or went_on or now.timeout_min > before.timeout_min


def _notes_on_limits(
    groups: Mapping[tuple[str, Resources, str], list[Task]], partition: PartitionLimits
) -> list[str]:
    """Note which tasks get no more than they had, since the partition has no more."""
    notes = []
    for (why, now, _), tasks in groups.items():
        for before in {task.element.resources for task in tasks if task.element}:
            if before is None:
                continue
            if why == _WHY["time"] and before.timeout_min >= now.timeout_min:
                most = f"{partition.timeout_min} min"
            elif why == _WHY["memory"] and before.mem_mb >= now.mem_mb:
                most = f"{partition.mem_mb} MB"
            else:
                continue
            notes.append(f"{why}: partition {partition.name} grants no more than {most}")
    return notes
