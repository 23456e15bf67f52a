"""The command ``ctrate-convert run``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ctrate_convert.checking.damage import find_damage
from ctrate_convert.cli import options, show
from ctrate_convert.cli.ask import ask, refuse_without_terminal
from ctrate_convert.cli.damage import print_aside, print_damage, with_damage
from ctrate_convert.cli.deleted import print_deleted, print_not_deleted
from ctrate_convert.cli.folding import folded, print_shard_errors
from ctrate_convert.cli.language import amount
from ctrate_convert.cli.progress import RunProgress
from ctrate_convert.cli.stopping import print_stopped, stoppable
from ctrate_convert.cluster.states.hold import tasks_here
from ctrate_convert.deleting.proposal import Proposal, one_trash, propose
from ctrate_convert.deleting.source_states import candidates, refuse_views, survey
from ctrate_convert.errors import ExitCode
from ctrate_convert.running.delete import require_deletable
from ctrate_convert.running.result import RunResult
from ctrate_convert.running.run import Crew, run_pending
from ctrate_convert.running.space import SpaceWatch
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.manifest import GIB, Manifest


@click.command("run")
@options.out_argument
@options.num_workers_option
@options.min_free_option
@click.option(
    "--task",
    "tasks",
    multiple=True,
    type=click.IntRange(min=0),
    help="Only this task of the plan; may be repeated.",
)
@click.option(
    "--ignore_submissions",
    is_flag=True,
    help="Do not ask Slurm which tasks are live: for where it is gone for good.",
)
@options.deletion_options
@options.json_option
def command(
    out: Path,
    num_workers: int,
    min_free_gb: float,
    tasks: tuple[int, ...],
    ignore_submissions: bool,
    delete_source_files: bool | None,
    discard_members: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> int:
    """Convert all that is pending in OUT, here. The same command goes on where it stopped.

    Tasks that a Slurm job is at, or is going to be, are left to it. Where the plan proposes to
    delete sources the command asks first, unless --yes or --keep_source_files is given.

    \b
    Examples:
      ctrate-convert run /data/shards --num_workers 16
      ctrate-convert run /data/shards --task 17
    """
    dataset = Dataset(out)
    only_tasks = frozenset(tasks) or None
    consent = None
    if delete_source_files is not False:
        proposal = proposal_of(dataset, discard_members, only_tasks=only_tasks)
        if proposal:
            refuse_without_terminal("run", yes=yes)
            require_deletable(dataset, proposal)
            consent = ask(dataset, proposal, "run", yes=yes)
        elif delete_source_files:
            say_that_plans_keep(dataset)
    return convert_pending(
        dataset,
        num_workers=num_workers,
        min_free_gb=min_free_gb,
        as_json=as_json,
        consent=consent,
        only_tasks=only_tasks,
        ignore_submissions=ignore_submissions,
    )


def proposal_of(
    dataset: Dataset,
    discard_members: Sequence[str] = (),
    *,
    only_tasks: frozenset[int] | None = None,
    trash: str | None = None,
) -> Proposal | None:
    """Return what the plans propose to delete; None if none proposes it, or nothing is left.

    ``trash`` is the one that the command names; without it, the plans' own one holds.

    A plan made without --delete_source_files proposes nothing, and nothing can change that: only
    `ctrate-convert delete` deletes its sources.
    """
    plans = load_plans(dataset)
    proposing = [plan for plan in plans if plan.settings.delete_source_files]
    if not proposing:
        return None
    ids = {plan.plan_id for plan in proposing}
    sources = survey(dataset, plans)
    chosen = [
        one
        for one in candidates(sources, plans, pending=True)
        if one.plan.plan_id in ids and (only_tasks is None or one.task in only_tasks)
    ]
    discarded = {name for plan in proposing for name in plan.settings.discard_members}
    return propose(
        chosen,
        discard_members=sorted(discarded | set(discard_members)),
        trash=trash or one_trash(proposing),
    )


def say_that_plans_keep(dataset: Dataset) -> None:
    """Say why --delete_source_files deletes nothing, if no plan proposes it."""
    plans = load_plans(dataset)
    refuse_views(dataset, plans)
    if not any(plan.settings.delete_source_files for plan in plans):
        show.note(
            "Note: sources are kept: the plan was made without --delete_source_files, and a no "
            f"always wins. `ctrate-convert delete {dataset.out}` can let them go afterwards."
        )


def convert_pending(
    dataset: Dataset,
    *,
    num_workers: int,
    min_free_gb: float,
    as_json: bool,
    consent: Consent | None = None,
    only_tasks: frozenset[int] | None = None,
    ignore_submissions: bool = False,
) -> int:
    """Convert what is pending, print the report, and return the exit code."""
    tasks, job = tasks_here(dataset, only_tasks, ignore_submissions=ignore_submissions)
    if tasks.leave:
        show.note(f"{show.count(len(tasks.leave), 'task')} left to Slurm, where they are live.")
    with RunProgress() as progress, stoppable() as stop:
        space = SpaceWatch(dataset.out, round(min_free_gb * GIB), progress.paused)
        result, manifest = run_pending(
            dataset,
            Crew(num_workers, stop, job, may_start=space.may_start, on_change=progress),
            tasks=tasks,
            consent=consent,
            # With a limit on free space the run may wait for space instead.
            must_fit=not min_free_gb,
            warn=progress.warn,
        )
    ledger = Ledger.load(dataset)
    damage = find_damage(ledger)
    if as_json:
        show.as_json({**run_facts(result, manifest), "damage": damage})
    else:
        of_views = any(plan.settings.view for plan in ledger.plans)
        print_run(dataset, result, manifest, of_views=of_views)
        print_aside(dataset)
        print_damage(damage)
    return with_damage(result.exit_code, damage)


def run_facts(result: RunResult, manifest: Manifest) -> dict[str, Any]:
    """Return the report as ``--json`` prints it."""
    return {
        "exit_code": int(result.exit_code),
        "stopped_by": result.stopped_by,
        "converted": result.converted,
        "failed_samples": [{"key": key, "reason": reason} for key, reason in result.failed_samples],
        "failed_shards": {
            index: failure.error.one_line() for index, failure in result.failed_shards.items()
        },
        "busy_shards": result.busy_shards,
        "deleted_files": result.deletion.deleted_files,
        "freed_bytes": result.deletion.freed_bytes,
        "trashed_files": result.deletion.trashed_files,
        "trashed_bytes": result.deletion.trashed_bytes,
        "kept": result.deletion.kept,
        "output_bytes": result.output_bytes,
        "elapsed_s": round(result.elapsed_s, 3),
        "samples": manifest.samples,
    }


def print_run(dataset: Dataset, result: RunResult, manifest: Manifest, *, of_views: bool) -> None:
    """Print what happened, what is left, and the next command."""
    seconds = max(result.elapsed_s, 1e-6)
    if result.shards_total:
        show.line(
            f"Converted {show.count(result.converted, 'sample')} in {show.duration(seconds)} "
            f"({show.speed(result.array_bytes / seconds)} of voxels), "
            f"{show.size(result.output_bytes)} written."
        )
    else:
        show.line("Nothing was pending.")
    if result.failed_before > 0:
        show.line(f"{show.count(result.failed_before, 'sample')} failed in an earlier run.")
    failed = "failed" if of_views else "failed, source kept"
    show.some(folded(failed, result.failed_samples, "sample"))
    print_shard_errors([(index, one.error) for index, one in result.failed_shards.items()])
    if result.busy_shards:
        show.line(f"{show.count(len(result.busy_shards), 'shard')} left to another process.")
    deletion = result.deletion
    if deletion.deleted_files or deletion.trashed_files or deletion.kept:
        print_deleted(deletion)
        print_not_deleted(len(deletion.kept) + len(result.failed_samples))
        show.some(folded("kept", ((one.key, one.reason) for one in deletion.kept), "sample"))
    print_states(manifest)
    print_next(dataset, result, manifest)


def print_states(manifest: Manifest) -> None:
    """Print the number of planned samples in each state; the numbers add up."""
    states = manifest.samples
    parts = " + ".join(
        amount(states[state], state) for state in ("converted", "failed", "pending", "excluded")
    )
    show.say(f"Samples: {parts} = {states['total']:,}.")


def print_next(dataset: Dataset, result: RunResult, manifest: Manifest) -> None:
    """Print the command that a user gives now."""
    if result.stopped_by:
        print_stopped(result)
    elif manifest.samples["pending"]:
        show.say(f"Next: ctrate-convert run {dataset.out}")
    elif result.exit_code in (ExitCode.DONE, ExitCode.SAMPLES_FAILED):
        show.say(f"Next: ctrate-convert verify {dataset.out}")
