"""The course of the conversion, from records, attempts and journals: rates, disk use, timelines.

Slurm is not asked: a page says the same wherever it is made.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.checking.timeline import Freed, seconds_of
from ctrate_convert.store.attempts import PastAttempt
from ctrate_convert.store.records.attempt import AttemptEnd

Numbers = NDArray[np.float64]


class Outcome(enum.Enum):
    """How an attempt ended, or what came of a task in it."""

    DONE = "done"
    PARTLY = "done, some samples failed"
    INTERRUPTED = "interrupted"
    OPEN = "no end record: under way, or killed"
    FAILED = "failed"


_SHORTEST_S = 1e-3
_BAD = frozenset((Outcome.INTERRUPTED, Outcome.OPEN, Outcome.FAILED))


@dataclass(frozen=True)
class ShardRun:
    """The conversion of one recorded shard."""

    attempt: str
    host: str
    shard: int
    task: int
    started_s: float
    elapsed_s: float
    source_bytes: int
    output_bytes: int
    failed: int

    @property
    def ended_s(self) -> float:
        """The earliest time at which the conversion can have ended."""
        return self.started_s + self.elapsed_s


@dataclass(frozen=True)
class Bar:
    """A stretch of time on a timeline; ``again`` marks a relaunch."""

    start_s: float
    end_s: float
    outcome: Outcome
    again: bool = False


@dataclass(frozen=True)
class Row:
    """One line of a timeline."""

    name: str
    bars: tuple[Bar, ...]

    @property
    def trouble(self) -> int:
        """The number of bars that ended badly or began again; rows with more are shown first."""
        return sum(bar.outcome in _BAD or bar.again for bar in self.bars)


@dataclass(frozen=True)
class Steps:
    """A sum over time: ``total`` at each of ``times_s``, unchanged between them."""

    times_s: Numbers
    total: Numbers


def rate(runs: Sequence[ShardRun], bins: int) -> tuple[Numbers, Numbers]:
    """Return the edges of equal stretches of time, and the source bytes a second in each.

    Records tell when a shard began and how long it took: its bytes are spread evenly over that.
    """
    if not runs:
        return np.zeros(1), np.zeros(0)
    spans = [(run.started_s, max(run.elapsed_s, _SHORTEST_S), run.source_bytes) for run in runs]
    first = min(start_s for start_s, _, _ in spans)
    last = max(start_s + lasted_s for start_s, lasted_s, _ in spans)
    edges = np.linspace(first, max(last, first + 1.0), bins + 1)
    done = np.zeros(bins + 1)
    for start_s, lasted_s, source_bytes in spans:
        done += source_bytes * np.clip((edges - start_s) / lasted_s, 0.0, 1.0)
    # The edges lie between the first beginning and the last end, so nothing is lost at either.
    return edges, np.diff(done) / np.diff(edges)


def written(runs: Iterable[ShardRun], most: int) -> Steps:
    """Return the bytes of published shards over time, in at most ``most`` steps."""
    return _steps([(run.ended_s, run.output_bytes) for run in runs], most)


def freed(sources: Iterable[Freed], most: int) -> Steps:
    """Return the bytes of deleted sources over time, in at most ``most`` steps."""
    return _steps([(one.time_s, one.size_bytes) for one in sources], most)


def _steps(changes: Sequence[tuple[float, int]], most: int) -> Steps:
    if not changes:
        return Steps(np.zeros(0), np.zeros(0))
    times, sizes = map(np.array, zip(*sorted(changes), strict=True))
    total = np.cumsum(sizes.astype(np.float64))
    kept = np.unique(np.linspace(0, len(times) - 1, min(most, len(times))).round().astype(int))
    return Steps(times[kept].astype(np.float64), total[kept])


def node_rows(attempts: Sequence[PastAttempt], runs: Sequence[ShardRun]) -> list[Row]:
    """Return a row for each node with its attempts, in the order of their names."""
    ends = _last_seen(attempts, runs)
    again = _begun_again(attempts)
    bars: dict[str, list[Bar]] = defaultdict(list)
    for one in attempts:
        name = one.start.attempt
        bars[one.start.host].append(
            Bar(seconds_of(one.start.started), ends[name], _outcome(one.end), bool(again[name]))
        )
    return [Row(host, tuple(bars[host])) for host in sorted(bars)]


def task_rows(
    attempts: Sequence[PastAttempt], runs: Sequence[ShardRun], tasks: Mapping[int, int]
) -> list[Row]:
    """Return a row for each task that an attempt had, in their order; ``tasks`` are by shard.

    An attempt of one task is one bar. Of an attempt of several, a task has what records tell of its
    shards, and what the end record tells of shards that failed.
    """
    ends = _last_seen(attempts, runs)
    again = _begun_again(attempts)
    own: dict[tuple[str, int], list[ShardRun]] = defaultdict(list)
    for run in runs:
        own[run.attempt, run.task].append(run)
    bars: dict[int, list[Bar]] = defaultdict(list)
    for one in attempts:
        name, started_s = one.start.attempt, seconds_of(one.start.started)
        if len(one.start.tasks) == 1:
            task = one.start.tasks[0]
            bars[task].append(Bar(started_s, ends[name], _outcome(one.end), task in again[name]))
            continue
        failed = {tasks.get(shard) for shard in (one.end.shards_failed if one.end else ())}
        for task in one.start.tasks:
            done = own[name, task]
            if task in failed:
                bars[task].append(Bar(started_s, ends[name], Outcome.FAILED, task in again[name]))
            elif done:
                bars[task].append(_bar_of(done, task in again[name]))
    return [Row(f"task {task}", tuple(bars[task])) for task in sorted(bars)]


def under_way(
    rows: Sequence[Row], first_s: float, last_s: float, bins: int
) -> tuple[Numbers, dict[Outcome, Numbers]]:
    """Return edges of equal stretches of time, and the mean number of bars of each outcome."""
    edges = np.linspace(first_s, last_s, bins + 1)
    lasted = {outcome: np.zeros(bins + 1) for outcome in Outcome}
    for bar in _bars(rows):
        lasted[bar.outcome] += np.clip(edges, bar.start_s, bar.end_s) - bar.start_s
    means = {outcome: np.diff(total) / np.diff(edges) for outcome, total in lasted.items()}
    return edges, {outcome: mean for outcome, mean in means.items() if mean.any()}


def chosen_rows(rows: Sequence[Row], most: int) -> list[Row]:
    """Return at most ``most`` rows in their order: those with the most trouble, then the first."""
    ranked = sorted(range(len(rows)), key=lambda place: (-rows[place].trouble, place))
    return [rows[place] for place in sorted(ranked[:most])]


def since_their_first(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with times counted from the first beginning in each."""
    found = []
    for row in rows:
        first_s = min(bar.start_s for bar in row.bars)
        bars = (
            replace(bar, start_s=bar.start_s - first_s, end_s=bar.end_s - first_s)
            for bar in row.bars
        )
        found.append(Row(row.name, tuple(bars)))
    return found


