"""The command ``ctrate-convert submit``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ctrate_convert.cli import options, show
from ctrate_convert.cli.ask import ask, refuse_without_terminal
from ctrate_convert.cli.cluster import profile_options, settings_given
from ctrate_convert.cli.run import proposal_of, say_that_plans_keep
from ctrate_convert.cluster.scheduler.profile import ClusterProfile, load_profile
from ctrate_convert.cluster.states.status import fold_numbers
from ctrate_convert.cluster.submit import Submitted, submit
from ctrate_convert.errors import ExitCode
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
    return ExitCode.DONE


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


def print_submitted(dataset: Dataset, done: Submitted, *, as_json: bool) -> None:
    """Print what was submitted, or would be."""
    if as_json:
        show.as_json(_facts(done))
        return
    if done.number is None:
        _print_scripts(done)
    for script, job_id in zip(done.scripts, done.job_ids, strict=False):
        what = show.count(len(script.tasks), "task") if script.tasks else "finaliser"
        show.line(f"Job {job_id}: {what} ({script.why}), {script.resources.words()}.")
    for note in done.notes:
        show.line(f"Note: {note}")
    if done.number is not None:
        show.line(f"Next: ctrate-convert status {dataset.out} --watch")


def _print_scripts(done: Submitted) -> None:
    for script in done.scripts:
        show.line(f"--- {script.job_name} ({script.why})")
        show.line(script.text)
        for index, task in enumerate(script.tasks):
            samples = sum(shard.samples for shard in task.shards)
            size = show.size(sum(shard.source_bytes for shard in task.shards))
            names = ", ".join(shard.name for shard in task.shards)
            show.line(f"element {index}: task {task.number}, {samples} samples, {size}: {names}")
        show.line()
    arrays = sum(1 for script in done.scripts if script.tasks)
    tasks = sum(len(script.tasks) for script in done.scripts)
    show.line(
        f"Dry run, nothing submitted: {show.count(arrays, 'array')}, {show.count(tasks, 'task')}, "
        "and a finaliser."
    )


def _facts(done: Submitted) -> dict[str, Any]:
    return {
        "submission": done.number,
        "arrays": [
            {
                "job": done.job_ids[place] if place < len(done.job_ids) else None,
                "name": script.job_name,
                "why": script.why,
                "tasks": fold_numbers([task.number for task in script.tasks]),
                "resources": script.resources,
                "script": script.text,
            }
            for place, script in enumerate(done.scripts)
        ],
        "notes": done.notes,
    }
