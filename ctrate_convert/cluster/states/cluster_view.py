"""Take one look at everything: plans, records, attempts, submissions, one squeue and one sacct.

Every command works on such a view. Looking changes nothing on disk and waits for no lock. Only a
command that submits has the look write down what became of arrays whose answer got lost.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ctrate_convert.cluster.scheduler.client import SlurmClient, Unavailable
from ctrate_convert.cluster.scheduler.query import ENDED, AccountRow, QueueRow
from ctrate_convert.cluster.states.evidence import Element, Facts, Verdict, judge
from ctrate_convert.cluster.states.other_work import OtherWork, other_work
from ctrate_convert.cluster.states.scheduler_view import (
    RowsByTask,
    SchedulerView,
    ask,
    elements_of,
)
from ctrate_convert.cluster.states.stuck import Stuck, stuck_element
from ctrate_convert.cluster.submissions import (
    ArrayAnswer,
    SubmissionFiles,
    clusters_of,
    load_submissions,
    process_start,
)
from ctrate_convert.store.attempts import PastAttempt, load_attempts
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.merger import current_entries, sum_up
from ctrate_convert.store.records.manifest import ManifestShard
from ctrate_convert.store.records.plan import Plan, PlannedShard, shard_number
from ctrate_convert.store.records.record import FailedSample


@dataclass(frozen=True, slots=True)
class Task:
    """One task, with its verdict and what led to it."""

    number: int
    shards: tuple[PlannedShard, ...]
    verdict: Verdict
    attempts: tuple[PastAttempt, ...]
    element: Element | None
    live: QueueRow | None
    stuck: Stuck | None
    account: AccountRow | None
    samples_recorded: int
    times_submitted: int
    jobs_in_queue: tuple[str, ...]

    @property
    def is_held(self) -> bool:
        """True if Slurm runs the task, is going to, or may have been asked to."""
        return self.live is not None or self.verdict.evidence == "intent"

    @property
    def lives_by_accounting(self) -> bool:
        """True if accounting calls the task's job live, which squeue does not show.

        Accounting may have missed the end, or squeue may hide a partition: nobody can tell.
        """
        account = self.account
        unknown = self.live is None and self.verdict.state == "unknown"
        return unknown and account is not None and account.state not in ENDED

    @property
    def is_moving(self) -> bool:
        """True if waiting changes the task's state, as far as anybody can know."""
        return (self.is_held and self.stuck is None) or self.verdict.state == "running"

    @property
    def job(self) -> str | None:
        """The job of the task's newest run."""
        if self.live is not None:
            return f"{self.live.key[0]}_{self.live.key[1]}"
        if self.attempts and self.verdict.evidence in ("attempt", "record"):
            job = self.attempts[-1].start.job
            return job.name if job else None
        return self.element.job if self.element else None

    @property
    def node(self) -> str | None:
        """The node or host of the task's newest run."""
        if self.live is not None and self.live.node:
            return self.live.node
        if self.live is None and self.account is not None and self.account.node:
            return self.account.node
        if self.live is None and self.attempts:
            start = self.attempts[-1].start
            return (start.job and start.job.node) or start.host
        return None


@dataclass(frozen=True)
class ClusterView:
    """The result of one look: what was found, and what could not be asked.

    ``finalisers`` are the jobs of those in the queue.
    """

    ledger: Ledger
    submissions: tuple[SubmissionFiles, ...]
    tasks: tuple[Task, ...]
    samples: dict[str, int]
    attempts: tuple[PastAttempt, ...]
    answers: Mapping[tuple[int, int], ArrayAnswer | None]
    unavailable: tuple[Unavailable, ...]
    taken_at: datetime
    stuck: tuple[Stuck, ...]
    finalisers: tuple[str, ...]
    failed_samples: Mapping[str, FailedSample]
    other_work: tuple[OtherWork, ...]

    @property
    def dataset(self) -> Dataset:
        """The dataset that was looked at."""
        return self.ledger.dataset

    @property
    def plans(self) -> Sequence[Plan]:
        """The dataset's plans."""
        return self.ledger.plans

    @property
    def queue_asked(self) -> bool:
        """True if the absence of a live job means that there is none."""
        return all(problem.tool != "squeue" for problem in self.unavailable)