def period(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the first beginning and the last end, at least a second apart."""
    first = min((bar.start_s for bar in _bars(rows)), default=0.0)
    return first, max(max((bar.end_s for bar in _bars(rows)), default=0.0), first + 1.0)


def _bars(rows: Iterable[Row]) -> Iterator[Bar]:
    return (bar for row in rows for bar in row.bars)


def _bar_of(done: Sequence[ShardRun], again: bool) -> Bar:
    outcome = Outcome.PARTLY if any(run.failed for run in done) else Outcome.DONE
    first = min(run.started_s for run in done)
    return Bar(first, max(run.ended_s for run in done), outcome, again)


def _outcome(end: AttemptEnd | None) -> Outcome:
    if end is None:
        return Outcome.OPEN
    if end.outcome == "interrupted":
        return Outcome.INTERRUPTED
    if end.outcome == "failed":
        return Outcome.FAILED
    return Outcome.PARTLY if end.samples_failed else Outcome.DONE


def _last_seen(attempts: Sequence[PastAttempt], runs: Iterable[ShardRun]) -> dict[str, float]:
    """Return when each attempt ended, or when a file of it last said that it lived."""
    seen: dict[str, float] = {}
    for run in runs:
        seen[run.attempt] = max(seen.get(run.attempt, 0.0), run.ended_s)
    for one in attempts:
        name = one.start.attempt
        started_s = seconds_of(one.start.started)
        if one.end is not None:
            seen[name] = max(started_s, seconds_of(one.end.finished))
            continue
        noted_s = seconds_of(one.progress.time) if one.progress else started_s
        seen[name] = max(started_s, noted_s, seen.get(name, 0.0))
    return seen


def _begun_again(attempts: Sequence[PastAttempt]) -> dict[str, frozenset[int]]:
    """Return for each attempt those of its tasks that an earlier attempt did not end well."""
    unfinished: set[int] = set()
    again = {}
    for one in attempts:  # oldest first
        tasks = set(one.start.tasks)
        job = one.start.job
        again[one.start.attempt] = frozenset(tasks if job and job.restarts else tasks & unfinished)
        unfinished = unfinished | tasks if _outcome(one.end) in _BAD else unfinished - tasks
    return again
