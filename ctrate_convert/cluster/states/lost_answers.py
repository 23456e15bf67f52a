"""Find out what became of arrays whose submitter never got, or never wrote down, an answer."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from datetime import datetime, timedelta

from ctrate_convert.cluster.scheduler.query import AccountRow, QueueRow
from ctrate_convert.cluster.submissions import (
    ArrayAnswer,
    FoundBy,
    SubmissionFiles,
    is_being_submitted,
)
from ctrate_convert.store.attempts import PastAttempt

ANSWER_GRACE = timedelta(seconds=15)
"""After this time, a request that the controller got before its sender was killed is queued."""

ANSWER_GRACE_ELSEWHERE = timedelta(minutes=15)
"""The longest time that a submitter on another host, whom nobody can see, goes on trying."""

Place = tuple[int, int]
"""A submission's number and the array's place in it."""


def find_answers(
    submissions: Sequence[SubmissionFiles],
    answers: MutableMapping[Place, ArrayAnswer | None],
    queue: Sequence[QueueRow],
    accounts: Sequence[AccountRow],
    attempts: Sequence[PastAttempt],
    names: Mapping[str, Place],
    now: datetime,
    *,
    may_give_up: bool = False,
    write: bool = False,
) -> bool:
    """Fill in ``answers`` by the arrays' unique names; return True while some stay open.

    ``may_give_up`` says that the queue was asked. Then an array that is not in it, and whose
    submitter is certainly gone, counts as never accepted. That is safe even if the array came and
    went unseen: all that counts is that it does not live. With ``write``, each answer is written
    down, so that a submitter that turns up later after all learns that it was given up.
    """
    found: dict[str, tuple[str, FoundBy]] = {}
    for account in accounts:
        found[account.name] = (account.key[0], "sacct")
    # The queue comes second: it is newer than accounting, so it wins.
    for row in queue:
        found[row.name] = (row.key[0], "squeue")
    by_number = {files.submission.number: files for files in submissions}
    still_open = False
    for name, place in names.items():
        if answers[place] is not None:
            continue
        files = by_number[place[0]]
        job_id, found_by = found.get(name, ("", "nobody"))
        answer = files.write_answer if write else files.make_answer
        if not job_id:
            job_id, found_by = _told_by_attempts(attempts, files, place[1])
        if job_id:
            answers[place] = answer(place[1], job_id=job_id, found_by=found_by)
        elif may_give_up and _is_over(files, place[1], now):
            words = "the submitter is gone and the scheduler does not know the job"
            answers[place] = answer(place[1], job_id=None, found_by="nobody", words=words)
        else:
            still_open = True
    return still_open


def _told_by_attempts(
    attempts: Sequence[PastAttempt], files: SubmissionFiles, array: int
) -> tuple[str, FoundBy]:
    tasks = set(files.submission.arrays[array].tasks)
    for attempt in attempts:
        job = attempt.start.job
        mine = job is not None and job.submission == files.submission.number
        if job is not None and mine and job.array_job_id and tasks & set(attempt.start.tasks):
            return job.array_job_id, "attempt"
    return "", "nobody"


def _is_over(files: SubmissionFiles, array: int, now: datetime) -> bool:
    alive = is_being_submitted(files, array)
    age = now - files.submission.created_at
    if alive is None:
        return age > ANSWER_GRACE_ELSEWHERE
    return not alive and age > ANSWER_GRACE
