"""A run's course as records and journals tell it: how long, how many at once, how much disk.

Records tell a beginning to the second and a duration to the millisecond. Nothing watched the disk:
its peak is what the shards and the deletions add up to.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

_TOLD_TO_S = 1.0


@dataclass(frozen=True)
class Span:
    """One shard's conversion, by the clock of the machine that it ran on."""

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
    """A time as records and journals write it, in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def wall_s(spans: Sequence[Span]) -> float:
    """How long at least one shard was under way: pauses between two runs do not count."""
    total_s, until_s = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.started_s):
        total_s += max(0.0, span.ended_s - max(span.started_s, until_s))
        until_s = max(until_s, span.ended_s)
    return total_s


def most_at_once(spans: Sequence[Span]) -> int:
    """How many shards were certainly under way at the same time, and so how many workers.

    A beginning may lie up to a second later than it is told: so much of each span does not count,
    or the shards that one worker converts in turn would seem to overlap.
    """
    changes = [
        change
        for span in spans
        for change in ((span.started_s, 1), (span.ended_s - _TOLD_TO_S, -1))
        if span.elapsed_s > _TOLD_TO_S
    ]
    return max((1, *_running_sums(sorted(changes)))) if spans else 0


def peak_extra_bytes(spans: Sequence[Span], freed: Iterable[Freed]) -> int:
    """The most that shards took beyond what deletions had freed by then.

    Each shard counts whole from its beginning; scratch files are not known.
    """
    changes = [(span.started_s, 0, span.output_bytes) for span in spans]
    changes += [(one.time_s, 1, -one.size_bytes) for one in freed]  # after shards of that second
    return max((0, *_running_sums((time_s, size) for time_s, _, size in sorted(changes))))


def _running_sums(changes: Iterable[tuple[float, int]]) -> Iterator[int]:
    return itertools.accumulate(change for _, change in changes)
