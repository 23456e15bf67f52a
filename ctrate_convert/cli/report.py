"""The command ``ctrate-convert report``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import click

from ctrate_convert.checking.damage import find_damage
from ctrate_convert.checking.report import Report, ShardFacts, report
from ctrate_convert.cli import options, show
from ctrate_convert.cli.damage import print_damage, with_damage
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.card import NOT_RECORDED
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger

_NAMED = 10

_COMPARABLE_S = 10.0
"""Times of shards that are all shorter tell little: records tell a beginning to the second."""

_TOTALS = (
    "samples", "source_bytes", "array_bytes", "predicted_bytes", "output_bytes",
    "predicted_cpu_s", "cpu_s", "elapsed_s",
)  # fmt: skip


@click.command("report")
@options.out_argument
@options.json_option
def command(out: Path, as_json: bool) -> int:
    """Compare what the plan promised with what the finished shards are.

    \b
    Example:
      ctrate-convert report /data/shards
    """
    ledger = Ledger.load(Dataset(out))
    found = report(ledger)
    damage = find_damage(ledger)
    if as_json:
        show.as_json({**report_facts(found), "damage": damage})
    else:
        print_report(found)
        print_damage(damage)
    return with_damage(ExitCode.DONE, damage)


def report_facts(found: Report) -> dict[str, Any]:
    """Return the report as ``--json`` prints it."""
    return {
        **{field.name: getattr(found, field.name) for field in dataclasses.fields(found)},
        "failed": [{"key": key, "reason": reason} for key, reason in found.failed],
        "total": {name: found.total(name) for name in _TOTALS},
    }


def print_report(found: Report) -> None:
    """Print the sums, then the shards that are farthest from their promise."""
    show.line(
        f"{len(found.shards):,} of {show.count(found.shards_planned, 'shard')} done, with "
        f"{show.count(sum(shard.samples for shard in found.shards), 'sample')}."
    )
    _print_lists(found)
    if not found.shards:
        show.line("Nothing to compare yet.")
        return
    show.table(("these shards", ">promised", ">became", ">promised / became"), _rows(found))
    show.line(
        "MB/s: of voxels as the sources hold them, a CPU second, checks and re-read included. "
        "Time: as long\nas any of these shards was under way. Peak disk was not observed: it is "
        "what records and journals\nadd up to, each shard counted whole from its beginning, "
        "scratch files aside."
    )
    _print_farthest(found)
    show.line(f"Voxels are: {_counts(found.intensities)}.")
    if found.predicted_intensities:
        show.line(f"Of those probed: {_counts(found.predicted_intensities)}.")
    show.some((f"  failed, source kept: {key}: {why}" for key, why in found.failed), _NAMED)
    freed = show.size(found.freed_bytes)
    show.line(f"Deleted {show.count(found.deleted_files, 'source file')}, {freed} freed.")
    attempts = found.attempts
    ended = ", ".join(f"{number} {how}" for how, number in attempts.ended.items()) or "none"
    show.line(
        f"{show.count(attempts.attempts, 'attempt')} ({ended}), "
        f"{_seconds(attempts.elapsed_s)} in all, "
        f"at most {show.size(attempts.max_rss_bytes)} of memory in one process."
    )


def _print_lists(found: Report) -> None:
    """Print the lists of volumes of each generation; nothing if none had any."""
    if not found.unrecorded_lists and not any(one.lists for one in found.lists):
        return
    for one in found.lists:
        unrecorded = found.unrecorded_lists.get(one.generation, ())
        told = [each.described for each in one.lists]
        told += [f"--exclude_file {name}: {NOT_RECORDED}" for name in unrecorded]
        for text in told or ["none"]:
            show.line(f"List of generation {one.generation}: {text}")


def _rows(found: Report) -> list[tuple[str, str, str, str]]:
    source_bytes = found.total("source_bytes") or 0.0
    array_bytes = found.total("array_bytes") or 0.0
    promised, became = found.total("predicted_bytes") or 0.0, found.total("output_bytes") or 0.0
    promised_cpu_s, cpu_s = found.total("predicted_cpu_s"), found.total("cpu_s") or 0.0
    promised_error = found.predicted_max_error_hu
    rows = [
        ("bytes out", show.size(promised), show.size(became), _ratio(promised, became)),
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
        *rows,
        (
            "CPU",
            _seconds(expected_s) if probed else "not probed",
            _seconds(cpu_s),
            _ratio(expected_s, cpu_s) if probed else "",
        ),
        (
            "MB/s a core",
            _speed(array_bytes, expected_s) if probed else "not probed",
            _speed(array_bytes, cpu_s),
            "",
        ),
        _time_row(found),
        (
            f"peak disk, {show.count(found.workers, 'worker')}",
            f"+ {show.size(found.predicted_peak_extra_bytes)}",
            f"+ {show.size(found.recorded_peak_extra_bytes)}",
            "",
        ),
    ]


def _time_row(found: Report) -> tuple[str, str, str, str]:
    promised_s, name = found.predicted_wall_s, f"time, {show.count(found.workers, 'worker')}"
    if promised_s is None:
        return (name, "not probed", _seconds(found.wall_s), "")
    short = max(shard.elapsed_s for shard in found.shards) < _COMPARABLE_S
    ratio = "too short to tell" if short else _ratio(promised_s, found.wall_s)
    return (name, _seconds(promised_s), _seconds(found.wall_s), ratio)


def _print_farthest(found: Report) -> None:
    """Print the shards that are farthest from their promise.

    Those in which samples failed are smaller than promised, so the table has the number of
    failures.
    """
    far = sorted(found.shards, key=_distance, reverse=True)[:_NAMED]
    show.table(
        ("farthest from it", ">samples", ">failed", ">promised", ">became", ">promised / became"),
        [
            (
                f"shard-{shard.shard:06d}",
                shard.samples,
                shard.failed,
                show.size(shard.predicted_bytes),
                show.size(shard.output_bytes),
                _ratio(shard.predicted_bytes, shard.output_bytes),
            )
            for shard in far
        ],
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else show.duration(seconds)


def _distance(shard: ShardFacts) -> float:
    return abs(shard.predicted_bytes - shard.output_bytes) / max(1, shard.predicted_bytes)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items())) or "unknown"


def _ratio(promised: float, became: float) -> str:
    return f"{promised / became:.3f}" if became else "–"


def _over(one: float, other: float) -> str:
    return f"{one / other:.2f}×" if other else "–"


def _speed(size_bytes: float, cpu_s: float) -> str:
    return f"{size_bytes / cpu_s / 1e6:,.0f}" if cpu_s else "–"
