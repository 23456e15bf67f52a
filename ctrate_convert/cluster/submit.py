"""Submit what is pending: look, write the intent, call sbatch, write down the answer.

Two commands that submit at the same time see the same free number. One gets it; the other looks
again and finds the tasks taken. The lock only saves the other one the trouble.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ctrate_convert import __version__
from ctrate_convert.cluster.payload import Payload
from ctrate_convert.cluster.scheduler.client import (
    SlurmClient,
    SubmissionRejected,
    SubmissionUnclear,
)
from ctrate_convert.cluster.scheduler.launcher import executor, submit_array, warning_s
from ctrate_convert.cluster.scheduler.limits import ClusterLimits, cluster_limits
from ctrate_convert.cluster.scheduler.profile import ClusterProfile, profile_from
from ctrate_convert.cluster.selection import (
    Select,
    Selection,
    arrays_of,
    first_tasks,
    pending_selection,
    refuse_in_the_dark,
    that_fit,
    with_room,
)
from ctrate_convert.cluster.states.cluster_view import ClusterView, Looker, Task
from ctrate_convert.cluster.submissions import (
    ArrayIntent,
    Resources,
    Submission,
    SubmissionFiles,
    new_token,
    now_text,
    process_start,
    publish,
    user_name,
)
from ctrate_convert.errors import CtrateError, EnvironmentProblem, RefusedError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.locks import locked

_LOCK_PATIENCE_S = 300.0
_TRIES = 12

Arguments = tuple[Any, ...]
Payloads = Callable[[SubmissionFiles, ArrayIntent], tuple[Payload, list[Arguments]]]
"""The work of an array's elements, and the arguments of each: plain values."""


@dataclass(frozen=True)
class Script:
    """One array to submit: its job script, and the task of each element."""

    job_name: str
    text: str
    tasks: tuple[Task, ...]
    resources: Resources
    why: str


@dataclass(frozen=True)
class Submitted:
    """The result of submitting; in a dry run ``number`` is None and nothing was submitted.

    ``job_ids`` has an id for each of ``scripts``, None for an array that Slurm refused or gave no
    clear answer about; ``refused`` has the reasons.
    """

    number: int | None
    job_ids: tuple[str | None, ...]
    scripts: tuple[Script, ...]
    notes: tuple[str, ...]
    refused: tuple[CtrateError, ...] = ()


def submit(
    dataset: Dataset,
    profile: ClusterProfile,
    *,
    dry_run: bool,
    consent: str = "",
    client: SlurmClient | None = None,
) -> Submitted:
    """Submit every task that is pending and that nobody holds.

    ``consent`` names the consent under which the tasks delete sources; without one they delete
    nothing.

    Raises:
        RefusedError: all of them are live, or it cannot be known.
        EnvironmentProblem: they certainly do not fit at the output.
        SubmissionRejected: the scheduler refused.
    """
    client = client or SlurmClient()
    return submit_selected(
        dataset,
        profile,
        client,
        command="submit",
        dry_run=dry_run,
        select=lambda view, limits: pending_selection(view, profile, limits, consent),
    )


