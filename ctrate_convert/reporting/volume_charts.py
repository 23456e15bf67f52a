"""Charts of the volumes: promises, sizes, errors, shapes, spacings and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
    StrMethodFormatter,
)

from ctrate_convert.checking.report import ShardFacts
from ctrate_convert.looking.words import unit
from ctrate_convert.reporting.drawing import FIRST, INK, MUTED, NARROW, SECOND, svg

_BINS = 30
_MOST_POINTS = 300
_GRID = 18
_HEIGHT = 220


def promised(shards: Sequence[ShardFacts]) -> str:
    """Draw the bytes that each shard became over those promised; equal ones lie on the line."""
    pairs = Counter((float(one.predicted_bytes), float(one.output_bytes)) for one in shards)

    high = max(max(pair) for pair in pairs)
    divisor, name = unit(high)
    scaled = {(one / divisor, other / divisor): number for (one, other), number in pairs.items()}
    low = min(min(pair) for pair in scaled)
    room = max((high / divisor - low) * 0.08, high / divisor * 0.02, 1e-9)
    limits = (low - room, high / divisor + room)

    def draw(axes: Axes) -> None:
        _scatter(axes, scaled)
        axes.plot(limits, limits, color=MUTED, linewidth=1)
        axes.set_xlim(limits)
        axes.set_ylim(limits)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"promised, {name} a shard")
        axes.set_ylabel(f"became, {name}")

    return svg("promised", "Bytes of each shard, promised and become", NARROW, _HEIGHT, draw)


def sizes(stored_bytes: Sequence[int]) -> str:
    """Draw how large the stored volumes are."""

    divisor, name = unit(max(stored_bytes))

    def draw(axes: Axes) -> None:
        _histogram(axes, np.array(stored_bytes, np.float64) / divisor, FIRST)
        axes.set_xlabel(f"stored volume, {name}")

    return svg("sizes", "Volumes by their stored size", NARROW, _HEIGHT, draw)


def ratios(times_smaller: Sequence[float]) -> str:
    """Draw how many times smaller than their voxels the volumes are stored."""

    def draw(axes: Axes) -> None:
        _histogram(axes, np.array(times_smaller), SECOND)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        axes.set_xlabel("times smaller than the source's voxels")

    return svg("ratios", "Volumes by their compression ratio", NARROW, _HEIGHT, draw)


def errors(errors_hu: Sequence[float]) -> str:
    """Draw the largest error of each volume that has one, on a logarithmic axis."""
    found = np.array([error for error in errors_hu if error > 0])

    def draw(axes: Axes) -> None:
        low, high = np.log10(found.min()), np.log10(found.max())
        edges = np.logspace(low - 0.05, max(high, low + 0.5) + 0.05, _BINS + 1)
        axes.stairs(*np.histogram(found, edges), fill=True, color=FIRST)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("largest error of a voxel, HU")
        _counts(axes)

    return svg("errors", "Volumes by their largest error in HU", NARROW, _HEIGHT, draw)


def shapes(counts: Mapping[tuple[int, int, int], int]) -> str:
    """Draw slices over rows."""
    points: Counter[tuple[float, float]] = Counter()
    for (slices, rows, _), number in counts.items():
        points[float(rows), float(slices)] += number

    def draw(axes: Axes) -> None:
        _scatter(axes, points)
        axes.set_xlabel("rows of a slice")
        axes.set_ylabel("slices")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True))

    return svg("shapes", "Volumes by rows and slices", NARROW, _HEIGHT, draw)


def spacings(counts: Mapping[tuple[float, float], int]) -> str:
    """Draw the distance between slices over the size of a pixel."""
    points = Counter({(in_plane, between): n for (between, in_plane), n in counts.items()})

    def draw(axes: Axes) -> None:
        _scatter(axes, points)
        axes.set_xlabel("in the plane, mm")
        axes.set_ylabel("between slices, mm")

    return svg("spacings", "Volumes by their spacing", NARROW, _HEIGHT, draw)


def labels(counts: Mapping[str, int], labelled: int) -> str:
    """Draw the share of positive volumes of each label, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))

    def draw(axes: Axes) -> None:
        shares = [number / labelled for _, number in ranked]
        axes.barh(range(len(ranked)), shares, color=FIRST, height=0.7)
        for place, (share, (_, number)) in enumerate(zip(shares, ranked, strict=True)):
            axes.annotate(
                f"{number:,}", (share, place), (4, 0), textcoords="offset points", va="center",
                color=INK,
            )  # fmt: skip
        axes.set_yticks(range(len(ranked)), [name for name, _ in ranked])
        axes.set_ylim(len(ranked) - 0.4, -0.6)
        axes.set_xlim(0, max(max(shares, default=0.0), 0.01) * 1.2)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(False, axis="y")

    height = 40 + 18 * len(ranked)
    return svg("labels", "Share of positive volumes by label", NARROW + 40, height, draw)


def _histogram(
    axes: Axes, values: np.ndarray[tuple[int], np.dtype[np.float64]], colour: str
) -> None:
    low, high = float(values.min()), float(values.max())
    room = max((high - low) * 0.02, abs(high) * 0.02, 1e-9)
    edges = np.linspace(low - room, high + room, _BINS + 1)
    axes.stairs(*np.histogram(values, edges), fill=True, color=colour)
    _counts(axes)


def _counts(axes: Axes) -> None:
    axes.set_ylabel("volumes")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_ylim(bottom=0)


def _scatter(axes: Axes, points: Mapping[tuple[float, float], int]) -> None:
    """Draw a dot at each place, larger where more lie; of very many, one a cell of a grid."""
    x, y = np.array(list(points), np.float64).reshape(-1, 2).T
    number = np.array(list(points.values()), np.float64)
    if len(x) > _MOST_POINTS:
        counts, *edges = np.histogram2d(x, y, _GRID, weights=number)
        filled = np.nonzero(counts)
        # Where the volumes of a cell are in the mean, and not its middle, where there may be none.
        x, y = (
            np.histogram2d(x, y, edges, weights=number * one)[0][filled] / counts[filled]
            for one in (x, y)
        )
        number = counts[filled]
    area = 30 + 150 * number / max(number.max(), 30)
    axes.scatter(x, y, s=area, color=FIRST, alpha=0.6, linewidths=0)
    axes.margins(0.12)
