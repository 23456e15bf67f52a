"""Submit a verification, an audit or a deletion as arrays: an element for each task of the plan.

What is found out, or gone, is on disk. So the same command goes on where the jobs left off: it
submits the tasks of which something is left.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ctrate_convert.checking.check_files import CheckFiles, load_check, publish_check
from ctrate_convert.checking.units import units_of_audit, units_of_verify
from ctrate_convert.cluster.payload import Payload
from ctrate_convert.cluster.scheduler.client import SlurmClient
from ctrate_convert.cluster.scheduler.launcher import warning_s
from ctrate_convert.cluster.scheduler.limits import ClusterLimits
from ctrate_convert.cluster.scheduler.profile import ClusterProfile, profile_from
from ctrate_convert.cluster.selection import Group, Selection, refuse_in_the_dark, usual_resources
from ctrate_convert.cluster.states.cluster_view import ClusterView, Looker
from ctrate_convert.cluster.submissions import (
    ArrayIntent,
    ArrayKind,
    SubmissionFiles,
    load_submissions,
)
from ctrate_convert.cluster.submit import Arguments, Payloads, Submitted, submit_selected
from ctrate_convert.errors import RefusedError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.check import CheckCommand, CheckOptions, Unit


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
    ledger = Ledger(dataset, require_plans(dataset))
    files, left = _unfinished(ledger, command, options, any_seed=any_seed)
    notes = []
    if files is None:
        make = units_of_verify if command == "verify" else units_of_audit
        left = make(dataset, options)
        if not left:
            raise RefusedError(
                f"there is no shard that `{options.words(command)}` would read",
                where=dataset.out,
                next_command=f"ctrate-convert status {dataset.out}",
            )
        files = publish_check(dataset, command, options, left)
    else:
        notes.append(
            f"goes on with check {files.check.number:04d} of {files.check.created}: "
            f"{len(files.units) - len(left)} of {len(files.units)} results are there"
        )
    units_by_task: dict[int, list[Unit]] = {}
    for unit in left:
        if unit.shard in ledger.planned:
            units_by_task.setdefault(ledger.planned[unit.shard].shard.task, []).append(unit)

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
        options.words(command),
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


def newest_check(dataset: Dataset, command: CheckCommand) -> CheckFiles | None:
    """Return the newest check of the command that Slurm may have accepted; None without any.

    Raises:
        DamageError: its files were changed.
    """
    for files in reversed(load_submissions(dataset)):
        for place, array in enumerate(files.submission.arrays):
            if array.kind != "check" or files.submission.command.split()[0] != command:
                continue
            answer = files.answer(place)
            if answer is None or answer.job_id is not None:
                return load_check(dataset, array.check)
    return None


def _unfinished(
    ledger: Ledger, command: CheckCommand, options: CheckOptions, *, any_seed: bool
) -> tuple[CheckFiles | None, Sequence[Unit]]:
    """Return the newest check and what is left of it, if these options asked for it."""
    files = newest_check(ledger.dataset, command)
    if files is None:
        return None, ()
    asked = files.check.options
    if any_seed:
        options = options.model_copy(update={"seed": asked.seed})
    left = files.missing(ledger) if asked == options else []
    return (files, left) if left else (None, ())


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
    known: frozenset[int] | None = None

    def select(view: ClusterView, limits: ClusterLimits) -> Selection:
        nonlocal known
        numbers = frozenset(files.submission.number for files in view.submissions)
        mine = numbers - (numbers if known is None else known)
        known = known if known is not None else numbers
        # The rounds of this very call come one after the other: what they got is not tried again.
        _refuse_if_live(view, command.split()[0], but=mine)
        taken = frozenset(
            task
            for files in view.submissions
            if files.submission.number in mine
            for place, array in enumerate(files.submission.arrays)
            if (answer := view.answers[files.submission.number, place]) is None or answer.job_id
            for task in array.tasks
        )
        chosen = tuple(task for task in view.tasks if task.number in tasks - taken)
        if not chosen:
            raise RefusedError(
                f"`{command}` has nothing left that could be submitted",
                where=dataset.out,
                next_command=f"ctrate-convert status {dataset.out}",
            )
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


def _refuse_if_live(view: ClusterView, command: str, but: frozenset[int] = frozenset()) -> None:
    """Raise if jobs of the command are live, or may be, in submissions other than ``but``."""
    refuse_in_the_dark(view)
    for one in view.other_work:
        if one.name != command or not one.is_live or but >= frozenset(one.live_submissions):
            continue
        what = f"`{command}` is at work on the cluster already"
        seen = f"submission {one.submission:04d}"
        if one.jobs:
            seen += f", job {one.jobs[0].partition('_')[0]}"
        else:
            what = f"it is not known yet whether Slurm accepted an earlier `{command}`"
        raise RefusedError(
            what,
            where=view.dataset.out,
            seen=seen,
            next_command=f"ctrate-convert status {view.dataset.out}; it becomes known by itself",
        )