@dataclass
class Looker:
    """A maker of views of one dataset, which keeps what cannot change between two of them."""

    dataset: Dataset
    client: SlurmClient
    _ended: dict[str, PastAttempt] = field(default_factory=dict)
    _sound: dict[int | str, tuple[object, ...]] = field(default_factory=dict)

    def look(self, *, write_answers: bool = False) -> ClusterView:
        """Return everything as it is now.

        With ``write_answers``, also write down what became of arrays whose answer got lost.

        Raises:
            SettingsError: there is no plan.
            DamageError: a plan or an intent was changed.
        """
        now = datetime.now(UTC)
        before = Ledger.load(self.dataset)
        submissions = load_submissions(self.dataset)
        by_task: dict[int, list[PlannedShard]] = {}
        for plan in before.plans:
            for shard in plan.shards:
                by_task.setdefault(shard.task, []).append(shard)
        said = ask(
            self.client.at(_clusters(submissions, self.client)),
            submissions,
            load_attempts(self.dataset, self._ended),
            _open(by_task, before.recorded),
            now,
            write_answers=write_answers,
        )
        # Read after Slurm was asked: a job that Slurm calls ended has published by now.
        attempts = load_attempts(self.dataset, self._ended)
        ledger = Ledger(self.dataset, before.plans, sound=self._sound)
        entries = _sound_entries(ledger)
        samples, recorded = _samples(ledger, entries), frozenset(entries)
        elements = elements_of(submissions, said, attempts)
        tasks = []
        out = os.fspath(self.dataset.out.absolute())
        rows = RowsByTask(said, out)
        runs: dict[int, list[PastAttempt]] = {}
        for attempt in attempts:
            # What an attempt says that converted nothing is no word on the conversion.
            for number in () if attempt.start.deletes_only else attempt.start.tasks:
                runs.setdefault(number, []).append(attempt)
        for number, shards in by_task.items():
            tasks.append(
                _task(
                    number,
                    tuple(shards),
                    tuple(runs.get(number, ())),
                    elements.get(number, []),
                    rows,
                    now,
                    recorded=recorded,
                    damaged=next(
                        (ledger.damaged[s.index] for s in shards if s.index in ledger.damaged), None
                    ),
                )
            )
        stuck = [
            one
            for number in by_task
            for row in rows.queued(number, elements.get(number, []))
            if (one := stuck_element(row, number, out)) is not None
        ]
        return ClusterView(
            ledger,
            tuple(submissions),
            tuple(tasks),
            samples,
            tuple(attempts),
            said.answers,
            tuple(said.unavailable),
            now,
            (*stuck, *_stuck_finalisers(submissions, said, stuck, out)),
            _live_finalisers(submissions, said),
            ledger.failed_samples({number for number, entry in entries.items() if entry.failed}),
            other_work(self.dataset, submissions, said),
        )


def _clusters(submissions: Sequence[SubmissionFiles], client: SlurmClient) -> list[str]:
    """Return the clusters to ask: those of all submissions, and those that the client is to ask.

    Where both leave the choice to Slurm, that is one empty name.
    """
    named = {name for name in client.clusters if name}
    return sorted(named | set(clusters_of(submissions))) or [""]


def _live_finalisers(
    submissions: Sequence[SubmissionFiles], said: SchedulerView
) -> tuple[str, ...]:
    """Return the jobs of the finalisers in the queue, by their unique names: ids are reused."""
    names = {
        array.job_name
        for files in submissions
        for array in files.submission.arrays
        if array.kind == "finalise"
    }
    live = (row for row in said.queue if row.name in names and row.live)
    return tuple(f"{row.key[0]}_{row.key[1]}" for row in live)


