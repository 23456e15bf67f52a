"""One look at everything: plans, records, attempts, submissions, and one squeue and one sacct.

Every command works on such a picture. Looking also settles submissions whose answer got lost.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from ctrate_convert.conversion.manifest import merge, planned_shards, recorded_shards
from ctrate_convert.conversion.shard import load_record
from ctrate_convert.errors import DamageError, EnvironmentProblem
from ctrate_convert.operations.attempts import PastAttempt, load_attempts
from ctrate_convert.operations.run import load
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.plan import Plan, PlannedShard
from ctrate_convert.slurm.client import SlurmClient, Unavailable
from ctrate_convert.slurm.evidence import Element, Facts, Verdict, job_of, judge
from ctrate_convert.slurm.resolve import settle
from ctrate_convert.slurm.rows import AccountRow, JobKey, QueueRow
from ctrate_convert.slurm.submissions import (
    ArrayAnswer,
    SubmissionFiles,
    load_submissions,
    process_start,
)

PLAIN_JOB_NAME = "ctrate-convert-array"
"""The job name in ``slurm/convert_array.sbatch``, and its words: the dataset, and an offset."""


@dataclass(frozen=True)
class Task:
    """One task with its verdict and what led to it."""

    number: int
    shards: tuple[PlannedShard, ...]
    verdict: Verdict
    attempts: tuple[PastAttempt, ...]
    element: Element | None
    live: QueueRow | None
    account: AccountRow | None
    samples_recorded: int

    @property
    def is_held(self) -> bool:
        """Whether a scheduler runs it, is going to, or may have been asked to."""
        return self.live is not None or self.verdict.evidence == "intent"

    @property
    def job(self) -> str | None:
        """The job of its newest run."""
        if self.live is not None:
            return f"{self.live.key[0]}_{self.live.key[1]}"
        if self.attempts and self.verdict.evidence in ("attempt", "record"):
            return job_of(self.attempts[-1])
        return self.element.job if self.element else None

    @property
    def node(self) -> str | None:
        """Where its newest run is or was."""
        if self.live is not None and self.live.node:
            return self.live.node
        if self.live is None and self.account is not None and self.account.node:
            return self.account.node
        if self.live is None and self.attempts:
            start = self.attempts[-1].start
            return start.scheduler.get("node") or start.host
        return None


@dataclass(frozen=True)
class Picture:
    """What was found, and what could not be asked."""

    dataset: Dataset
    plans: tuple[Plan, ...]
    submissions: tuple[SubmissionFiles, ...]
    tasks: tuple[Task, ...]
    samples: dict[str, int]
    attempts: tuple[PastAttempt, ...]
    unavailable: tuple[Unavailable, ...]
    taken_at: datetime

    @property
    def queue_asked(self) -> bool:
        """Whether the absence of a live job means that there is none."""
        return all(problem.tool != "squeue" for problem in self.unavailable)


@dataclass
class Looker:
    """Takes pictures of one dataset; keeps what cannot change between two of them."""

    dataset: Dataset
    client: SlurmClient
    _ended: dict[str, PastAttempt] = field(default_factory=dict)

    def look(self) -> Picture:
        """Everything as it is now.

        Raises:
            SettingsError: there is no plan.
            DamageError: a plan or an intent was changed.
        """
        now = datetime.now(timezone.utc)
        plans = load(self.dataset)
        submissions = load_submissions(self.dataset)
        by_task: dict[int, list[PlannedShard]] = {}
        for plan in plans:
            for shard in plan.shards:
                by_task.setdefault(shard.task, []).append(shard)
        sight = _ask(
            self.client,
            submissions,
            load_attempts(self.dataset, self._ended),
            _open(by_task, recorded_shards(self.dataset)),
            now,
        )
        # After the scheduler was asked: a job that it calls ended has published by now.
        attempts = load_attempts(self.dataset, self._ended)
        samples, recorded, damaged = _records(self.dataset, plans)
        elements = _elements(submissions, sight, attempts)
        tasks = []
        for number, shards in by_task.items():
            mine = tuple(a for a in attempts if number in a.start.tasks)
            tasks.append(
                _task(
                    number,
                    tuple(shards),
                    mine,
                    elements.get(number, []),
                    sight,
                    now,
                    recorded=recorded,
                    damaged=next((damaged[s.index] for s in shards if s.index in damaged), None),
                    out=os.fspath(self.dataset.out.absolute()),
                )
            )
        return Picture(
            self.dataset,
            plans,
            tuple(submissions),
            tuple(tasks),
            samples,
            tuple(attempts),
            tuple(sight.unavailable),
            now,
        )


def _open(by_task: dict[int, list[PlannedShard]], recorded: frozenset[int]) -> set[int]:
    return {
        task
        for task, shards in by_task.items()
        if not all(shard.index in recorded for shard in shards)
    }


@dataclass
class _Sight:
    """What the scheduler said."""

    queue: list[QueueRow] = field(default_factory=list)
    accounts: list[AccountRow] = field(default_factory=list)
    answers: dict[tuple[int, int], ArrayAnswer | None] = field(default_factory=dict)
    unavailable: list[Unavailable] = field(default_factory=list)
    queue_asked: bool = True


def _ask(
    client: SlurmClient,
    submissions: Sequence[SubmissionFiles],
    attempts: Sequence[PastAttempt],
    open_tasks: set[int],
    now: datetime,
) -> _Sight:
    """At most one squeue, where a task is open, and one sacct, where there ever was a job."""
    sight = _Sight()
    names: dict[str, tuple[int, int]] = {}
    wanted: set[str] = set()
    since = now
    for files in submissions:
        for number, array in enumerate(files.submission.arrays):
            place = (files.submission.number, number)
            answer = sight.answers[place] = files.answer(number)
            if answer is not None and answer.job_id is None:
                continue
            since = min(since, files.submission.created_at)
            names[array.job_name] = place
            if answer is None or open_tasks & set(array.tasks):
                wanted.add(array.job_name)
    plain = {
        job
        for attempt in attempts
        if attempt.start.scheduler
        and "submission" not in attempt.start.scheduler
        and open_tasks & set(attempt.start.tasks)
        for job in [attempt.start.scheduler.get("array_job_id")]
        if job
    }
    since = min(since, *(a.started_at for a in attempts if plain), now)
    # Plain job scripts leave no word here before they run: ask for them too where there is Slurm.
    by_hand = open_tasks and shutil.which("squeue") is not None
    ask = bool(wanted or plain or by_hand)
    queue = client.squeue([*wanted, PLAIN_JOB_NAME]) if ask else []
    if isinstance(queue, Unavailable):
        sight.unavailable.append(queue)
        sight.queue_asked = False
    else:
        sight.queue = queue
    by_name = settle(submissions, sight.answers, sight.queue, [], attempts, names, now)
    ids = {answer.job_id for place in names.values() if (answer := sight.answers[place])} | plain
    accounts = client.sacct(
        job_ids=() if by_name else filter(None, ids),
        names=names if by_name else (),
        since=since - timedelta(hours=1),
    )
    if isinstance(accounts, Unavailable):
        sight.unavailable.append(accounts)
    else:
        # Ids wrap and may name somebody else's old job: the name, which is unique, decides.
        sight.accounts = [r for r in accounts if r.name in names or r.key[0] in plain]
    if by_name:
        settle(
            submissions,
            sight.answers,
            sight.queue,
            sight.accounts,
            attempts,
            names,
            now,
            may_give_up=sight.queue_asked,
        )
    return sight


def _elements(
    submissions: Sequence[SubmissionFiles], sight: _Sight, attempts: Sequence[PastAttempt]
) -> dict[int, list[Element]]:
    """The elements of each task, oldest first, those that never came to be left out."""
    found: dict[int, list[Element]] = {}
    for files in submissions:
        number = files.submission.number
        cancelled = {task for cancel in files.cancels() for task in cancel.tasks}
        for place, array in enumerate(files.submission.arrays):
            answer = sight.answers[number, place]
            if answer is not None and answer.job_id is None:
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
        facts = attempt.start.scheduler
        if facts.get("array_job_id") and "submission" not in facts:
            element = _by_hand(attempt)
            known = found.setdefault(element.task, [])
            if element.job not in [one.job for one in known]:
                known.append(element)
    return {task: sorted(found[task], key=lambda element: element.created) for task in found}


def _by_hand(attempt: PastAttempt) -> Element:
    """The element of a plain job script, which nothing but its attempt tells of."""
    facts = attempt.start.scheduler
    index = facts.get("array_task_id", "")
    answer = ArrayAnswer(
        job_name=PLAIN_JOB_NAME,
        job_id=facts["array_job_id"],
        found_by="attempt",
        time=attempt.start.started,
    )
    return Element(
        attempt.start.tasks[0],
        int(index) if index.isdigit() else 0,
        PLAIN_JOB_NAME,
        None,
        attempt.started_at,
        answer,
        None,
    )


def _task(
    number: int,
    shards: tuple[PlannedShard, ...],
    attempts: tuple[PastAttempt, ...],
    elements: Sequence[Element],
    sight: _Sight,
    now: datetime,
    *,
    recorded: frozenset[int],
    damaged: str | None,
    out: str,
) -> Task:
    element = elements[-1] if elements else None
    keys: set[JobKey] = {
        (one.answer.job_id, one.index) for one in elements if one.answer and one.answer.job_id
    }
    names = {one.job_name for one in elements}
    rows = [
        row
        for row in sight.queue
        if (row.key in keys and row.name in names)
        or (row.name == PLAIN_JOB_NAME and _task_by_hand(row, out) == number)
    ]
    live = [row for row in rows if row.live]
    newest = (element.answer.job_id, element.index) if element and element.answer else None
    accounts = tuple(row for row in sight.accounts if row.key == newest)
    facts = Facts(
        task=number,
        recorded=all(shard.index in recorded for shard in shards),
        damaged=damaged,
        attempts=attempts,
        shards=frozenset(shard.index for shard in shards),
        element=element,
        live=live[-1] if live else None,
        ended=next((row for row in rows if row.key == newest and not row.live), None),
        queue_asked=sight.queue_asked,
        accounts=accounts,
        sign_of_life=_sign_of_life(attempts[-1]) if attempts else None,
        now=now,
    )
    return Task(
        number,
        shards,
        judge(facts),
        attempts,
        element,
        facts.live,
        accounts[-1] if accounts else None,
        sum(shard.samples for shard in shards if shard.index in recorded),
    )


def _task_by_hand(row: QueueRow, out: str) -> int | None:
    """The task of a plain job script's element for this dataset: its index, and the offset."""
    words = row.command.partition(" ")[2].rstrip()
    if words.rstrip("/") == out:
        return row.key[1]
    place, _, offset = words.rpartition(" ")
    return row.key[1] + int(offset) if place.rstrip("/") == out and offset.isdigit() else None


