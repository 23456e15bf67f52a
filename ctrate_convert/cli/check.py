"""The command ``ctrate-convert check``: the original's name for `verify`."""

from __future__ import annotations

from pathlib import Path

import click

from ctrate_convert.checking.reading_speed import reading_speed
from ctrate_convert.checking.verify import verify
from ctrate_convert.cli import options, show
from ctrate_convert.cli.bar import ShardBar
from ctrate_convert.cli.verify import print_verify
from ctrate_convert.store.layout import Dataset


@click.command("check")
@click.option(
    "--webdataset_dir",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The dataset directory.",
)
@click.option("--num_samples", type=click.IntRange(min=0), default=10, show_default=True)
@click.option("--check_precision", is_flag=True, help="Compare voxels with the sources' voxels.")
@click.option("--benchmark", is_flag=True, help="Also measure how fast the shards are read.")
@options.num_workers_option
def command(
    webdataset_dir: Path, num_samples: int, check_precision: bool, benchmark: bool, num_workers: int
) -> int:
    """The original's check; the same as `verify`, with its option names.

    \b
    Example:
      ctrate-convert check --webdataset_dir /data/shards --num_samples 10 --check_precision
    """
    dataset = Dataset(webdataset_dir)
    with ShardBar("check") as bar:
        report = verify(
            dataset,
            num_samples=num_samples,
            check_precision=check_precision,
            full=False,
            num_workers=num_workers,
            on_shard=bar,
        )
    print_verify(dataset, report)
    if benchmark:
        speed = reading_speed(dataset)
        show.line(
            f"Reading with webdataset, one process: {speed.samples_per_s:.1f} samples/s, "
            f"{show.speed(speed.bytes_per_s)} ({show.count(speed.samples, 'sample')})."
        )
    return report.exit_code
