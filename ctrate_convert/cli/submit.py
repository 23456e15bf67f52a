"""The command ``ctrate-convert submit``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ctrate_convert.cli import options
from ctrate_convert.cli.ask import ask, refuse_without_terminal
from ctrate_convert.cli.cluster import code_of, print_submitted, profile_options, settings_given
from ctrate_convert.cli.run import proposal_of, say_that_plans_keep
from ctrate_convert.cluster.scheduler.profile import ClusterProfile, load_profile
from ctrate_convert.cluster.submit import submit
from ctrate_convert.running.delete import require_deletable
from ctrate_convert.store.layout import Dataset


@click.command("submit")
@options.out_argument
@profile_options
@click.option("--dry_run", is_flag=True, help="Show the exact job scripts; submit nothing.")
@options.deletion_options
@options.json_option
def command(
    out: Path,
    profile: Path | None,
    dry_run: bool,
    delete_source_files: bool | None,
    discard_members: tuple[str, ...],
    yes: bool,
    as_json: bool,
    **values: Any,
) -> int:
    """Submit one array element per pending task to Slurm, and a job that reports at the end.

    Tasks that are live, from whatever terminal, are never submitted a second time. Where the plan
    proposes to delete sources the command asks first, unless --yes or --keep_source_files is given.

    \b
    Examples:
      ctrate-convert submit /data/shards --profile config/clusters/example.toml --dry_run
      ctrate-convert submit /data/shards --profile config/clusters/example.toml
    """
    dataset = Dataset(out)
    settings = load_profile(profile).overridden(settings_given(values))
    consent = ""
    if delete_source_files and not dry_run:
        say_that_plans_keep(dataset)
    if not dry_run and delete_source_files is not False:
        consent = _consent_to(dataset, settings, discard_members, yes=yes)
    done = submit(dataset, settings, dry_run=dry_run, consent=consent)
    print_submitted(dataset, done, as_json=as_json)
    return code_of(done)


def _consent_to(
    dataset: Dataset, settings: ClusterProfile, discard_members: Sequence[str], *, yes: bool
) -> str:
    """Ask for the tasks that are going to be submitted; return the consent's name, if any.

    A dry run comes first: what cannot be submitted is refused before anybody is asked, and the
    question counts the sources of these tasks alone.
    """
    if proposal_of(dataset, discard_members) is None:
        return ""
    refuse_without_terminal("submit", yes=yes)
    scripts = submit(dataset, settings, dry_run=True).scripts
    tasks = frozenset(task.number for script in scripts for task in script.tasks)
    proposal = proposal_of(dataset, discard_members, only_tasks=tasks)
    if proposal is None:
        return ""
    require_deletable(dataset, proposal)
    consent = ask(dataset, proposal, "submit", yes=yes)
    return consent.name if consent else ""
