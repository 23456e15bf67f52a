"""Submit a verification, an audit or a deletion as arrays: an element for each task of the plan.

What is found out, or gone, is on disk. So the same command goes on where the jobs left off: it
submits the tasks of which something is left.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ctrate_convert.checking.check_files import (
    CheckCommand,
    CheckFiles,
    CheckOptions,
    Unit,
    newest_check,
    publish_check,
)
from ctrate_convert.checking.units import units_of_audit, units_of_verify
from ctrate_convert.cluster.payload import Payload
from ctrate_convert.cluster.scheduler.client import SlurmClient
from ctrate_convert.cluster.scheduler.launcher import warning_s
from ctrate_convert.cluster.scheduler.limits import ClusterLimits
from ctrate_convert.cluster.scheduler.profile import ClusterProfile, profile_from
from ctrate_convert.cluster.selection import Group, Selection, refuse_in_the_dark, usual_resources
from ctrate_convert.cluster.states.cluster_view import ClusterView, Looker
from ctrate_convert.cluster.submissions import ArrayIntent, ArrayKind, SubmissionFiles
from ctrate_convert.cluster.submit import Arguments, Payloads, Submitted, submit_selected
from ctrate_convert.errors import RefusedError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import planned_shards
from ctrate_convert.store.plans import require_plans


def submit_check(
    dataset: Dataset,
    profile: ClusterProfile,
    command: CheckCommand,
    options: CheckOptions,
    *,
    any_seed: bool = False,
    client: SlurmClient | None = None,
) -> Submitted:
    """Submit what is left of the newest check with these options, or a new one if it is complete.

    With ``any_seed`` an unfinished audit with another seed is gone on with.

    Raises:
        RefusedError: such a check is live, or there is nothing to look at.
        Others: as `submit`.
    """
    client = client or SlurmClient()
    _refuse_if_live(Looker(dataset, client).look(), command)
    files = _unfinished(dataset, command, options, any_seed=any_seed)
    notes = []
    if files is None:
        make = units_of_verify if command == "verify" else units_of_audit
        units = make(dataset, options)
        if not units:
            raise RefusedError(
                f"there is no shard that `{command}` would read with these options",
                where=dataset.out,
                next_command=f"ctrate-convert {command} {dataset.out}",
            )
        files = publish_check(dataset, command, options, units)
    else:
        done = len(files.units) - len(files.missing())
        notes.append(
            f"goes on with check {files.check.number:04d} of {files.check.created}: "
            f"{done} of {len(files.units)} results are there"
        )
    planned = planned_shards(require_plans(dataset))
    units_by_task: dict[int, list[Unit]] = {}
    for unit in files.missing():
        units_by_task.setdefault(planned[unit.shard].shard.task, []).append(unit)

    def payloads(intent: SubmissionFiles, array: ArrayIntent) -> tuple[Payload, list[Arguments]]:
        number, out = intent.submission.number, os.fspath(intent.out)
        cpus = array.resources.cpus_per_task
        return Payload("check_element"), [
            (
                out, number, array.check, task, cpus,
                tuple(unit.to_json().decode() for unit in units_by_task[task]),
            )
            for task in array.tasks
        ]  # fmt: skip

    return _submit(
        dataset,
        profile,
        client,
        command,
        frozenset(units_by_task),
        payloads,
        kind="check",
        check=files.check.number,
        notes=notes,
    )


def submit_deletion(
    dataset: Dataset,
    profile: ClusterProfile,
    tasks: frozenset[int],
    consent: str,
    *,
    dry_run: bool = False,
    client: SlurmClient | None = None,
) -> Submitted:
    """Submit the deletion of these tasks' sources, as far as ``consent`` lets them go.

    Raises:
        RefusedError: a deletion is live.
        Others: as `submit`.
    """

    def payloads(intent: SubmissionFiles, array: ArrayIntent) -> tuple[Payload, list[Arguments]]:
        number, out = intent.submission.number, os.fspath(intent.out)
        warning = warning_s(profile_from(intent.submission.profile, intent.folder), array.resources)
        cpus = array.resources.cpus_per_task
        return Payload("element"), [
            (out, number, task, cpus, warning, 0.0, array.consent, None, True)
            for task in array.tasks
        ]

    return _submit(
        dataset,
        profile,
        client or SlurmClient(),
        "delete",
        tasks,
        payloads,
        kind="delete",
        consent=consent,
        dry_run=dry_run,
    )


def _unfinished(
    dataset: Dataset, command: CheckCommand, options: CheckOptions, *, any_seed: bool
) -> CheckFiles | None:
    """Return the newest check if these options asked for it and results of it are missing."""
    files = newest_check(dataset, command)
    if files is None or not files.missing():
        return None
    asked = files.check.options
    if any_seed:
        options = options.model_copy(update={"seed": asked.seed})
    return files if asked == options else None


def _submit(
    dataset: Dataset,
    profile: ClusterProfile,
    client: SlurmClient,
    command: str,
    tasks: frozenset[int],
    payloads: Payloads,
    *,
    kind: ArrayKind,
    consent: str = "",
    check: int = 0,
    notes: Sequence[str] = (),
    dry_run: bool = False,
) -> Submitted:
    looked = False

    def select(view: ClusterView, limits: ClusterLimits) -> Selection:
        nonlocal looked
        # Only the first time: later the first of its own arrays may be live.
        if not looked:
            _refuse_if_live(view, command)
        looked = True
        chosen = tuple(task for task in view.tasks if task.number in tasks)
        wanted = usual_resources(view, chosen, profile)
        group = Group(
            command, chosen, limits.partition.cap(wanted), consent, kind=kind, check=check
        )
        return Selection((group,), (*notes, *limits.partition.cuts(wanted)))

    return submit_selected(
        dataset,
        profile,
        client,
        command=command,
        dry_run=dry_run,
        select=select,
        payloads=payloads,
    )


def _refuse_if_live(view: ClusterView, command: str) -> None:
    refuse_in_the_dark(view)
    for one in view.other_work:
        if one.command == command and one.is_live:
            job = f"job {one.jobs[0].partition('_')[0]}" if one.jobs else "not answered yet"
            raise RefusedError(
                f"`{command}` is at work on the cluster already",
                where=view.dataset.out,
                seen=f"submission {one.submission:04d}, {job}",
                next_command=f"ctrate-convert status {view.dataset.out}",
            )
