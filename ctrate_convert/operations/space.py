"""Free space at the output, watched while a run goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


class SpaceWatch:
    """Says whether the next shard may begin: only while at least ``min_free_bytes`` are free.

    ``on_change`` is told once when a pause begins and once when it ends, with the free bytes.
    """

    def __init__(
        self, folder: Path, min_free_bytes: int, on_change: Callable[[bool, int], None]
    ) -> None:
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._on_change = on_change
        self._paused = False

    def may_start(self) -> bool:
        """Look now."""
        free_bytes = shutil.disk_usage(self._folder).free
        paused = free_bytes < self._min_free_bytes
        if paused != self._paused:
            self._paused = paused
            self._on_change(paused, free_bytes)
        return not paused
