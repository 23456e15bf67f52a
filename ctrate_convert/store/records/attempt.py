"""The records of an attempt, which is one run of one or more tasks: start, progress and end."""

from __future__ import annotations

import enum
from typing import Literal

from ctrate_convert.store.records.base import Record


class EndCause(str, enum.Enum):
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


class AttemptStart(Record):
    """``start.json``, written before the first shard.

    ``scheduler`` is empty if a person ran the command. ``workers`` is the number of processes that
    convert at the same time; None in attempts of earlier versions.
    """

    schema_number: Literal[1] = 1
    attempt: str
    tasks: tuple[int, ...]
    host: str
    pid: int
    started: str
    scheduler: dict[str, str]
    workers: int | None = None


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
