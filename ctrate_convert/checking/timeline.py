"""A run's course as records and journals tell it: how long, how many workers, how much disk.

Records tell a beginning to the second and a duration to the millisecond. Nothing watched the disk:
its peak is what the shards and the deletions add up to.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

_TOLD_TO_S = 1.0

_RAMP = 0.25
"""Of the time that a shard takes: within it all workers of a run have begun, and none goes on."""


@dataclass(frozen=True)
class Span:
    """One shard's conversion in an attempt, by the clock of the machine that it ran on."""

    attempt: str
    started_s: float
    elapsed_s: float
    output_bytes: int

    @property
    def ended_s(self) -> float:
        """When it was over, at least."""
        return self.started_s + self.elapsed_s


@dataclass(frozen=True)
class Freed:
    """A source file that was deleted."""

    time_s: float
    size_bytes: int


def seconds_of(text: str) -> float:
    """Return a time as records and journals write it, in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def wall_s(spans: Sequence[Span]) -> float:
    """Return how long at least one shard was under way: pauses between two runs do not count."""
    total_s, until_s = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.started_s):
        total_s += max(0.0, span.ended_s - max(span.started_s, until_s))
        until_s = max(until_s, span.ended_s)
    return total_s


def most_workers(spans: Iterable[Span], noted: Mapping[str, int] | None = None) -> int:
    """Return the most workers that were there at once, of all attempts together.

    ``noted`` has the number of workers by attempt. An attempt of an earlier version noted none.
    For that it is inferred: each attempt begins a shard a worker, and more only as those are
    written. How many are under way later does not tell: beside the workers one shard is read back.
    """
    attempts: dict[str, list[Span]] = {}
    for span in spans:
        attempts.setdefault(span.attempt, []).append(span)
    changes = []
    for own in attempts.values():
        first_s = min(span.started_s for span in own)
        ramp_s = _RAMP * statistics.median(span.elapsed_s for span in own)
        begun = sum(span.started_s <= first_s + ramp_s for span in own)
        workers = begun if ramp_s >= _TOLD_TO_S else 1
        if noted and own[0].attempt in noted:
            workers = min(noted[own[0].attempt], len(own))
        # Of two attempts in turn the first may seem to end after the second began.
        ended_s = max(first_s, max(span.ended_s for span in own) - _TOLD_TO_S)
        changes += [(first_s, workers), (ended_s, -workers)]
    # At one time the beginnings first, so that an attempt of a moment counts too.
    ordered = sorted(changes, key=lambda change: (change[0], -change[1]))
    return max((0, *_running_sums(ordered)))


def peak_extra_bytes(spans: Sequence[Span], freed: Iterable[Freed]) -> int:
    """Return the most that shards took beyond what deletions had freed by then.

    Each shard counts whole from its beginning; scratch files are not known.
    """
    changes = [(span.started_s, 0, span.output_bytes) for span in spans]
    changes += [(one.time_s, 1, -one.size_bytes) for one in freed]  # after shards of that second
    return max((0, *_running_sums((time_s, size) for time_s, _, size in sorted(changes))))


def _running_sums(changes: Iterable[tuple[float, int]]) -> Iterator[int]:
    return itertools.accumulate(change for _, change in changes)
