"""The records of an attempt, which is one run of one or more tasks: start, progress and end."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

from ctrate_convert.store.records.base import Record


class EndCause(enum.StrEnum):
    """The cause for the end of an attempt.

    The program decides by the cause what to do next, never by the reason, which is text for people.
    """

    DONE = "done"
    ERROR = "error"
    BUSY = "busy"
    """Another process held a shard."""
    WORKER_KILLED = "worker_killed"
    """A worker got SIGKILL, which the kernel and the scheduler send if memory runs out."""
    TIME_LIMIT_WARNING = "time_limit_warning"
    """The attempt got SIGUSR2, which the scheduler sends before the time limit as requested."""
    SIGNAL = "signal"


@dataclass(frozen=True)
class SlurmJob:
    """The job that an attempt was a part of, as Slurm told its process.

    ``array_job_id`` and ``index`` are of an element of an array: its array's job, and its place in
    it. ``submission`` is the number of the submission that the element belongs to; None if a plain
    job script began it.
    """

    job_id: str
    array_job_id: str = ""
    index: int | None = None
    restarts: int = 0
    node: str = ""
    submission: int | None = None

    @property
    def name(self) -> str:
        """``123_4`` for an element of an array, ``123`` for another job."""
        if not self.array_job_id:
            return self.job_id
        return f"{self.array_job_id}_{'' if self.index is None else self.index}"

    @property
    def is_by_hand(self) -> bool:
        """True if the job is an element of an array that a plain job script made."""
        return bool(self.array_job_id) and self.submission is None


class AttemptStart(Record):
    """``start.json``, written before the first shard.

    ``scheduler`` has the facts of `SlurmJob` as text, and is empty if a person ran the command; use
    `job`. ``workers`` is the number of processes that convert at the same time; None in attempts of
    earlier versions. With ``deletes_only`` nothing was to be converted, so that its end tells
    nothing of the conversion.
    """

    schema_number: Literal[1] = 1
    attempt: str
    tasks: tuple[int, ...]
    host: str
    pid: int
    started: str
    scheduler: dict[str, str]
    workers: int | None = None
    deletes_only: bool = False

    @property
    def job(self) -> SlurmJob | None:
        """The Slurm job that this attempt was a part of; None if a person ran the command."""
        facts = self.scheduler
        if not facts.get("job_id"):
            return None
        return SlurmJob(
            job_id=facts["job_id"],
            array_job_id=facts.get("array_job_id", ""),
            index=_number(facts.get("array_task_id")),
            restarts=_number(facts.get("restart_count")) or 0,
            node=facts.get("node", ""),
            submission=_number(facts.get("submission")),
        )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


class AttemptProgress(Record):
    """``progress.json``, replaced every few seconds while the attempt runs; it may be stale.

    ``paused`` is True if the attempt begins no shard because space at the output is short.
    """

    schema_number: Literal[1] = 1
    time: str
    samples_done: int
    samples_total: int
    source_bytes_done: int
    source_bytes_total: int
    shards_done: int
    shards_total: int
    freed_bytes: int
    paused: bool = False


class AttemptEnd(Record):
    """``end.json``, written once by the attempt itself when it ends.

    ``cause`` is None in attempts of earlier versions, which tell the cause only in ``reason``.
    """

    schema_number: Literal[1] = 1
    attempt: str
    outcome: Literal["done", "failed", "interrupted"]
    cause: EndCause | None = None
    reason: str
    traceback: str
    finished: str
    elapsed_s: float
    shards_done: int
    shards_failed: tuple[int, ...]
    samples_converted: int
    samples_failed: int
    max_rss_bytes: int

    @property
    def why(self) -> EndCause:
        """The cause; in attempts of earlier versions, derived from ``outcome`` and ``reason``."""
        if self.cause is not None:
            return self.cause
        if self.outcome == "done":
            return EndCause.DONE
        if self.outcome == "interrupted":
            warned = "SIGUSR2" in self.reason
            return EndCause.TIME_LIMIT_WARNING if warned else EndCause.SIGNAL
        killed = "killed by SIGKILL" in self.reason
        return EndCause.WORKER_KILLED if killed else EndCause.ERROR
