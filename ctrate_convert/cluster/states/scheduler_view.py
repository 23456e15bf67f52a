"""Ask Slurm, by one squeue and one sacct, and list the elements that the answers are about."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ctrate_convert.cluster.scheduler.client import SlurmClient, Unavailable
from ctrate_convert.cluster.scheduler.query import AccountRow, JobKey, QueueRow
from ctrate_convert.cluster.states.evidence import Element
from ctrate_convert.cluster.states.lost_answers import find_answers
from ctrate_convert.cluster.submissions import ArrayAnswer, SubmissionFiles
from ctrate_convert.store.attempts import PastAttempt
from ctrate_convert.store.records.attempt import SlurmJob

PLAIN_JOB_NAME = "ctrate-convert-array"
"""The job name in ``slurm/convert_array.sbatch``."""


@dataclass
class SchedulerView:
    """The answers of Slurm, and the questions that it did not answer."""

    queue: list[QueueRow] = field(default_factory=list)
    accounts: list[AccountRow] = field(default_factory=list)
    answers: dict[tuple[int, int], ArrayAnswer | None] = field(default_factory=dict)
    unavailable: list[Unavailable] = field(default_factory=list)
    queue_asked: bool = True


def ask(
    client: SlurmClient,
    submissions: Sequence[SubmissionFiles],
    attempts: Sequence[PastAttempt],
    open_tasks: set[int],
    now: datetime,
    *,
    write_answers: bool = False,
) -> SchedulerView:
    """Ask with at most one squeue, if a task is open, and one sacct, if there ever was a job.

    With ``write_answers``, write down what became of arrays whose answer got lost.
    """
    said = SchedulerView()
    names: dict[str, tuple[int, int]] = {}
    wanted: set[str] = set()
    since = now
    for files in submissions:
        for number, array in enumerate(files.submission.arrays):
            place = (files.submission.number, number)
            answer = said.answers[place] = files.answer(number)
            if answer is not None and answer.job_id is None:
                continue
            since = min(since, files.submission.created_at)
            names[array.job_name] = place
            if answer is None or open_tasks & set(array.tasks):
                wanted.add(array.job_name)
    plain = {
        job.array_job_id
        for attempt in attempts
        if (job := attempt.start.job) is not None
        and job.is_by_hand
        and open_tasks & set(attempt.start.tasks)
    }
    since = min(since, *(a.started_at for a in attempts if plain), now)
    # Plain job scripts leave no trace here before they run: ask for them too if there is Slurm.
    by_hand = open_tasks and shutil.which("squeue") is not None
    # An element of a done task may be held, and the finaliser then waits for it.
    if shutil.which("squeue") is not None:
        wanted |= {
            array.job_name
            for files in submissions
            if files.report() is None
            for number, array in enumerate(files.submission.arrays)
            if (answer := said.answers[files.submission.number, number]) is None or answer.job_id
        }
    ask = bool(wanted or plain or by_hand)
    queue = client.squeue([*wanted, PLAIN_JOB_NAME]) if ask else []
    if isinstance(queue, Unavailable):
        said.unavailable.append(queue)
        said.queue_asked = False
    else:
        said.queue = queue
    by_name = find_answers(
        submissions,
        said.answers,
        said.queue,
        [],
        attempts,
        names,
        now,
        write=write_answers,
    )
    ids = {answer.job_id for place in names.values() if (answer := said.answers[place])} | plain
    # If the queue left an answer open, ask by the arrays' names: the job id may not be known.
    accounts = client.sacct(
        job_ids=() if by_name else filter(None, ids),
        names=names if by_name else (),
        since=since - timedelta(hours=1),
    )
    if isinstance(accounts, Unavailable):
        said.unavailable.append(accounts)
    else:
        # Job ids wrap around and may be those of an old job of somebody else; names are unique.
        said.accounts = [r for r in accounts if r.name in names or r.key[0] in plain]
    if by_name:
        find_answers(
            submissions,
            said.answers,
            said.queue,
            said.accounts,
            attempts,
            names,
            now,
            may_give_up=said.queue_asked,
            write=write_answers,
        )
    return said


def elements_of(
    submissions: Sequence[SubmissionFiles], said: SchedulerView, attempts: Sequence[PastAttempt]
) -> dict[int, list[Element]]:
    """Return the elements of each task, oldest first, without those that never came to be."""
    found: dict[int, list[Element]] = {}
    for files in submissions:
        number = files.submission.number
        cancelled = {task for cancel in files.cancels() for task in cancel.tasks}
        for place, array in enumerate(files.submission.arrays):
            answer = said.answers[number, place]
            if array.kind != "convert" or (answer is not None and answer.job_id is None):
                continue
            for index, task in enumerate(array.tasks):
                found.setdefault(task, []).append(
                    Element(
                        task,
                        index,
                        array.job_name,
                        array.resources,
                        files.submission.created_at,
                        answer,
                        number,
                        place,
                        task in cancelled,
                    )
                )
    for attempt in attempts:
        job = attempt.start.job
        if job is not None and job.is_by_hand:
            element = _by_hand(attempt, job)
            known = found.setdefault(element.task, [])
            if element.job not in [one.job for one in known]:
                known.append(element)
    return {task: sorted(found[task], key=lambda element: element.created) for task in found}


def _by_hand(attempt: PastAttempt, job: SlurmJob) -> Element:
    """Return the element of a plain job script, which left nothing here but its attempt."""
    answer = ArrayAnswer(
        job_name=PLAIN_JOB_NAME,
        job_id=job.array_job_id,
        found_by="attempt",
        time=attempt.start.started,
    )
    return Element(
        attempt.start.tasks[0],
        job.index or 0,
        PLAIN_JOB_NAME,
        None,
        attempt.started_at,
        answer,
        None,
    )


class RowsByTask:
    """The rows of squeue and sacct, found by task without a look at all of them.

    ``accounts`` has the rows of sacct by job id and index, oldest first.
    """

    def __init__(self, said: SchedulerView, out: str) -> None:
        self.out = out
        self.queue_asked = said.queue_asked
        self._queue: dict[JobKey, list[QueueRow]] = {}
        self._by_hand: dict[int, list[QueueRow]] = {}
        for row in said.queue:
            self._queue.setdefault(row.key, []).append(row)
            if row.name == PLAIN_JOB_NAME and (task := task_by_hand(row, out)) is not None:
                self._by_hand.setdefault(task, []).append(row)
        accounts: dict[JobKey | None, list[AccountRow]] = {}
        for account in said.accounts:
            accounts.setdefault(account.key, []).append(account)
        self.accounts = {key: tuple(rows) for key, rows in accounts.items()}

    def queued(self, task: int, elements: Sequence[Element]) -> list[QueueRow]:
        """Return the queue's rows of the task's ``elements``, and of job scripts by hand."""
        # Job ids are reused, so the unique name must match too.
        names = {one.job_name for one in elements}
        keys = dict.fromkeys(
            (one.answer.job_id, one.index) for one in elements if one.answer and one.answer.job_id
        )
        mine = [row for key in keys for row in self._queue.get(key, ()) if row.name in names]
        return mine + [row for row in self._by_hand.get(task, ()) if row not in mine]


def task_by_hand(row: QueueRow, out: str) -> int | None:
    """Return the task of a plain job script's element for this dataset; None if it is not.

    The task is the element's index plus the offset. The script's words are the dataset, perhaps an
    offset, and perhaps options for `run`.
    """
    words = row.command.partition(" ")[2].strip()
    found = re.fullmatch(re.escape(out) + r"/*(?: (\d+))?(?: -.*)?", words, re.DOTALL)
    return row.key[1] + int(found[1] or 0) if found else None