def submit_selected(
    dataset: Dataset,
    profile: ClusterProfile,
    client: SlurmClient,
    *,
    command: str,
    dry_run: bool,
    select: Select,
    max_attempts: int = 0,
    payloads: Payloads | None = None,
) -> Submitted:
    """Look, ``select`` and submit; look again if another submission came in between.

    ``payloads`` tells what each element does; without it, it converts its task.

    A SLURM_CLUSTERS of the caller's is written into the profile, since whoever looks later must ask
    there.

    With ``max_attempts`` the finaliser waits for all live tasks, and goes on until all is done.
    """
    if profile.clusters == ("",) and (mine := os.environ.get("SLURM_CLUSTERS")):
        profile = profile.overridden({"additional_parameters": {"clusters": mine}})
    looker = Looker(dataset, client.at(profile.clusters))
    limits: ClusterLimits | None = None

    def choose() -> tuple[ClusterView, Selection, ClusterLimits]:
        nonlocal limits
        view = looker.look(write_answers=not dry_run)
        refuse_in_the_dark(view)
        # Asked once: another look has to ask only for what has changed.
        limits = limits or cluster_limits(client.at(profile.clusters), profile, user_name())
        selection = that_fit(select(view, limits), limits)
        return view, with_room(view, selection, profile), limits

    if dry_run:
        view, selection, limits = choose()
        arrays = arrays_of(selection, limits, profile, new_token(), _next_number(view))
        intent = _intent(view, profile, command, arrays, max_attempts)
        files = SubmissionFiles(dataset, intent)
        scripts = _scripts(files, profile, selection, client)
        return Submitted(None, (), scripts, (*selection.notes, *limits.notes))
    dataset.prepare()
    rounds: list[Submitted] = []
    room: int | None = None
    with locked(dataset.lock("submit"), timeout_s=_LOCK_PATIENCE_S):
        for _ in range(_TRIES):
            try:
                view, selection, limits = choose()
            except CtrateError as error:
                if not any(any(one.job_ids) for one in rounds):
                    raise
                return _summed_up(rounds, error)  # what was accepted before is told
            selection = selection if room is None else first_tasks(selection, room)
            arrays = arrays_of(selection, limits, profile, new_token(), _next_number(view))
            # Everything that can be refused here is refused before the intent is written.
            intent = _intent(view, profile, command, arrays, max_attempts)
            scripts = _scripts(SubmissionFiles(dataset, intent), profile, selection, client)
            published = publish(dataset, intent)
            if published is None:
                continue
            also_awaited = _live_jobs(view) if max_attempts else ()
            job_ids, refused = _call_sbatch(
                published, client, payloads or _converting, also_awaited
            )
            notes = (*selection.notes, *limits.notes)
            rounds.append(Submitted(intent.number, job_ids, scripts, notes, refused))
            # Slurm's limits are many, and others submit too: if it names one, try less.
            room = _less(rounds[-1])
            if room is None:
                return _summed_up(rounds)
    if rounds:
        return _summed_up(rounds)
    raise EnvironmentProblem(
        "others keep submitting from this directory",
        where=dataset.submissions,
        next_command="give the same command again",
    )


def _less(done: Submitted) -> int | None:
    """Return how many tasks to try after a refusal that names a limit; None if it makes no sense.

    Half of the array that was refused: what Slurm leaves room for can only be found by trying.
    """
    refused = [
        len(script.tasks)
        for script, job_id in zip(done.scripts, done.job_ids, strict=True)
        if job_id is None and script.tasks
    ]
    named = [isinstance(one, SubmissionRejected) and one.names_a_limit for one in done.refused]
    if not refused or not all(named):
        return None
    return refused[0] // 2 or None


def _summed_up(rounds: Sequence[Submitted], error: CtrateError | None = None) -> Submitted:
    """Return all rounds as one, with a note on the tasks that nobody accepted.

    ``error`` ended the last round before it began.

    Raises:
        SubmissionRejected, SubmissionUnclear: no round got anything accepted.
    """
    accepted = [one for one in rounds if any(one.job_ids)]
    if not accepted:
        raise rounds[0].refused[0]
    wanted = sum(len(script.tasks) for script in rounds[0].scripts)
    # What a round was refused, the next one tried again: only the last refusals stand.
    pairs = [
        (script, job_id)
        for one in rounds
        for script, job_id in zip(one.scripts, one.job_ids, strict=True)
        if job_id or (one is rounds[-1] and error is None)
    ]
    left = wanted - sum(len(script.tasks) for script, job_id in pairs if job_id)
    notes = list(rounds[0].notes)
    if left:
        notes.append(f"{left} of {wanted} tasks were not accepted; they stay free, unless unclear")
    reasons = {one.what: one for one in (*rounds[-1].refused, *filter(None, [error]))}
    return Submitted(
        accepted[-1].number,
        tuple(job_id for _, job_id in pairs),
        tuple(script for script, _ in pairs),
        tuple(notes),
        tuple(reasons.values()),
    )


def _live_jobs(view: ClusterView) -> tuple[str, ...]:
    """Return the arrays with an element in the queue that waiting may bring to its end."""
    live = [task.live for task in view.tasks if task.live is not None and task.stuck is None]
    return tuple(sorted({row.key[0] for row in live}))


