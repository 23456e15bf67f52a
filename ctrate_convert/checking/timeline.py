"""The course of a run, from records and journals: its duration, workers and disk use.

Records tell a beginning to the second and a duration to the millisecond. Nothing watched the disk:
its peak is what the shards and the deletions add up to.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

# The precision of a beginning in a record.
_TOLD_TO_S = 1.0

_RAMP = 0.25
"""Share of a shard's duration in which all workers begin a first shard, and none a second."""


@dataclass(frozen=True)
class Span:
    """The conversion of one shard in one attempt, by the clock of the machine that it ran on."""

    attempt: str
    started_s: float
    elapsed_s: float
    output_bytes: int

    @property
    def ended_s(self) -> float:
        """The earliest time at which the conversion can have ended."""
        return self.started_s + self.elapsed_s


@dataclass(frozen=True)
class Freed:
    """A source file that was deleted."""

    time_s: float
    size_bytes: int


def seconds_of(text: str) -> float:
    """Convert a time from a record or a journal to seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def wall_s(spans: Sequence[Span]) -> float:
    """Return the seconds in which at least one shard was under way.

    Pauses between two runs do not count.
    """
    total_s, until_s = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.started_s):
        total_s += max(0.0, span.ended_s - max(span.started_s, until_s))
        until_s = max(until_s, span.ended_s)
    return total_s


def most_workers(spans: Iterable[Span], noted: Mapping[str, int] = MappingProxyType({})) -> int:
    """Return the largest number of workers that ran at once, over all attempts together.

    ``noted`` has the number of workers by attempt. For attempts of earlier versions, which noted
    none, it is inferred.
    """
    attempts: dict[str, list[Span]] = {}
    for span in spans:
        attempts.setdefault(span.attempt, []).append(span)
    changes = []
    for attempt, own in attempts.items():
        first_s = min(span.started_s for span in own)
        # With fewer shards than workers, some workers had nothing to do.
        workers = min(noted[attempt], len(own)) if attempt in noted else _inferred_workers(own)
        # Beginnings are cut to the second, so the first of two attempts in turn may seem to end
        # after the second began.
        ended_s = max(first_s, max(span.ended_s for span in own) - _TOLD_TO_S)
        changes += [(first_s, workers), (ended_s, -workers)]
    # At equal times count beginnings before ends, so that an attempt of no duration counts too.
    ordered = sorted(changes, key=lambda change: (change[0], -change[1]))
    return max((0, *_running_sums(ordered)))


def _inferred_workers(own: Sequence[Span]) -> int:
    """Infer an attempt's workers from its beginning.

    Each worker begins one shard, and begins another only when that one is written. The number of
    shards under way later tells nothing, since one shard is read back beside the workers.
    """
    first_s = min(span.started_s for span in own)
    ramp_s = _RAMP * statistics.median(span.elapsed_s for span in own)
    # Beginnings of shards that take a few seconds cannot be told apart: assume one worker.
    if ramp_s < _TOLD_TO_S:
        return 1
    return sum(span.started_s <= first_s + ramp_s for span in own)


def peak_extra_bytes(spans: Sequence[Span], freed: Iterable[Freed]) -> int:
    """Return the largest size of the shards, less what deletions had freed by then.

    Each shard counts whole from its beginning; scratch files are not known.
    """
    changes = [(span.started_s, 0, span.output_bytes) for span in spans]
    changes += [(one.time_s, 1, -one.size_bytes) for one in freed]  # shards first
    return max((0, *_running_sums((time_s, size) for time_s, _, size in sorted(changes))))


def _running_sums(changes: Iterable[tuple[float, int]]) -> Iterator[int]:
    return itertools.accumulate(change for _, change in changes)
