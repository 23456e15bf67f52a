"""Attempts on disk: every run of tasks leaves its start, its progress and its own last word."""

from __future__ import annotations

import os
import resource
import secrets
import socket
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from ctrate_convert.durable import create_once, make_directories, replace_unsynced
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.attempt import AttemptEnd, AttemptProgress, AttemptStart

_PROGRESS_EVERY_S = 2.0


def now_text() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class Attempt:
    """One run of ``tasks`` in this process, as the dataset directory keeps it."""

    def __init__(
        self, dataset: Dataset, tasks: Sequence[int], scheduler: dict[str, str] | None = None
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
        outcome: Literal["done", "failed", "interrupted"],
        *,
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
