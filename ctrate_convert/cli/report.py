"""The command ``ctrate-convert report``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import click

from ctrate_convert.checking.damage import find_damage
from ctrate_convert.checking.promises import NOTE, ratio, rows
from ctrate_convert.checking.report import Report, ShardFacts, report
from ctrate_convert.cli import options, show
from ctrate_convert.cli.damage import print_damage, with_damage
from ctrate_convert.cli.report_page import require_a_place, write_page
from ctrate_convert.errors import ExitCode
from ctrate_convert.looking.words import seconds
from ctrate_convert.store.card import NOT_RECORDED
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger

_NAMED = 10

_TOTALS = (
    "samples", "source_bytes", "array_bytes", "predicted_bytes", "output_bytes",
    "predicted_cpu_s", "cpu_s", "elapsed_s",
)  # fmt: skip


@click.command("report")
@options.out_argument
@click.option(
    "--html",
    "page",
    is_flag=False,
    flag_value="report.html",
    metavar="[PATH]",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page instead, with charts and pictures, that asks no network: to report.html "
    "here, or to PATH outside the dataset. An earlier page is replaced, nothing else is.",
)
@options.json_option
def command(out: Path, page: Path | None, as_json: bool) -> int:
    """Compare what the plan promised with what the finished shards are.

    \b
    Examples:
      ctrate-convert report /data/shards
      ctrate-convert report /data/shards --html
    """
    ledger = Ledger.load(Dataset(out))
    if page is not None:
        require_a_place(page, ledger)
    damage = find_damage(ledger)
    verdict = None if page is None else write_page(page, ledger, damage)
    if as_json:
        show.as_json({**report_facts(report(ledger)), "damage": damage})
    elif page is not None:
        show.line(f"Wrote {page}: {verdict}")
    else:
        print_report(report(ledger))
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
    if found.view:
        show.wrapped(f"These are {found.view}.")
    show.line(
        f"{len(found.shards):,} of {show.count(found.shards_planned, 'shard')} done, with "
        f"{show.count(sum(shard.samples for shard in found.shards), 'sample')}."
    )
    _print_lists(found)
    if not found.shards:
        show.line("Nothing to compare yet.")
        return
    show.table(("these shards", ">promised", ">became", ">promised / became"), rows(found))
    show.line(NOTE)
    _print_farthest(found)
    show.line(f"Voxels are: {_counts(found.intensities)}.")
    if found.predicted_intensities:
        show.line(f"Of those probed: {_counts(found.predicted_intensities)}.")
    failed = "failed" if found.view else "failed, source kept"
    show.some((f"  {failed}: {key}: {why}" for key, why in found.failed), _NAMED)
    freed = show.size(found.freed_bytes)
    show.line(f"Deleted {show.count(found.deleted_files, 'source file')}, {freed} freed.")
    attempts = found.attempts
    ended = ", ".join(f"{number} {how}" for how, number in attempts.ended.items()) or "none"
    show.line(
        f"{show.count(attempts.attempts, 'attempt')} ({ended}), "
        f"{seconds(attempts.elapsed_s)} in all, "
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
                ratio(shard.predicted_bytes, shard.output_bytes),
            )
            for shard in far
        ],
    )


def _distance(shard: ShardFacts) -> float:
    return abs(shard.predicted_bytes - shard.output_bytes) / max(1, shard.predicted_bytes)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items())) or "unknown"
