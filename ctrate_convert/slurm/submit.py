"""Submit what is pending: look, write the intent, call sbatch, write down the answer.

Two who submit at the same time see the same free number; one gets it, the other looks again and
finds the tasks taken. The lock only saves it the trouble.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ctrate_convert import __version__
from ctrate_convert.durable import locked
from ctrate_convert.errors import EnvironmentProblem, RefusedError
from ctrate_convert.paths import Dataset
from ctrate_convert.slurm.client import SlurmClient, SubmissionUnclear
from ctrate_convert.slurm.element import ConvertTask
from ctrate_convert.slurm.finalise import Finalise
from ctrate_convert.slurm.launcher import executor, submit_array, warning_s
from ctrate_convert.slurm.limits import ClusterLimits, cluster_limits
from ctrate_convert.slurm.picture import Looker, Picture, Task
from ctrate_convert.slurm.profile import ClusterProfile, profile_from
from ctrate_convert.slurm.resources import default_resources
from ctrate_convert.slurm.submissions import (
    ArrayIntent,
    Resources,
    Submission,
    SubmissionFiles,
    job_name,
    new_token,
    now_text,
    process_start,
    publish,
    user_name,
)

_LOCK_PATIENCE_S = 300.0
_TRIES = 5
_FINALISER = Resources(timeout_min=60, mem_mb=1024, cpus_per_task=1)


@dataclass(frozen=True)
class Group:
    """Tasks that get the same resources for the same reason."""

    why: str
    tasks: tuple[Task, ...]
    resources: Resources


@dataclass(frozen=True)
class Selection:
    """What is to be submitted, and what a person should know about the rest."""

    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    @property
    def tasks(self) -> int:
        """How many tasks."""
        return sum(len(group.tasks) for group in self.groups)


@dataclass(frozen=True)
class Script:
    """One array of a dry run: its job script, and the task of each element."""

    job_name: str
    text: str
    tasks: tuple[Task, ...]
    resources: Resources
    why: str


@dataclass(frozen=True)
class Submitted:
    """What was submitted, or in a dry run would be (then ``number`` is None)."""

    number: int | None
    job_ids: tuple[str, ...]
    scripts: tuple[Script, ...]
    notes: tuple[str, ...]


Select = Callable[[Picture, ClusterLimits], Selection]


def pending_selection(
    picture: Picture, profile: ClusterProfile, limits: ClusterLimits
) -> Selection:
    """The tasks that nobody has tried or holds.

    Raises:
        RefusedError: there is none, or it cannot be known.
    """
    free = [task for task in picture.tasks if task.verdict.state == "pending" and not task.is_held]
    held = [task for task in picture.tasks if task.is_held and task.verdict.state != "done"]
    notes = []
    if held:
        jobs = sorted({task.job.partition("_")[0] for task in held if task.job})
        at = f", job {', '.join(jobs)}" if jobs else ", a submission that is under way"
        notes.append(f"{_count(held)} live or being submitted{at}")
    out = picture.dataset.out
    for state, command in (
        ("failed", f"ctrate-convert relaunch {out}"),
        ("unknown", f"ctrate-convert status {out}"),
    ):
        others = [t for t in picture.tasks if t.verdict.state == state and not t.is_held]
        if others:
            notes.append(f"{_count(others)} {state}; see: {command}")
    local = [t for t in picture.tasks if t.verdict.state == "running" and not t.is_held]
    if local:
        notes.append(f"{_count(local)} being converted by hand")
    if not free:
        raise RefusedError(
            "nothing is free to be submitted: " + ("; ".join(notes) or "every task is done"),
            where=out,
            next_command=f"ctrate-convert status {out}",
        )
    resources = default_resources(
        picture.dataset,
        picture.plans,
        [task.shards for task in free],
        picture.attempts,
        profile,
        limits.partition,
    )
    return Selection((Group("pending", tuple(free), resources),), tuple(notes))


def refuse_in_the_dark(picture: Picture) -> None:
    """Raise where the queue could not be asked, and so nobody knows what is live.

    Raises:
        RefusedError: that is so.
    """
    if not picture.queue_asked:
        raise RefusedError(
            "the scheduler cannot be asked which tasks are live: "
            + "; ".join(map(str, picture.unavailable)),
            where=picture.dataset.out,
            next_command=f"ctrate-convert status {picture.dataset.out}, once squeue answers",
        )


def submit(
    dataset: Dataset,
    profile: ClusterProfile,
    *,
    dry_run: bool,
    client: SlurmClient | None = None,
) -> Submitted:
    """Submit every task that is pending and that nobody holds.

    Raises:
        RefusedError: all of them are live, or it cannot be known.
        SubmissionRejected: the scheduler refused.
    """
    client = client or SlurmClient()
    return submit_selected(
        dataset,
        profile,
        client,
        command="submit",
        dry_run=dry_run,
        select=lambda picture, limits: pending_selection(picture, profile, limits),
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
    """Look, ``select``, and submit that; look again where another submission came between."""
    looker = Looker(dataset, client)
    limits: ClusterLimits | None = None

    def choose() -> tuple[Picture, Selection, ClusterLimits]:
        nonlocal limits
        picture = looker.look()
        refuse_in_the_dark(picture)
        limits = limits or cluster_limits(client, profile, user_name())
        return picture, _that_fit(select(picture, limits), limits), limits

    if dry_run:
        picture, selection, limits = choose()
        arrays = _arrays(selection, limits, profile, new_token(), _next_number(picture))
        intent = _intent(picture, profile, command, arrays)
        files = SubmissionFiles(dataset, intent)
        scripts = _scripts(files, profile, selection, client)
        return Submitted(None, (), scripts, (*selection.notes, *limits.notes))
    dataset.prepare()
    with locked(dataset.lock("submit"), timeout_s=_LOCK_PATIENCE_S):
        for _ in range(_TRIES):
            picture, selection, limits = choose()
            arrays = _arrays(selection, limits, profile, new_token(), _next_number(picture))
            # Everything that can be refused here is refused before the intent is written.
            intent = _intent(picture, profile, command, arrays)
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
    """Every array, then the finaliser behind them; each answer is written down at once."""
    intent = files.submission
    profile = profile_from(intent.profile, files.folder)
    job_ids: list[str] = []
    for place, array in enumerate(intent.arrays):
        dependency = None
        out = os.fspath(files.out)
        payloads: list[tuple[object, ...]]
        if array.kind == "finalise":
            dependency = "afterany:" + ":".join(job_ids)
            payloads = [(out, intent.number)]
        else:
            cpus, warning = array.resources.cpus_per_task, warning_s(profile, array.resources)
            payloads = [(out, intent.number, task, cpus, warning) for task in array.tasks]
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
            raise  # the next look asks the scheduler by the array's name
        except EnvironmentProblem as error:
            for unborn in range(place, len(intent.arrays)):
                files.write_answer(unborn, job_id=None, found_by="sbatch", words=error.one_line())
            raise
        answer = files.write_answer(place, job_id=job_id, found_by="sbatch")
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


def _that_fit(selection: Selection, limits: ClusterLimits) -> Selection:
    """As many tasks as may be in the queue now, with a note on the rest."""
    room = limits.elements_now
    if room is None or selection.tasks <= room:
        return selection
    if room < 1:
        raise RefusedError(
            "the limit on submitted jobs leaves no room for one more",
            next_command="give the same command again once some jobs have ended",
        )
    groups = []
    left = room
    for group in selection.groups:
        taken = group.tasks[:left]
        left -= len(taken)
        if taken:
            groups.append(Group(group.why, taken, group.resources))
    note = (
        f"the limit on submitted jobs leaves room for {room} of {selection.tasks} tasks; "
        "give the same command again later for the rest"
    )
    return Selection(tuple(groups), (*selection.notes, note))


def _arrays(
    selection: Selection,
    limits: ClusterLimits,
    profile: ClusterProfile,
    token: str,
    number: int,
) -> tuple[ArrayIntent, ...]:
    """Chunks that each run from 0, and the finaliser."""
    size = limits.elements_per_array
    chunks = [
        (group, group.tasks[first : first + size])
        for group in selection.groups
        for first in range(0, len(group.tasks), size)
    ]
    share, more = divmod(profile.array_parallelism, len(chunks))
    arrays = [
        ArrayIntent(
            job_name=job_name(token, number, place),
            kind="convert",
            tasks=tuple(task.number for task in tasks),
            resources=group.resources,
            parallelism=max(1, share + (place < more)),
            why=group.why,
        )
        for place, (group, tasks) in enumerate(chunks)
    ]
    finaliser = ArrayIntent(
        job_name=job_name(token, number, len(arrays)),
        kind="finalise",
        tasks=(),
        resources=limits.partition.cap(_FINALISER),
        parallelism=1,
        why="merges, verifies and reports after all",
    )
    return (*arrays, finaliser)


def _intent(
    picture: Picture, profile: ClusterProfile, command: str, arrays: tuple[ArrayIntent, ...]
) -> Submission:
    return Submission(
        number=_next_number(picture),
        created=now_text(),
        command=command,
        user=user_name(),
        host=socket.gethostname(),
        pid=os.getpid(),
        pid_started=process_start(os.getpid()),
        program_version=__version__,
        plans=tuple(plan.plan_id for plan in picture.plans),
        profile=profile.model_dump(mode="json"),
        arrays=arrays,
    )


def _next_number(picture: Picture) -> int:
    return max((files.submission.number for files in picture.submissions), default=0) + 1


def _scripts(
    files: SubmissionFiles, profile: ClusterProfile, selection: Selection, client: SlurmClient
) -> tuple[Script, ...]:
    """The very job scripts that are going to be submitted."""
    by_number = {task.number: task for group in selection.groups for task in group.tasks}
    scripts = []
    for place, array in enumerate(files.submission.arrays):
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


def _count(tasks: Sequence[Task]) -> str:
    number = len(tasks)
    return f"{number:,} task{' is' if number == 1 else 's are'}"
