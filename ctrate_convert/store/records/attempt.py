"""Attempts: one run of one or more tasks; its start, its progress, and how it ended."""

from __future__ import annotations

import enum
from typing import Literal

from ctrate_convert.store.records.base import Record


class EndCause(str, enum.Enum):
    """Why an attempt ended as it did; what to do about it depends on this, never on the reason."""

    DONE = "done"
    ERROR = "error"
    BUSY = "busy"
    """Another process held a shard."""
    WORKER_KILLED = "worker_killed"
    """By SIGKILL, which the kernel and the scheduler send where memory runs out."""
    TIME_LIMIT_WARNING = "time_limit_warning"
    """By SIGUSR2, which the scheduler was asked to send ahead of the time limit."""
    SIGNAL = "signal"


class AttemptStart(Record):
    """``start.json``, written before the first shard. ``scheduler`` is empty when run by hand.

    ``workers`` is how many processes convert at once; None in attempts of earlier versions.
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
    """``progress.json``: replaced every few seconds while the attempt lives; may be stale.

    ``paused``: no shard is begun, for want of space at the output.
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
    """``end.json``, written once: the attempt's own word on how it ended.

    ``cause`` is None in attempts of earlier versions, which tell it in ``reason`` alone.
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
        """The cause; of an attempt of an earlier version, the one that its reason names."""
        if self.cause is not None:
            return self.cause
        if self.outcome == "done":
            return EndCause.DONE
        if self.outcome == "interrupted":
            warned = "SIGUSR2" in self.reason
            return EndCause.TIME_LIMIT_WARNING if warned else EndCause.SIGNAL
        killed = "killed by SIGKILL" in self.reason
        return EndCause.WORKER_KILLED if killed else EndCause.ERROR
