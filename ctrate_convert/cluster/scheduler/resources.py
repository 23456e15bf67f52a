"""The resources of an element that the profile does not name.

They follow from the plan and from measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ctrate_convert.cluster.scheduler.profile import ClusterProfile
from ctrate_convert.cluster.submissions import Resources
from ctrate_convert.store.attempts import PastAttempt
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.records.plan import PlannedShard

MIB = 2**20

_UNMEASURED_BYTES_PER_S = 10e6  # NPZ, one worker, a busy network file system, with deletions
_TIME_MARGIN = 3.0
_START_MIN = 10
_LEAST_MIN = 15

_UNMEASURED_PROCESS_MB = 160  # streaming: interpreter, libraries, a few blocks of a volume
_LARGEST_BUFFERS_MB = 64  # beyond that, buffers do not grow with the volume
_MEMORY_MARGIN = 1.5
_LEAST_MB = 512

_SPEED_RECORDS = 50
_MOST_WORKERS = 8


def default_resources(
    ledger: Ledger,
    tasks: Sequence[tuple[PlannedShard, ...]],
    attempts: Iterable[PastAttempt],
    profile: ClusterProfile,
) -> Resources:
    """Return what the largest of ``tasks`` needs, whatever the partition grants."""
    workers = profile.cpus_per_task or min(_MOST_WORKERS, max(len(shards) for shards in tasks))
    speed = measured_bytes_per_s(ledger) or _UNMEASURED_BYTES_PER_S
    timeout_min = profile.timeout_min or _minutes(tasks, workers, speed)
    largest_bytes = max(plan.estimate.largest_volume_bytes for plan in ledger.plans)
    mem_mb = (
        math.ceil(profile.mem_gb * 1024)
        if profile.mem_gb
        else _megabytes(workers, largest_bytes, attempts)
    )
    return Resources(timeout_min=timeout_min, mem_mb=mem_mb, cpus_per_task=workers)


def measured_bytes_per_s(ledger: Ledger) -> float | None:
    """Return one worker's NPZ bytes a second, from the newest records; None without any."""
    source_bytes, elapsed_s = 0, 0.0
    for one in ledger.readable(newest=_SPEED_RECORDS):
        source_bytes += one.record.source_bytes
        elapsed_s += one.record.elapsed_s
    return source_bytes / elapsed_s if source_bytes and elapsed_s else None


def _minutes(tasks: Sequence[tuple[PlannedShard, ...]], workers: int, speed: float) -> int:
    # One worker converts a shard, so a task takes at least as long as its largest shard.
    longest_s = max(
        max(max(s.source_bytes for s in shards), sum(s.source_bytes for s in shards) / workers)
        / speed
        for shards in tasks
    )
    needed = _START_MIN + longest_s * _TIME_MARGIN / 60
    return max(_LEAST_MIN, math.ceil(needed / 5) * 5)


def _megabytes(workers: int, largest_bytes: int, attempts: Iterable[PastAttempt]) -> int:
    """Return the memory that an element needs, in MB.

    A worker streams: past a few blocks its memory does not grow with the volume.
    """
    measured = max((a.end.max_rss_bytes for a in attempts if a.end), default=0)
    process_mb = max(_UNMEASURED_PROCESS_MB, measured // MIB)
    buffers_mb = min(_LARGEST_BUFFERS_MB, largest_bytes // MIB + 1)
    # Three more processes run beside the workers: one that reads its shard back, the element
    # itself, and the one that workers are forked from.
    needed = ((workers + 3) * process_mb + workers * buffers_mb) * _MEMORY_MARGIN
    return max(_LEAST_MB, math.ceil(needed / 256) * 256)
