"""``ctrate-convert verify``."""

from __future__ import annotations

from pathlib import Path

import click

from ctrate_convert.cli import options, show
from ctrate_convert.operations.verify import VerifyReport, verify
from ctrate_convert.paths import Dataset

_NAMED = 50


@click.command("verify")
@options.out_argument
@click.option(
    "--num_samples",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Samples to check byte by byte, chosen at random.",
)
@click.option("--check_precision", is_flag=True, help="Compare voxels with the sources' voxels.")
@click.option("--full", is_flag=True, help="Read every shard whole instead of some samples.")
@options.num_workers_option
@options.json_option
def command(
    out: Path, num_samples: int, check_precision: bool, full: bool, num_workers: int, as_json: bool
) -> int:
    """Check the shards against their records, and against the sources that still exist.

    \b
    Examples:
      ctrate-convert verify /data/shards --num_samples 10 --check_precision
      ctrate-convert verify /data/shards --full
    """
    dataset = Dataset(out)
    report = verify(
        dataset,
        num_samples=num_samples,
        check_precision=check_precision,
        full=full,
        num_workers=num_workers,
    )
    if as_json:
        show.as_json(report)
    else:
        print_verify(dataset, report)
    return report.exit_code


def print_verify(dataset: Dataset, report: VerifyReport) -> None:
    """What was looked at, what was found."""
    show.line(
        f"{show.count(report.shards, 'shard')} with {show.count(report.samples, 'sample')}: "
        f"all present and sized as recorded, {report.shards_read_whole:,} read whole, "
        f"{report.samples_checked:,} samples checked byte by byte"
        if not report.damage
        else f"Looked at {show.count(report.shards, 'shard')}, "
        f"{report.samples_checked:,} samples byte by byte"
    )
    show.line(
        f"Compared with their sources: {report.compared_with_source:,}; with the recorded "
        f"digests alone: {report.compared_with_digest_only:,}."
    )
    for note in report.notes[:_NAMED]:
        show.line(f"Note: {note}")
    if report.precision:
        show.table(
            ("sample", ">max error", ">mean error", ">recorded max"),
            [
                (
                    p.key,
                    f"{p.max_abs_error:.6g}",
                    f"{p.mean_abs_error:.3g}",
                    f"{p.recorded_max_abs_error:.6g}",
                )
                for p in report.precision
            ],
        )
    if not report.damage:
        show.line("No damage found.")
        return
    show.line(f"DAMAGE, {show.count(len(report.damage), 'finding')}:")
    for damage in report.damage[:_NAMED]:
        at = f"{damage.shard}, {damage.key}" if damage.key else damage.shard
        show.line(f"  {at}: {damage.what}")
    if len(report.damage) > _NAMED:
        show.line(f"  … and {len(report.damage) - _NAMED:,} more (--json names all)")
    show.line(
        f"No source of a damaged shard can be deleted. Full list: --json. Where: {dataset.out}"
    )
