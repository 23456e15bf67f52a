"""The command ``ctrate-convert merge``."""

from __future__ import annotations

from pathlib import Path

import click

from ctrate_convert.checking.damage import find_damage
from ctrate_convert.cli import options, show
from ctrate_convert.cli.damage import print_damage, with_damage
from ctrate_convert.cli.run import print_states
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.merger import manifest_summary, merge
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.manifest import GIB, MIB


@click.command("merge")
@options.out_argument
@options.json_option
def command(out: Path, as_json: bool) -> int:
    """Bring OUT/manifest.json up to date with all records. Safe at any time, and repeatable.

    \b
    Example:
      ctrate-convert merge /data/shards
    """
    dataset = Dataset(out)
    plans = require_plans(dataset)
    dataset.prepare()
    manifest = merge(dataset, plans)
    damage = find_damage(Ledger(dataset, plans))
    if as_json:
        show.as_json({**manifest_summary(manifest), "damage": damage})
    else:
        show.line(
            f"{dataset.manifest}: {show.count(manifest.num_shards, 'shard')}, "
            f"{show.count(manifest.total_samples, 'sample')}, "
            f"{show.size(manifest.total_size_gb * GIB)}, "
            f"{show.size(manifest.average_sample_size_mb * MIB)} a sample."
        )
        print_states(manifest)
        print_damage(damage)
    return with_damage(ExitCode.DONE, damage)
