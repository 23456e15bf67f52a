"""Charts of the course: throughput, disk use, and timelines of nodes and tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ctrate_convert.checking.timeline import Freed
from ctrate_convert.looking.words import unit
from ctrate_convert.reporting import course
from ctrate_convert.reporting.course import Bar, Numbers, Outcome, Row, ShardRun
from ctrate_convert.reporting.drawing import (
    FIRST,
    INK,
    MUTED,
    NARROW,
    OUTCOMES,
    SECOND,
    WIDE,
    svg,
)

_BINS = 60
_STEPS = 200
_MOST_ROWS = 40
_MOST_BARS = 400
_MOST_LANES = 4
_MOST_STRETCHES = 1600
_FEWEST_BINS = 30
_SHORTEST = 0.004
"""The share of the axis below which a bar could not be seen."""


def throughput(runs: Sequence[ShardRun]) -> str:
    """Draw the source bytes a second over time."""
    edges, speed = course.rate(runs, _BINS)

    def draw(axes: Axes) -> None:
        axes.stairs(speed / 1e6, _dates(edges), fill=True, color=FIRST, alpha=0.85)
        axes.set_ylabel("MB/s of sources")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.set_ylim(bottom=0)
        _time_axis(axes)

    return svg("throughput", "Source bytes converted a second, over time", NARROW, 220, draw)


def disk(runs: Sequence[ShardRun], freed: Sequence[Freed]) -> str:
    """Draw the bytes of shards written and of sources deleted, over time."""
    lines = (
        ("shards written", course.written(runs, _STEPS), FIRST, "-"),
        ("sources freed", course.freed(freed, _STEPS), SECOND, "--"),
    )
    last_s = max(float(steps.times_s[-1]) for _, steps, _, _ in lines if len(steps.times_s))
    first_s = min(float(steps.times_s[0]) for _, steps, _, _ in lines if len(steps.times_s))

    divisor, unit_name = unit(
        max(float(steps.total[-1]) for _, steps, _, _ in lines if len(steps.total))
    )

    def draw(axes: Axes) -> None:
        for name, steps, colour, style in lines:
            if not len(steps.times_s):
                continue
            times = np.concatenate(([first_s], steps.times_s, [last_s]))
            total = np.concatenate(([0.0], steps.total, steps.total[-1:]))
            axes.step(
                _dates(times), total / divisor, where="post", color=colour, linewidth=2, label=name,
                linestyle=style,
            )  # fmt: skip
        axes.set_ylabel(unit_name)
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
        _time_axis(axes)

    return svg("disk", "Bytes of shards written and of sources freed, over time", NARROW, 220, draw)


def shown_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that a timeline shows."""
    return course.chosen_rows(rows, _MOST_ROWS)


def are_summed(rows: Sequence[Row]) -> bool:
    """Return True if a timeline of these rows sums bars up, since there are too many to draw."""
    shown = shown_rows(rows)
    lanes = max((max(_lanes(row.bars), default=0) for row in shown), default=0)
    return sum(len(row.bars) for row in shown) > _MOST_BARS or lanes >= _MOST_LANES


def timeline(
    name: str, about: str, rows: Sequence[Row], *, since_first: bool = False
) -> dict[str, str]:
    """Draw rows of bars over time; return it as ``wide`` for screens and ``narrow`` for phones.

    Of too many bars each row tells how many there were at a time, by outcome. With ``since_first``
    the time of each row is counted from its first beginning.
    """
    shown = shown_rows(rows)
    if since_first:
        shown = course.since_their_first(shown)
    drawings = {}
    for kind, width in (("wide", WIDE), ("narrow", NARROW)):
        axis = _TimeAxis.of(shown, since_first=since_first, most_ticks=10 if kind == "wide" else 4)
        lines = _summed(shown, axis) if are_summed(rows) else _single(shown, axis)
        letters = 24 if kind == "wide" else 11
        height = 46 + 20 * len(shown)
        drawings[kind] = svg(
            f"{name}-{kind}", about, width, height, _in_rows(shown, axis, letters, lines)
        )
    return drawings


def under_way(rows: Sequence[Row]) -> str:
    """Draw how many bars of each outcome there were at a time."""
    edges, counts = course.under_way(rows, *course.period(rows), _BINS)

    def draw(axes: Axes) -> None:
        below = np.zeros(len(edges) - 1)
        for outcome, number in counts.items():
            axes.stairs(
                below + number, _dates(edges), baseline=below, fill=True, color=OUTCOMES[outcome]
            )
            below = below + number
        axes.set_ylabel("tasks")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.set_ylim(bottom=0)
        _time_axis(axes)

    return svg("under-way", "Tasks under way over time, by outcome", NARROW, 220, draw)


