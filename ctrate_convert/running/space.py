"""Check free space at the output before a run, and watch it while the run goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ctrate_convert.errors import EnvironmentProblem, environment_problem
from ctrate_convert.looking.words import size
from ctrate_convert.planning.estimate import peak_extra_bytes
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Planned, allows
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.plan import Plan, PlannedShard

_PROBE_MAY_BE_OFF = 0.05
"""The relative error allowed for a probe's prediction; the size of an ``npy`` is exact."""


class SpaceWatch:
    """A watch that lets the next shard begin only while ``min_free_bytes`` stay free.

    The bytes that the shards under way will still write do not count as free: else many workers at
    once would take together what each of them saw. ``on_change`` is called once when a pause begins
    and once when it ends, with the bytes that stay free. With ``min_free_bytes`` 0 nothing is
    watched.
    """

    def __init__(
        self, folder: Path, min_free_bytes: int, on_change: Callable[[bool, int], None]
    ) -> None:
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._on_change = on_change
        self._paused = False

    def may_start(self, claimed_bytes: int) -> bool:
        """Return True if a shard may begin; those under way will still write ``claimed_bytes``."""
        if not self._min_free_bytes:
            return True
        free_bytes = _free_bytes(self._folder) - claimed_bytes
        paused = free_bytes < self._min_free_bytes
        if paused != self._paused:
            self._paused = paused
            self._on_change(paused, free_bytes)
        return not paused


def require_room(
    dataset: Dataset,
    work: Sequence[Planned],
    recorded: frozenset[int],
    *,
    num_workers: int,
    consent: Consent | None,
    least_workers: int | None = None,
    may_wait: bool = False,
) -> str | None:
    """Refuse to begin work that certainly does not fit; return None if all of it fits.

    Otherwise return what to tell a person: the work may not fit, since no probe has told how an
    encoding compresses the volumes; or it does not fit, but ``may_wait`` for space. Sources that
    ``consent`` lets go free space only if they lie on the output's file system and no trash keeps
    them; those of ``recorded`` shards, which only await the gate, go first. At most ``num_workers``
    and at least ``least_workers`` (None: as many) convert at once.

    Raises:
        EnvironmentProblem: the peak exceeds the free space.
    """
    back = _GivesBack(dataset, consent)
    unwritten = [one for one in work if one[1].index not in recorded]
    # Sources of recorded shards need only the gate: their space is free before the peak.
    before = sum(back.bytes(*one) for one in work if one[1].index in recorded)

    def peak_bytes(workers: int, *, only_certain: bool) -> int:
        shards = [_weighed(*one, back, only_certain=only_certain) for one in unwritten]
        # Their ``source_bytes`` are what they give back, 0 without a deletion: so one formula
        # serves for both.
        peak = peak_extra_bytes(shards, deleting=True, workers=min(workers, len(shards)))
        return max(0, peak - before)

    certain_bytes = peak_bytes(least_workers or num_workers, only_certain=True)
    expected_bytes = peak_bytes(num_workers, only_certain=False)
    free_bytes = _free_bytes(dataset.out)
    if certain_bytes > free_bytes and not may_wait:
        raise EnvironmentProblem(
            "what is pending does not fit at the output",
            where=dataset.out,
            seen=f"free space: {size(free_bytes)}",
            expected=f"{size(certain_bytes)} at the peak",
            next_command="free some space and give the same command again; or with "
            "--min_free_gb: begin, and pause whenever less than that is free",
        )
    if expected_bytes <= free_bytes:
        return None
    why = "it pauses below --min_free_gb" if may_wait else "compression may make it fit"
    return (
        f"what is pending may take {size(expected_bytes)} at the peak, and {size(free_bytes)} are "
        f"free at {dataset.out}; it is begun all the same: {why}"
    )


class _GivesBack:
    """The space that the gate frees on the output's file system."""

    def __init__(self, dataset: Dataset, consent: Consent | None) -> None:
        self._out = dataset.out
        # A trash lies on the sources' file system: moving a file there frees nothing.
        self._consent = consent if consent and not consent.trash else None
        self._beside: dict[str, bool] = {}

    def bytes(self, plan: Plan, shard: PlannedShard) -> int:
        """Return the bytes of one shard's sources that the output's file system gets back."""
        folder = plan.settings.data_folder
        if folder not in self._beside:
            self._beside[folder] = _same_file_system(Path(folder), self._out)
        gives = self._beside[folder] and allows(self._consent, plan, shard)
        return shard.source_bytes if gives else 0


def _weighed(
    plan: Plan, shard: PlannedShard, back: _GivesBack, *, only_certain: bool
) -> PlannedShard:
    """Return the shard with the bytes that it frees as its sources' size.

    With ``only_certain``, its output and scratch sizes are reduced to what is certain.
    """
    weight = 1.0
    if only_certain and plan.settings.encoding != "npy":
        # Without a probe nothing is known of how a compressing encoding does, so no byte is
        # certain.
        weight = 0.0 if plan.probe is None else 1 - _PROBE_MAY_BE_OFF
    change = {
        "source_bytes": back.bytes(plan, shard),
        "estimated_output_bytes": round(shard.estimated_output_bytes * weight),
        "estimated_scratch_bytes": round(shard.estimated_scratch_bytes * weight),
    }
    return shard.model_copy(update=change)


def _free_bytes(folder: Path) -> int:
    """Return the bytes that a user without privileges may still write; a quota is not seen."""
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise environment_problem(error, "looking for free space", folder) from error


def _same_file_system(one: Path, other: Path) -> bool:
    try:
        return os.stat(one).st_dev == os.stat(other).st_dev
    except OSError:
        return True  # the conversion will report the missing folder
