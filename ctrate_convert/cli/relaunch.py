"""The command ``ctrate-convert relaunch``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ctrate_convert.cli import options, show
from ctrate_convert.cli.cluster import code_of, print_submitted, profile_options, settings_given
from ctrate_convert.cluster.failed_samples import failed_samples, plan_failed_samples
from ctrate_convert.cluster.relaunch import MAX_ATTEMPTS, latest_profile, relaunch
from ctrate_convert.cluster.scheduler.profile import load_profile
from ctrate_convert.errors import SettingsError
from ctrate_convert.store.layout import Dataset


@click.command("relaunch")
@options.out_argument
@profile_options
@click.option("--dry_run", is_flag=True, help="Show the exact job scripts; submit nothing.")
@click.option("--include_unknown", is_flag=True, help="Also tasks of which nothing is known.")
@click.option(
    "--failed_samples",
    "retry_samples",
    is_flag=True,
    help="Also samples that failed by their own fault; they go to new shards.",
)
@click.option("--keep_source_files", is_flag=True, help="Delete no source; this always wins.")
@click.option(
    "--until_done",
    is_flag=True,
    help="Relaunch again and again by itself what more memory, more time or another node mends.",
)
@click.option(
    "--max_attempts",
    type=click.IntRange(min=1),
    help="With --until_done: how often a task is submitted at most; without it 5 times.",
)
@options.json_option
def command(
    out: Path,
    profile: Path | None,
    dry_run: bool,
    include_unknown: bool,
    retry_samples: bool,
    keep_source_files: bool,
    until_done: bool,
    max_attempts: int | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Submit again only what failed, with more of what it ran out of.

    Out of memory gets more memory, out of time more time, a failed node is avoided; everything
    else goes as before. What is done or live is never touched. Nobody is asked: sources go only
    under the consent that the task was first submitted with, and not with --keep_source_files.

    With --until_done the finaliser does this again after each round, until all is done or only a
    person can help; `history` has every round.

    \b
    Examples:
      ctrate-convert relaunch /data/shards --dry_run
      ctrate-convert relaunch /data/shards
      ctrate-convert relaunch /data/shards --until_done --max_attempts 4
    """
    if max_attempts is not None and not until_done:
        raise SettingsError("--max_attempts goes with --until_done")
    dataset = Dataset(out)
    given = settings_given(values)
    settings = (load_profile(profile) if profile else latest_profile(dataset)).overridden(given)
    new_tasks: frozenset[int] = frozenset()
    # A dry run publishes no plan for them, so it only counts them.
    if retry_samples and dry_run:
        keys = failed_samples(dataset)
        if not as_json:
            show.line(f"{show.count(len(keys), 'failed sample')} would be planned into new shards.")
    elif retry_samples:
        new_tasks = plan_failed_samples(dataset)
    done = relaunch(
        dataset,
        settings,
        given=given,
        dry_run=dry_run,
        include_unknown=include_unknown,
        also=new_tasks,
        keep_sources=keep_source_files,
        max_attempts=(max_attempts or MAX_ATTEMPTS) if until_done else 0,
    )
    print_submitted(dataset, done, as_json=as_json)
    return code_of(done)