@dataclass(frozen=True)
class _TimeAxis:
    """The axis of a timeline: moments as dates, or times since a beginning in a fitting unit."""

    first_s: float
    last_s: float
    most_ticks: int
    unit_s: float = 0.0
    unit: str = ""

    @classmethod
    def of(cls, rows: Sequence[Row], *, since_first: bool, most_ticks: int) -> _TimeAxis:
        first_s, last_s = course.period(rows)
        if not since_first:
            return cls(first_s, last_s, most_ticks)
        units = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
        unit_s, unit = next((one for one in units if last_s >= 2 * one[0]), units[-1])
        return cls(first_s, last_s, most_ticks, unit_s, unit)

    def places(self, seconds: Numbers) -> Numbers:
        return seconds / self.unit_s if self.unit_s else _dates(seconds)

    def put_on(self, axes: Axes) -> None:
        first, last = self.places(np.array((self.first_s, self.last_s)))
        axes.set_xlim(first, last + (last - first) * _SHORTEST)
        if not self.unit_s:
            _time_axis(axes, self.most_ticks)
            return
        axes.xaxis.set_major_locator(MaxNLocator(self.most_ticks))
        axes.set_xlabel(f"{self.unit} since the first attempt of each began")


def _in_rows(
    rows: Sequence[Row], axis: _TimeAxis, letters: int, draw_lines: Callable[[Axes], None]
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        draw_lines(axes)
        axes.set_yticks(range(len(rows)), [_short(row.name, letters) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        axis.put_on(axes)

    return draw


def _single(rows: Sequence[Row], axis: _TimeAxis) -> Callable[[Axes], None]:
    """Draw each bar, in lanes where bars of a row overlap, with signs for what went wrong."""

    def draw(axes: Axes) -> None:
        first, last = axis.places(np.array((axis.first_s, axis.last_s)))
        shortest = (last - first) * _SHORTEST
        signs: dict[str, list[tuple[float, float]]] = {"x": [], "^": []}
        for place, row in enumerate(rows):
            lanes = _lanes(row.bars)
            number = max(lanes, default=0) + 1
            height = 0.72 / number
            for lane, bar in zip(lanes, row.bars, strict=True):
                start, end = axis.places(np.array((bar.start_s, bar.end_s)))
                bottom = place - 0.36 + lane * height
                axes.broken_barh(
                    [(start, max(end - start, shortest))],
                    (bottom, height * (0.9 if number > 1 else 1.0)),
                    facecolors=OUTCOMES[bar.outcome],
                )
                middle = bottom + height / 2
                if bar.outcome in (Outcome.FAILED, Outcome.OPEN):
                    signs["x"].append((max(end, start + shortest), middle))
                if bar.again:
                    signs["^"].append((start, middle))
        for marker, places in signs.items():
            if places:
                axes.plot(
                    *zip(*places, strict=True), marker, color=INK, markersize=5,
                    markeredgewidth=1.4, clip_on=False,
                )  # fmt: skip

    return draw


def _summed(rows: Sequence[Row], axis: _TimeAxis) -> Callable[[Axes], None]:
    """Draw for each row how many bars there were at a time, the most of them a row high."""

    bins = min(2 * _BINS, max(_FEWEST_BINS, _MOST_STRETCHES // len(rows)))

    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            edges, counts = course.under_way([row], axis.first_s, axis.last_s, bins)
            most = max(1e-9, float(sum(counts.values(), np.zeros(bins)).max()))
            below = np.full(bins, place + 0.42)
            for outcome, number in counts.items():
                above = below - 0.84 * number / most
                axes.stairs(
                    above, axis.places(edges), baseline=below, fill=True, color=OUTCOMES[outcome]
                )
                below = above

    return draw


def _lanes(bars: Sequence[Bar]) -> list[int]:
    """Return a lane for each bar, so that bars of one lane do not overlap."""
    free_from: list[float] = []
    lanes = []
    for bar in bars:  # by their beginnings
        lane = next(
            (place for place, at in enumerate(free_from) if at <= bar.start_s), len(free_from)
        )
        free_from[lane : lane + 1] = [bar.end_s]
        lanes.append(lane)
    return lanes


def _time_axis(axes: Axes, most_ticks: int = 5) -> None:
    locator = AutoDateLocator(minticks=2, maxticks=most_ticks)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(
            locator,
            tz=UTC,
            formats=["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S.%f"],
            zero_formats=["", "%Y", "%b", "%d %b", "%H:%M", "%H:%M"],
            offset_formats=[
                "UTC",
                "UTC",
                "%Y, UTC",
                "%d %b %Y, UTC",
                "%d %b %Y, UTC",
                "%d %b %Y, UTC",
            ],
        )
    )
    axes.xaxis.get_offset_text().set_color(MUTED)
    axes.xaxis.set_tick_params(length=3)


def _dates(seconds: Numbers) -> Numbers:
    return np.asarray(date2num([datetime.fromtimestamp(float(one), UTC) for one in seconds]))


def _short(name: str, letters: int) -> str:
    plain = name.encode("ascii", "backslashreplace").decode()
    return plain if len(plain) <= letters else plain[: letters - 1] + "…"
