"""Submit what is pending: look, write the intent, call sbatch, write down the answer.

Two commands that submit at the same time see the same free number. One gets it; the other looks
again and finds the tasks taken. The lock only saves the other one the trouble.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from ctrate_convert import __version__
from ctrate_convert.cluster.element import ConvertTask
from ctrate_convert.cluster.finalise import Finalise
from ctrate_convert.cluster.scheduler.client import SlurmClient, SubmissionUnclear
from ctrate_convert.cluster.scheduler.launcher import executor, submit_array, warning_s
from ctrate_convert.cluster.scheduler.limits import ClusterLimits, cluster_limits
from ctrate_convert.cluster.scheduler.profile import ClusterProfile, profile_from
from ctrate_convert.cluster.selection import (
    Select,
    Selection,
    arrays_of,
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
from ctrate_convert.errors import EnvironmentProblem, RefusedError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.locks import locked

_LOCK_PATIENCE_S = 300.0
_TRIES = 5


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
    """The result of submitting; in a dry run ``number`` is None and nothing was submitted."""

    number: int | None
    job_ids: tuple[str, ...]
    scripts: tuple[Script, ...]
    notes: tuple[str, ...]


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
) -> Submitted:
    """Look, ``select`` and submit; look again if another submission came in between."""
    looker = Looker(dataset, client)
    limits: ClusterLimits | None = None

    def choose() -> tuple[ClusterView, Selection, ClusterLimits]:
        nonlocal limits
        view = looker.look(write_answers=not dry_run)
        refuse_in_the_dark(view)
        # Asked once: another look has to ask only for what has changed.
        limits = limits or cluster_limits(client, profile, user_name())
        selection = that_fit(select(view, limits), limits)
        return view, with_room(view, selection, profile), limits

    if dry_run:
        view, selection, limits = choose()
        arrays = arrays_of(selection, limits, profile, new_token(), _next_number(view))
        intent = _intent(view, profile, command, arrays)
        files = SubmissionFiles(dataset, intent)
        scripts = _scripts(files, profile, selection, client)
        return Submitted(None, (), scripts, (*selection.notes, *limits.notes))
    dataset.prepare()
    with locked(dataset.lock("submit"), timeout_s=_LOCK_PATIENCE_S):
        for _ in range(_TRIES):
            view, selection, limits = choose()
            arrays = arrays_of(selection, limits, profile, new_token(), _next_number(view))
            # Everything that can be refused here is refused before the intent is written.
            intent = _intent(view, profile, command, arrays)
            scripts = _scripts(SubmissionFiles(dataset, intent), profile, selection, client)
            published = publish(dataset, intent)
            if published is not None:
                job_ids = _call_sbatch(published, client)
                notes = (*selection.notes, *limits.notes)
                return Submitted(intent.number, job_ids, scripts, notes)
    raise EnvironmentProblem(
        "others keep submitting from this directory",
        where=dataset.submissions,
        next_command="give the same command again",
    )


def _call_sbatch(files: SubmissionFiles, client: SlurmClient) -> tuple[str, ...]:
    """Submit every array, then the finaliser behind them; write down each answer at once."""
    intent = files.submission
    profile = profile_from(intent.profile, files.folder)
    job_ids: list[str] = []
    for place, array in enumerate(intent.arrays):
        dependency = None
        out = os.fspath(files.out)
        payloads: list[tuple[object, ...]]
        if array.kind == "finalise":
            # afterany: the finaliser reports on failures, too.
            dependency = "afterany:" + ":".join(job_ids)
            payloads = [(out, intent.number)]
        else:
            cpus, warning = array.resources.cpus_per_task, warning_s(profile, array.resources)
            least = profile.min_free_gb
            payloads = [
                (out, intent.number, task, cpus, warning, least, array.consent)
                for task in array.tasks
            ]
        made = executor(
            files.logs(place),
            profile,
            array,
            client=client,
            dependency=dependency,
        )
        try:
            function = Finalise() if array.kind == "finalise" else ConvertTask()
            job_id = submit_array(made, function, payloads)
        except SubmissionUnclear:
            raise  # no answer is written: the next look asks Slurm by the array's name
        except EnvironmentProblem as error:
            # The arrays after this one are not submitted either; without an answer they would stay
            # open.
            for unborn in range(place, len(intent.arrays)):
                files.write_answer(unborn, job_id=None, found_by="sbatch", words=error.one_line())
            raise
        answer = files.write_answer(place, job_id=job_id, found_by="sbatch")
        # Another command had found neither this process nor the job, and wrote its answer first.
        if answer.job_id != job_id:
            client.scancel([job_id])
            raise RefusedError(
                "another command gave this submission up for dead meanwhile; its job was cancelled",
                where=files.folder,
                seen=f"job {job_id}",
                next_command="give the same command again",
            )
        job_ids.append(job_id)
    return tuple(job_ids)


def _intent(
    view: ClusterView, profile: ClusterProfile, command: str, arrays: tuple[ArrayIntent, ...]
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