def _stuck_finalisers(
    submissions: Sequence[SubmissionFiles],
    said: SchedulerView,
    stuck: Sequence[Stuck],
    out: str,
) -> list[Stuck]:
    """Return the finalisers that wait in vain: by themselves, or for one of ``stuck``."""
    by_array = {one.job.partition("_")[0]: one for one in stuck}
    found = []
    for files in submissions:
        number = files.submission.number
        places = range(len(files.submission.arrays))
        answers = [said.answers.get((number, place)) for place in places]
        awaited = [by_array[a.job_id] for a in answers if a and a.job_id in by_array]
        for array in files.submission.arrays:
            if array.kind != "finalise":
                continue
            for row in said.queue:
                if row.name != array.job_name or not row.live:
                    continue
                alone = stuck_element(row, None, out)
                if alone is not None:
                    found.append(alone)
                elif row.waiting and awaited:
                    job = f"{row.key[0]}_{row.key[1]}"
                    reason = f"it waits for {awaited[0].job}"
                    found.append(Stuck(job, None, reason, awaited[0].next_command))
    return found


def _open(by_task: dict[int, list[PlannedShard]], recorded: frozenset[int]) -> set[int]:
    return {
        task
        for task, shards in by_task.items()
        if not all(shard.index in recorded for shard in shards)
    }


def _task(
    number: int,
    shards: tuple[PlannedShard, ...],
    attempts: tuple[PastAttempt, ...],
    elements: Sequence[Element],
    rows: RowsByTask,
    now: datetime,
    *,
    recorded: frozenset[int],
    damaged: str | None,
) -> Task:
    element = elements[-1] if elements else None
    queued = rows.queued(number, elements)
    all_live = [row for row in queued if row.live]
    # Of several, one that waiting may bring on tells the state.
    moving = [row for row in all_live if stuck_element(row, number, rows.out) is None]
    live = moving or all_live
    stuck = stuck_element(live[-1], number, rows.out) if live else None
    job_id = element.answer.job_id if element and element.answer else None
    newest = (job_id, element.index) if element and job_id else None
    accounts = rows.accounts.get(newest, ())
    facts = Facts(
        task=number,
        recorded=all(shard.index in recorded for shard in shards),
        damaged=damaged,
        attempts=attempts,
        shards=frozenset(shard.index for shard in shards),
        element=element,
        live=live[-1] if live else None,
        ended=next((row for row in queued if row.key == newest and not row.live), None),
        queue_asked=rows.queue_asked,
        accounts=accounts,
        sign_of_life=_sign_of_life(attempts[-1]) if attempts else None,
        now=now,
        stuck=stuck,
        user_id=os.getuid(),
    )
    return Task(
        number,
        shards,
        judge(facts),
        attempts,
        element,
        facts.live,
        stuck,
        accounts[-1] if accounts else None,
        sum(shard.samples for shard in shards if shard.index in recorded),
        len(elements),
        tuple(f"{row.key[0]}_{row.key[1]}" for row in all_live),
    )


def _sign_of_life(attempt: PastAttempt) -> bool | None:
    """Return False if the process died without an end; None if it ended or that is not known."""
    if attempt.end is not None or attempt.start.host != socket.gethostname():
        return None
    if not process_start(attempt.start.pid):
        return False
    return None  # another process may have its id by now; its progress note tells


def _sound_entries(ledger: Ledger) -> dict[int, ManifestShard]:
    """Return the manifest's entries of the shards with a sound record, by number."""
    return {
        number: entry
        for entry in current_entries(ledger, ledger.merged)
        if (number := shard_number(entry.name)) not in ledger.damaged
    }


def _samples(ledger: Ledger, entries: Mapping[int, ManifestShard]) -> dict[str, int]:
    """Return how many samples are in each state."""
    samples = sum_up(ledger.plans, tuple(entries.values())).samples
    return {state: number for state, number in samples.items() if state != "total"}
