"""What the plan promised beside what came of it, in words, as a table's rows."""

from __future__ import annotations

from ctrate_convert.checking.report import Report
from ctrate_convert.looking.words import count, seconds, size

NOTE = (
    "MB/s: of voxels as the sources hold them, a CPU second, checks and re-read included. "
    "Time: as long\nas any of these shards was under way. Peak disk was not observed: it is "
    "what records and journals\nadd up to, each shard counted whole from its beginning, "
    "scratch files aside."
)

_COMPARABLE_S = 10.0
"""Times of shards that are all shorter tell little: records tell a beginning to the second."""


def rows(found: Report) -> list[tuple[str, str, str, str]]:
    """Return what is compared, promised, what it became, and the ratio of the two."""
    source_bytes = found.total("source_bytes") or 0.0
    array_bytes = found.total("array_bytes") or 0.0
    promised, became = found.total("predicted_bytes") or 0.0, found.total("output_bytes") or 0.0
    promised_cpu_s, cpu_s = found.total("predicted_cpu_s"), found.total("cpu_s") or 0.0
    promised_error = found.predicted_max_error_hu
    first = [
        ("bytes out", size(promised), size(became), ratio(promised, became)),
        ("times smaller", _over(source_bytes, promised), _over(source_bytes, became), ""),
        (
            "max error, HU",
            "not probed" if promised_error is None else f"{promised_error:.3g}",
            f"{found.max_error_hu:.3g}",
            "",
        ),
    ]
    probed = promised_cpu_s is not None
    expected_s = promised_cpu_s or 0.0
    return [
        *first,
        (
            "CPU",
            seconds(expected_s) if probed else "not probed",
            seconds(cpu_s),
            ratio(expected_s, cpu_s) if probed else "",
        ),
        (
            "MB/s a core",
            _speed(array_bytes, expected_s) if probed else "not probed",
            _speed(array_bytes, cpu_s),
            "",
        ),
        _time_row(found),
        (
            f"peak disk, {count(found.workers, 'worker')}",
            f"+ {size(found.predicted_peak_extra_bytes)}",
            f"+ {size(found.recorded_peak_extra_bytes)}",
            "",
        ),
    ]


def _time_row(found: Report) -> tuple[str, str, str, str]:
    promised_s, name = found.predicted_wall_s, f"time, {count(found.workers, 'worker')}"
    if promised_s is None:
        return (name, "not probed", seconds(found.wall_s), "")
    short = max(shard.elapsed_s for shard in found.shards) < _COMPARABLE_S
    words = "too short to tell" if short else ratio(promised_s, found.wall_s)
    return (name, seconds(promised_s), seconds(found.wall_s), words)


def ratio(promised: float, became: float) -> str:
    """Return promised / became; a dash if nothing came."""
    return f"{promised / became:.3f}" if became else "–"


def _over(one: float, other: float) -> str:
    return f"{one / other:.2f}×" if other else "–"


def _speed(size_bytes: float, cpu_s: float) -> str:
    return f"{size_bytes / cpu_s / 1e6:,.0f}" if cpu_s else "–"
