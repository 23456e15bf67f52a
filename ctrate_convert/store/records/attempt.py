"""Attempts: one run of one or more tasks; its start, its progress, and how it ended."""

from __future__ import annotations

from typing import Literal

from ctrate_convert.store.records.base import Record


class AttemptStart(Record):
    """``start.json``, written before the first shard. ``scheduler`` is empty when run by hand."""

    schema_number: Literal[1] = 1
    attempt: str
    tasks: tuple[int, ...]
    host: str
    pid: int
    started: str
    scheduler: dict[str, str]


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
    """``end.json``, written once: the attempt's own word on how it ended."""

    schema_number: Literal[1] = 1
    attempt: str
    outcome: Literal["done", "failed", "interrupted"]
    reason: str
    traceback: str
    finished: str
    elapsed_s: float
    shards_done: int
    shards_failed: tuple[int, ...]
    samples_converted: int
    samples_failed: int
    max_rss_bytes: int
