"""The ladder of evidence: judge the state of one task, and say what that rests on. Pure.

1. verified records of this plan for all of its shards → done
2. the newest attempt's own end record → failed, with its reason; but not if a newer run is live
3. in squeue with any state that is not known to be terminal → pending, stuck or running
4. a terminal state in sacct (or still in squeue) of that very job → failed, or cancelled if its own
   user cancelled it
5. nothing → unknown: never taken for done nor for failed
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from ctrate_convert.cluster.scheduler.query import (
    OUT_OF_MEMORY,
    REVOKED,
    UNSUCCESSFUL,
    AccountRow,
    QueueRow,
)
from ctrate_convert.cluster.states.stuck import Stuck
from ctrate_convert.cluster.submissions import ArrayAnswer, Resources
from ctrate_convert.store.attempts import PastAttempt
from ctrate_convert.store.records.attempt import EndCause

State = Literal["done", "running", "pending", "stuck", "failed", "cancelled", "unknown"]
Cause = Literal["memory", "time", "node", "other"]

FRESH = timedelta(seconds=60)
"""An attempt notes its progress every two seconds; a note this young is a sign of life."""

_CAUSES: dict[str, Cause] = {
    OUT_OF_MEMORY: "memory",
    "TIMEOUT": "time",
    "DEADLINE": "time",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
}


@dataclass(frozen=True, slots=True)
class Element:
    """An array element that a submission made, or was about to make, for a task.

    ``submission`` is None for job scripts that were submitted by hand.
    """

    task: int
    index: int
    job_name: str
    resources: Resources | None
    created: datetime
    answer: ArrayAnswer | None
    submission: int | None
    array: int = 0
    cancelled: bool = False

    @property
    def job(self) -> str | None:
        """The element's job as ``123_4``; None while the id of the array is not known."""
        job_id = self.answer.job_id if self.answer else None
        return f"{job_id}_{self.index}" if job_id else None

    def runs(self, attempt: PastAttempt) -> bool:
        """Return True if ``attempt`` was a run of this element."""
        job = attempt.start.job
        return (
            job is not None and self.job == job.name and self.submission in (None, job.submission)
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one task.

    ``element`` is the task's newest one. ``live`` is the queue's row of any of its elements that
    runs or is going to. ``queue_asked`` tells whether the absence of rows means anything. ``ended``
    and ``accounts`` are of the newest element. ``sign_of_life`` tells whether the process of a
    local attempt lives; None if that cannot be seen from here. ``stuck`` tells why ``live`` waits
    in vain, if it does. ``user_id`` is the user who looks.
    """

    task: int
    recorded: bool
    damaged: str | None
    attempts: tuple[PastAttempt, ...]
    shards: frozenset[int]
    element: Element | None
    live: QueueRow | None
    ended: QueueRow | None
    queue_asked: bool
    accounts: tuple[AccountRow, ...]
    sign_of_life: bool | None
    now: datetime
    stuck: Stuck | None = None
    user_id: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of a task, the rung of evidence that it rests on, and the reason.

    ``cause`` decides how to relaunch the task.
    """

    state: State
    evidence: str
    reason: str = ""
    cause: Cause = "other"


_ELSEWHERE = "REVOKED: a sibling of the job runs on another cluster of the federation"

_STOPPED_AT_THE_WARNING = Verdict(
    "failed",
    "attempt",
    "TIMEOUT: stopped at the warning before the time limit, not one shard done",
    "time",
)


def judge(facts: Facts) -> Verdict:
    """Return the verdict of the first rung that holds."""
    if facts.recorded:
        return Verdict("done", "record")
    # A record that cannot be read proves neither that the shard is done nor that it failed.
    if facts.damaged:
        return Verdict("unknown", "record", facts.damaged)
    last = facts.attempts[-1] if facts.attempts else None
    if facts.live is not None:
        return _of_live(facts, facts.live, last)
    element = facts.element
    if element is not None and element.answer is None:
        return Verdict(
            "unknown",
            "intent",
            f"submission {element.submission} is under way, or its answer is not found yet",
        )
    # The newest attempt is not of the newest element: it was made by hand, or it is older than the
    # element.
    if last is not None and (element is None or not element.runs(last)):
        if element is None or last.started_at > element.created:
            return _of_local(facts, last)
        last = None
    if element is None:
        return Verdict("pending", "plan", "not submitted")
    return _of_element(facts, element, last)


def _of_live(facts: Facts, row: QueueRow, last: PastAttempt | None) -> Verdict:
    job = last.start.job if last is not None else None
    mine = last if job is not None and job.name == f"{row.key[0]}_{row.key[1]}" else None
    if row.state == REVOKED:
        return Verdict("unknown", "squeue", _ELSEWHERE)
    if facts.stuck is not None:
        return Verdict("stuck", "squeue", row.reason)
    if row.waiting:
        return Verdict("pending", "squeue", _requeued(facts, row) or row.reason)
    # The attempt of a run before a requeue tells nothing of the run that is live.
    if mine is not None and job is not None and job.restarts == row.restarts:
        end = mine.end
        if end is not None and end.outcome == "failed":
            # The attempt has recorded its end; Slurm is only cleaning up.
            return _of_end(facts, mine)
        if end is not None:
            return Verdict("running", "squeue", "stopping")
    named = "" if row.state == "RUNNING" else row.state
    return Verdict("running", "squeue", named or _requeued(facts, row))


def _requeued(facts: Facts, row: QueueRow) -> str:
    if not row.restarts:
        return ""
    before = [past.state for past in facts.accounts if past.ended and past.key == row.key]
    if before and before[-1] != "REQUEUED":
        return f"requeued after {before[-1]}"
    return f"requeued, run {row.restarts + 1}"


def _of_element(facts: Facts, element: Element, last: PastAttempt | None) -> Verdict:
    """Judge an element that is not in the queue, as far as that could be asked."""
    verdict = _of_ended(facts, element, last)
    failed_by_itself = last is not None and last.end is not None and last.end.outcome == "failed"
    if verdict.state == "failed" and not failed_by_itself and _was_cancelled(facts, element):
        return replace(verdict, state="cancelled")
    return verdict


def _was_cancelled(facts: Facts, element: Element) -> bool:
    """Return True if the user, and not an administrator or Slurm itself, cancelled the element."""
    account = facts.accounts[-1] if facts.accounts else None
    if account is None or account.ended is None:
        return element.cancelled
    by_user = element.cancelled or account.cancelled_by == facts.user_id is not None
    return account.state == "CANCELLED" and by_user


def _of_ended(facts: Facts, element: Element, last: PastAttempt | None) -> Verdict:
    account = facts.accounts[-1] if facts.accounts else None
    if last is not None and last.end is not None and last.end.outcome == "failed":
        return _of_end(facts, last)
    if account is not None and account.state in UNSUCCESSFUL:
        return _of_account(account, last)
    if facts.ended is not None and facts.ended.state in UNSUCCESSFUL:
        state, why = facts.ended.state, facts.ended.reason
        text = f"{state}: {why}" if why and state == "FAILED" else state
        if state == "FAILED" and _was_warned(last):
            return _STOPPED_AT_THE_WARNING
        return Verdict("failed", "squeue", text, _cause(state))
    # Nothing says that the attempt ended, and it still notes its progress.
    if last is not None and last.end is None and _is_fresh(last, facts.now):
        return Verdict("running", "attempt", "its progress note is fresh")
    if facts.queue_asked and last is not None and last.end is not None:
        return _of_end(facts, last)
    if facts.queue_asked and element.cancelled:
        return Verdict("failed", "cancel", "CANCELLED by ctrate-convert cancel")
    return Verdict("unknown", "none", _what_is_missing(facts, account))


def _what_is_missing(facts: Facts, account: AccountRow | None) -> str:
    ended = facts.ended.state if facts.ended else None
    if "COMPLETED" in (ended, account.state if account else None):
        return "the scheduler says COMPLETED, yet there is no record"
    if not facts.queue_asked:
        said = f"; accounting said {account.state}" if account else ""
        return f"squeue could not be asked{said}"
    if account is not None and account.state == REVOKED:
        return _ELSEWHERE
    if account is not None:
        return f"not in the queue, though accounting says {account.state}"
    return "not in the queue, no last word, and accounting tells nothing of it"


def _of_end(facts: Facts, last: PastAttempt) -> Verdict:
    """Judge by the attempt's own end record, with what accounting adds about that run."""
    end = last.end
    if end is None:
        return Verdict("unknown", "attempt", "no last word")
    if end.outcome == "done":
        return Verdict("unknown", "attempt", "the attempt says done, yet there is no record")
    if end.outcome == "interrupted":
        if end.why is EndCause.TIME_LIMIT_WARNING:
            return _STOPPED_AT_THE_WARNING
        return Verdict("failed", "attempt", f"stopped by {end.reason}")
    # Accounting may hear of an end later than the files: a run that it calls running tells nothing.
    runs = [row for row in facts.accounts if row.ended and _overlaps(row, last)]
    out_of_memory = any(row.out_of_memory for row in runs)
    # Without accounting, a worker that was killed is taken to have run out of memory.
    if not out_of_memory and not runs:
        out_of_memory = end.why is EndCause.WORKER_KILLED
    if out_of_memory:
        return Verdict("failed", "attempt", f"{OUT_OF_MEMORY}: {end.reason}", "memory")
    return Verdict("failed", "attempt", end.reason)


def _of_account(account: AccountRow, last: PastAttempt | None) -> Verdict:
    if account.out_of_memory:
        return Verdict("failed", "sacct", OUT_OF_MEMORY, "memory")
    text = account.state
    if account.state == "FAILED":
        text += f", exit code {account.exit_code}"
    if account.state == "FAILED" and _was_warned(last):
        return _STOPPED_AT_THE_WARNING
    return Verdict("failed", "sacct", text, _cause(account.state))


def _was_warned(last: PastAttempt | None) -> bool:
    """Return True if the attempt says that it was stopped at the warning.

    Slurm calls such a run a plain FAILED.
    """
    return last is not None and last.end is not None and last.end.why is EndCause.TIME_LIMIT_WARNING


def _of_local(facts: Facts, last: PastAttempt) -> Verdict:
    """Judge by an attempt that was made by hand and is newer than any submission."""
    end = last.end
    if end is None:
        if facts.sign_of_life or _is_fresh(last, facts.now):
            return Verdict("running", "attempt", f"run by hand on {last.start.host}")
        if facts.sign_of_life is False:
            return Verdict("failed", "attempt", f"killed on {last.start.host}, no last word")
        return Verdict("unknown", "attempt", f"run by hand on {last.start.host}, no last word")
    if end.outcome == "done":
        return Verdict("unknown", "attempt", "the attempt says done, yet there is no record")
    if end.outcome == "failed" and (
        facts.shards & frozenset(end.shards_failed) or not end.shards_failed
    ):
        return Verdict("failed", "attempt", end.reason)
    # The attempt was interrupted, or failed in shards of other tasks.
    return Verdict("pending", "attempt", f"not reached: {end.reason}")


def _cause(state: str) -> Cause:
    return _CAUSES.get(state, "other")


def _is_fresh(attempt: PastAttempt, now: datetime) -> bool:
    return attempt.noted_at is not None and abs(now - attempt.noted_at) < FRESH


def _overlaps(row: AccountRow, attempt: PastAttempt) -> bool:
    """Return True if that run of the element was this attempt; clocks may be a minute apart."""
    if row.started is None:
        return False
    slack = timedelta(minutes=1)
    ended = row.ended or attempt.started_at + slack
    return row.started - slack <= attempt.started_at <= ended + slack
