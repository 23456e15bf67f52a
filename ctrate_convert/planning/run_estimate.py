"""Estimate a run from one row of a probe: ratio, speed, hours and peak disk."""

from __future__ import annotations

from dataclasses import dataclass

from ctrate_convert.planning.estimate import peak_extra_bytes
from ctrate_convert.store.records.plan import DType, Encoding, Plan, ProbeRow


@dataclass(frozen=True)
class RunEstimate:
    """One way to store the whole plan, and its cost.

    ``times_smaller`` is relative to the sources as they are on disk. ``mb_per_s`` is 10⁶ bytes of
    the sources' arrays for each CPU second. ``hours`` is CPU time divided by the workers that find
    a shard to work on: the time of a run if storage keeps up with them.
    """

    encoding: Encoding
    dtype: DType
    step: float | None
    chosen: bool
    advised: bool
    failure: str
    output_bytes: int
    times_smaller: float
    max_error_hu: float
    mb_per_s: float
    hours: float
    peak_extra_bytes: int

    @property
    def options(self) -> str:
        """The command line options that ask for this way."""
        words = [f"--encoding {self.encoding}", f"--dtype {self.dtype}"]
        return " ".join(words + ([f"--step {self.step:g}"] if self.step else []))


def busy_workers(plan: Plan, num_workers: int) -> int:
    """Return how many of ``num_workers`` find a shard to work on: a shard takes one worker."""
    return min(num_workers, len(plan.shards))


def run_estimates(plan: Plan, *, num_workers: int, deleting: bool) -> list[RunEstimate]:
    """Return a forecast for every probed way, in the probe's order; none if nothing was probed."""
    if plan.probe is None:
        return []
    workers = busy_workers(plan, num_workers)
    return [
        RunEstimate(
            encoding=row.encoding,
            dtype=row.dtype,
            step=row.step,
            chosen=row.chosen,
            advised=row.advised,
            failure=row.failure,
            output_bytes=row.output_bytes,
            times_smaller=plan.estimate.source_bytes / max(1, row.output_bytes),
            max_error_hu=row.max_error_hu,
            mb_per_s=plan.probe.volume_bytes / max(row.cpu_s, 1e-9) / 1e6,
            hours=row.cpu_s / workers / 3600,
            peak_extra_bytes=_peak(plan, row, workers, deleting=deleting),
        )
        for row in plan.probe.rows
    ]


def _peak(plan: Plan, row: ProbeRow, workers: int, *, deleting: bool) -> int:
    """Return the plan's peak with the shards as large as this way would make them."""
    if row.chosen:
        return peak_extra_bytes(plan.shards, deleting=deleting, workers=workers)
    # The plan's shards were estimated for the chosen way; another one keeps their proportions.
    scale = row.output_bytes / max(1, plan.estimate.output_bytes)
    shards = [
        shard.model_copy(
            update={
                "estimated_output_bytes": round(shard.estimated_output_bytes * scale),
                "estimated_scratch_bytes": row.scratch_bytes,
            }
        )
        for shard in plan.shards
    ]
    return peak_extra_bytes(shards, deleting=deleting, workers=workers)