def _sign_of_life(attempt: PastAttempt) -> bool | None:
    """Whether the attempt's process lives; None where it is on another host."""
    if attempt.start.host != socket.gethostname():
        return None
    if not process_start(attempt.start.pid):
        return False
    return None  # the id may be another process's by now: its progress note tells


def _records(
    dataset: Dataset, plans: tuple[Plan, ...]
) -> tuple[dict[str, int], frozenset[int], dict[int, str]]:
    """Samples by state, the shards whose record was verified, and what is wrong with others."""
    try:
        manifest = merge(dataset, plans)
        numbers = frozenset(int(s.name[6:-4]) for s in manifest.shards)
        return _states(manifest.samples), numbers, {}
    except (EnvironmentProblem, DamageError):
        pass  # somebody else's dataset, or a damaged record: then count without writing
    by_index = planned_shards(plans)
    good: set[int] = set()
    damaged: dict[int, str] = {}
    converted = failed = 0
    for index in sorted(recorded_shards(dataset) & by_index.keys()):
        plan, _ = by_index[index]
        try:
            record = load_record(dataset, plan, index)
        except DamageError as error:
            damaged[index] = error.one_line()
            continue
        good.add(index)
        converted += len(record.converted)
        failed += len(record.failed)
    planned = sum(shard.samples for _, shard in by_index.values())
    retries = sum(len(plan.retries) for plan in plans)
    return (
        {
            "converted": converted,
            "failed": failed - retries,
            "pending": planned - converted - failed,
            "excluded": sum(plans[-1].excluded.values()),
        },
        frozenset(good),
        damaged,
    )


def _states(samples: dict[str, int]) -> dict[str, int]:
    return {state: number for state, number in samples.items() if state != "total"}
