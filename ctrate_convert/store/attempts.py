"""Attempts on disk: every run of tasks leaves its start, its progress and its own last word."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import socket
import time
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from ctrate_convert.errors import DamageError
from ctrate_convert.store.durable import create_once, make_directories, replace_unsynced
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.attempt import AttemptEnd, AttemptProgress, AttemptStart, EndCause
from ctrate_convert.store.records.base import read

Outcome = Literal["done", "failed", "interrupted"]

_PROGRESS_EVERY_S = 2.0


def now_text() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class Attempt:
    """One run of ``tasks`` in this process, as the dataset directory keeps it."""

    def __init__(
        self,
        dataset: Dataset,
        tasks: Sequence[int],
        scheduler: dict[str, str] | None = None,
        workers: int | None = None,
    ) -> None:
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
        self.name = f"{stamp}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self.folder: Path = dataset.attempts / self.name
        self._clock = time.monotonic()
        self._last_progress = 0.0
        start = AttemptStart(
            attempt=self.name,
            tasks=tuple(tasks),
            host=socket.gethostname(),
            pid=os.getpid(),
            started=now_text(),
            scheduler=scheduler or {},
            workers=workers,
        )
        make_directories(self.folder)
        create_once(self.folder / "start.json", start.to_pretty_json())

    def progress(self, note: AttemptProgress, *, force: bool = False) -> None:
        """Leave a note on how far it is; at most one every two seconds unless forced."""
        now = time.monotonic()
        if force or now - self._last_progress >= _PROGRESS_EVERY_S:
            self._last_progress = now
            replace_unsynced(self.folder / "progress.json", note.to_json())

    def end(
        self,
        outcome: Outcome,
        *,
        cause: EndCause,
        reason: str,
        traceback: str,
        shards_done: int,
        shards_failed: Sequence[int],
        samples_converted: int,
        samples_failed: int,
        max_rss_bytes: int,
    ) -> None:
        """Write the last word."""
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        end = AttemptEnd(
            attempt=self.name,
            outcome=outcome,
            cause=cause,
            reason=reason,
            traceback=traceback,
            finished=now_text(),
            elapsed_s=round(time.monotonic() - self._clock, 3),
            shards_done=shards_done,
            shards_failed=tuple(shards_failed),
            samples_converted=samples_converted,
            samples_failed=samples_failed,
            max_rss_bytes=max(own, max_rss_bytes),
        )
        create_once(self.folder / "end.json", end.to_pretty_json())


@dataclass(frozen=True)
class PastAttempt:
    """An attempt as it can be read back. ``end`` is None while it lives, and where it was killed.

    ``noted_at`` is when its last progress note was written, by the file system's clock.
    """

    start: AttemptStart
    progress: AttemptProgress | None
    end: AttemptEnd | None
    noted_at: datetime | None

    @property
    def started_at(self) -> datetime:
        """When it began, by its host's clock."""
        return datetime.fromisoformat(self.start.started)


def load_attempts(
    dataset: Dataset, ended: MutableMapping[str, PastAttempt] | None = None
) -> list[PastAttempt]:
    """Load all attempts, oldest first. ``ended`` keeps those that cannot change between calls.

    What cannot be read is passed over: an attempt is a note, never a proof.
    """
    known = {} if ended is None else ended
    found = []
    for folder in dataset.attempts.iterdir() if dataset.attempts.is_dir() else ():
        attempt = known.get(folder.name) or _load_attempt(folder)
        if attempt is None:
            continue
        if attempt.end is not None:
            known[folder.name] = attempt
        found.append(attempt)
    return sorted(found, key=lambda attempt: (attempt.start.started, attempt.start.attempt))


def _load_attempt(folder: Path) -> PastAttempt | None:
    start = progress = end = noted_at = None
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, DamageError):
        start = read(AttemptStart, folder / "start.json")
    if start is None:
        return None
    # The end first: what is written after it is read is not missed by the next call.
    with contextlib.suppress(FileNotFoundError, DamageError):
        end = read(AttemptEnd, folder / "end.json")
    with contextlib.suppress(FileNotFoundError, DamageError):
        note = folder / "progress.json"
        noted_at = datetime.fromtimestamp(note.stat().st_mtime, timezone.utc)
        progress = read(AttemptProgress, note)
    return PastAttempt(start, progress, end, noted_at)
