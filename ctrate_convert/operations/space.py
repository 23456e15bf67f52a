"""Free space at the output: looked at before a run, watched while it goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ctrate_convert.conversion.estimate import peak_extra_bytes
from ctrate_convert.errors import EnvironmentProblem
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.manifest import GIB
from ctrate_convert.schemas.plan import Plan, PlannedShard

_PROBE_MAY_BE_OFF = 0.05
"""What a probe predicts is believed this far; an ``npy`` is known to the byte."""


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


def require_room(
    dataset: Dataset,
    work: Sequence[tuple[Plan, PlannedShard]],
    *,
    num_workers: int,
    deleting: bool,
) -> None:
    """Refuse to begin what certainly does not fit beside what is there.

    Sources that are deleted along the way give space back only where they lie on the output's
    file system and no trash keeps them. Where no probe has told what an encoding makes of the
    volumes, nothing is certain and nothing refused.

    Raises:
        EnvironmentProblem: the peak is more than what is free.
    """
    needed_bytes = 0.0
    for plan in dict.fromkeys(plan.plan_id for plan, _ in work):
        own = [(one, shard) for one, shard in work if one.plan_id == plan]
        settings = own[0][0].settings
        if settings.encoding != "npy" and own[0][0].probe is None:
            return
        gives_back = (
            (deleting or settings.delete_source_files)
            and settings.trash is None
            and _same_file_system(Path(settings.data_folder), dataset.out)
        )
        peak_bytes = peak_extra_bytes(
            [shard for _, shard in own], deleting=gives_back, workers=num_workers
        )
        certain = 1 if settings.encoding == "npy" else 1 - _PROBE_MAY_BE_OFF
        needed_bytes = max(needed_bytes, peak_bytes * certain)
    free_bytes = shutil.disk_usage(dataset.out).free
    if needed_bytes > free_bytes:
        raise EnvironmentProblem(
            "what is pending does not fit at the output",
            where=dataset.out,
            seen=f"{free_bytes / GIB:,.2f} GiB free",
            expected=f"{needed_bytes / GIB:,.2f} GiB at the peak",
            next_command="free some space and give the same command again; or with "
            "--min_free_gb: begin, and pause whenever less than that is free",
        )


def _same_file_system(one: Path, other: Path) -> bool:
    try:
        return os.stat(one).st_dev == os.stat(other).st_dev
    except OSError:
        return True  # then the conversion will tell
