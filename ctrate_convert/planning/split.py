"""Order the samples, and cut them into shards and tasks."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Sequence

from ctrate_convert.formats.names import key_parts
from ctrate_convert.store.records.manifest import GIB
from ctrate_convert.store.records.plan import PlanSettings

TEST_MODE_SAMPLES = 100


def natural_order(key: str) -> tuple[int, str, int, str, int]:
    """Return a sort key: split, patient *number*, scan and reconstruction; other names last."""
    parts = key_parts(key)
    if parts is None:
        return (1, key, 0, "", 0)
    split, patient, scan, reconstruction = parts
    # One string for the split of all keys: sorting holds the parts of all of them.
    return (0, sys.intern(split), int(patient), scan, int(reconstruction))


def arrange(keys: Iterable[str], settings: PlanSettings) -> list[str]:
    """Return the keys in the plan's order, at most ``limit``; in test mode the first hundred.

    The same keys and settings give the same order, in whatever order the keys come.
    """
    # Sorted even if they are shuffled next, so that the seed alone decides the order.
    ordered = sorted(keys, key=natural_order)
    if settings.shuffle_seed is not None:
        random.Random(settings.shuffle_seed).shuffle(ordered)
    most = [settings.limit] if settings.limit else []
    most += [TEST_MODE_SAMPLES] if settings.test_mode else []
    return ordered[: min(most)] if most else ordered


def shard_ranges(sample_bytes: Sequence[int], settings: PlanSettings) -> list[range]:
    """Return consecutive ranges of samples, one for each shard; each sample is in exactly one.

    ``sample_bytes`` are the samples' estimated sizes in the shard. Without a wanted shard size each
    range has ``samples_per_shard`` samples, and the last one the rest. With a wanted size, a range
    ends before the sample that would exceed it, but has at least one sample.
    """
    total = len(sample_bytes)
    if settings.shard_size_gb is None:
        step = settings.samples_per_shard
        return [range(start, min(start + step, total)) for start in range(0, total, step)]
    limit_bytes = settings.shard_size_gb * GIB
    ranges = []
    start, size_bytes = 0, 0
    for index, more_bytes in enumerate(sample_bytes):
        # The first sample of a range always fits, even if it alone exceeds the limit.
        if index > start and size_bytes + more_bytes > limit_bytes:
            ranges.append(range(start, index))
            start, size_bytes = index, 0
        size_bytes += more_bytes
    if start < total:
        ranges.append(range(start, total))
    return ranges
