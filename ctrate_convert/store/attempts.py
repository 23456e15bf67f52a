"""Write and read attempts: each run of tasks leaves start, progress and end on disk."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import socket
import time
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
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
    """Return the current UTC time as text, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Attempt:
    """A run of ``tasks`` in this process, written to its own folder in the dataset directory."""

    def __init__(
        self,
        dataset: Dataset,
        tasks: Sequence[int],
        scheduler: dict[str, str] | None = None,
        workers: int | None = None,
        *,
        deletes_only: bool = False,
    ) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
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
            deletes_only=deletes_only,
        )
        make_directories(self.folder)
        create_once(self.folder / "start.json", start.to_pretty_json())

    def progress(self, note: AttemptProgress, *, force: bool = False) -> None:
        """Write a progress note, at most one every two seconds unless ``force`` is set."""
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
        """Write ``end.json``, which says how the attempt ended."""
        # Linux reports ru_maxrss in KiB.
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


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """An attempt as read back from disk.

    ``end`` is None while the attempt runs, and stays None if its process was killed. ``noted_at``
    is the time of its last progress note by the file system's clock.
    """

    start: AttemptStart
    progress: AttemptProgress | None
    end: AttemptEnd | None
    noted_at: datetime | None

    @property
    def started_at(self) -> datetime:
        """The start time of the attempt, by its host's clock."""
        return datetime.fromisoformat(self.start.started)


def load_attempts(
    dataset: Dataset, ended: MutableMapping[str, PastAttempt] | None = None
) -> list[PastAttempt]:
    """Return all attempts, oldest first.

    ``ended`` is a cache that the caller keeps between calls: an attempt that has ended does not
    change and is not read again. Attempts that cannot be read are skipped, since no proof rests on
    them.
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
    # The end first: an attempt with an end is cached for good, so the progress note that is read
    # after it must be the last one.
    with contextlib.suppress(FileNotFoundError, DamageError):
        end = read(AttemptEnd, folder / "end.json")
    with contextlib.suppress(FileNotFoundError, DamageError):
        note = folder / "progress.json"
        noted_at = datetime.fromtimestamp(note.stat().st_mtime, UTC)
        progress = read(AttemptProgress, note)
    return PastAttempt(start, progress, end, noted_at)