def _call_sbatch(
    files: SubmissionFiles,
    client: SlurmClient,
    payloads: Payloads,
    also_awaited: Sequence[str] = (),
) -> tuple[tuple[str | None, ...], tuple[CtrateError, ...]]:
    """Submit every array, then the finaliser behind them; write down each answer at once.

    Slurm may refuse one array and accept the next. What it accepted gets its finaliser. After an
    unclear answer no further array is tried: the controller is in trouble.
    """
    intent = files.submission
    profile = profile_from(intent.profile, files.folder)
    job_ids: list[str | None] = []
    refused: list[CtrateError] = []
    unclear = False
    for place, array in enumerate(intent.arrays):
        accepted = [*filter(None, job_ids), *also_awaited]
        try:
            if array.kind == "finalise" and not accepted:
                raise SubmissionRejected("no array to report on was accepted")
            if array.kind != "finalise" and unclear:
                raise SubmissionRejected("not tried, since sbatch gave no clear answer before")
            job_id = _submit_one(files, place, profile, accepted, client, payloads)
        except SubmissionUnclear as error:
            # No answer is written: the next look asks Slurm by the array's name.
            unclear = True
            refused.append(error)
            job_ids.append(None)
            continue
        except SubmissionRejected as error:
            files.write_answer(place, job_id=None, found_by="sbatch", words=error.one_line())
            if array.kind != "finalise" or accepted:
                refused.append(error)
            job_ids.append(None)
            continue
        except EnvironmentProblem as error:
            # The arrays after this one are not submitted either; without an answer they would stay
            # open.
            for unborn in range(place, len(intent.arrays)):
                files.write_answer(unborn, job_id=None, found_by="sbatch", words=error.one_line())
            raise
        answer = files.write_answer(place, job_id=job_id, found_by="sbatch")
        # Another command had found neither this process nor the job, and wrote its answer first.
        if answer.job_id != job_id:
            client.at(profile.clusters).scancel([job_id])
            raise RefusedError(
                "another command gave this submission up for dead meanwhile; its job was cancelled",
                where=files.folder,
                seen=f"job {job_id}",
                next_command="give the same command again",
            )
        job_ids.append(job_id)
    return tuple(job_ids), tuple(refused)


def _submit_one(
    files: SubmissionFiles,
    place: int,
    profile: ClusterProfile,
    accepted: Sequence[str],
    client: SlurmClient,
    payloads: Payloads,
) -> str:
    """Submit one array, the finaliser behind those that were ``accepted``; return its job id."""
    array = files.submission.arrays[place]
    if array.kind == "finalise":
        # afterany: the finaliser reports on failures, too.
        dependency = "afterany:" + ":".join(accepted)
        made = executor(files.logs(place), profile, array, client=client, dependency=dependency)
        arguments = (os.fspath(files.out), files.submission.number)
        return submit_array(made, Payload("finalise"), [arguments])
    made = executor(files.logs(place), profile, array, client=client)
    return submit_array(made, *payloads(files, array))


def _converting(files: SubmissionFiles, array: ArrayIntent) -> tuple[Payload, list[Arguments]]:
    """Return what the elements of a conversion do, and the arguments of each."""
    number, out = files.submission.number, os.fspath(files.out)
    profile = profile_from(files.submission.profile, files.folder)
    cpus, warning = array.resources.cpus_per_task, warning_s(profile, array.resources)
    return Payload("element"), [
        (out, number, task, cpus, warning, profile.min_free_gb, array.consent, profile.scratch)
        for task in array.tasks
    ]


def _intent(
    view: ClusterView,
    profile: ClusterProfile,
    command: str,
    arrays: tuple[ArrayIntent, ...],
    max_attempts: int,
) -> Submission:
    return Submission(
        number=_next_number(view),
        created=now_text(),
        command=command,
        user=user_name(),
        host=socket.gethostname(),
        pid=os.getpid(),
        pid_started=process_start(os.getpid()),
        program_version=__version__,
        plans=tuple(plan.plan_id for plan in view.plans),
        profile=profile.model_dump(mode="json"),
        arrays=arrays,
        max_attempts=max_attempts,
    )


def _next_number(view: ClusterView) -> int:
    return max((files.submission.number for files in view.submissions), default=0) + 1


def _scripts(
    files: SubmissionFiles, profile: ClusterProfile, selection: Selection, client: SlurmClient
) -> tuple[Script, ...]:
    """Return the exact job scripts that are going to be submitted."""
    by_number = {task.number: task for group in selection.groups for task in group.tasks}
    scripts = []
    for place, array in enumerate(files.submission.arrays):
        # The job ids are not known before sbatch has run.
        dependency = "afterany:JOBS" if array.kind == "finalise" else None
        made = executor(
            files.logs(place),
            profile,
            array,
            client=client,
            dependency=dependency,
        )
        text = made.script(max(1, len(array.tasks)))
        tasks = tuple(by_number[task] for task in array.tasks)
        scripts.append(Script(array.job_name, text, tasks, array.resources, array.why))
    return tuple(scripts)
