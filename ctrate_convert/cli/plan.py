"""The command ``ctrate-convert plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ctrate_convert.cli import options, show
from ctrate_convert.cli.plan_progress import PlanProgress
from ctrate_convert.cli.plan_summary import (
    free_bytes,
    peak_bytes,
    print_excluded,
    print_ignored,
    print_summary,
)
from ctrate_convert.cli.probe_table import print_probe, probe_facts
from ctrate_convert.cli.sections import PlanCommand
from ctrate_convert.errors import ExitCode
from ctrate_convert.planning.make import PlanReport, make_plan
from ctrate_convert.planning.views.plan import plan_views
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_excluded, load_plans, require_plans


@click.command("plan", cls=PlanCommand)
@options.plan_options
@options.files_from_option
@options.view_options
@click.option("--dry_run", is_flag=True, help="Say what the plan would be; write nothing.")
@click.option("--details", is_flag=True, help="Name all that is left out, and each encoding.")
@click.option(
    "--show",
    "shown",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="OUT",
    help="Say again what the newest plan of OUT promises; plan nothing.",
)
@options.num_workers_option
@options.json_option
def command(
    num_workers: int,
    as_json: bool,
    files_from: Path | None,
    dry_run: bool,
    details: bool,
    shown: Path | None,
    **values: Any,
) -> int:
    """Find the volumes, join the tables, and freeze what goes into which shard and task.

    A later plan into the same directory adds what is new and touches nothing that is there.
    Time and peak disk are promised for --num_workers, on a cluster those of all elements that run
    at a time together; the plan itself does not depend on it.

    \b
    Example:
      ctrate-convert plan --data_folder /data/npz --reports_file train_reports.csv \\
        --meta_file train_metadata.csv --labels_file train_predicted_labels.csv \\
        --output_dir /data/shards
      ctrate-convert plan --view ctclip --from /data/shards --output_dir /data/ctclip
      ctrate-convert plan --show /data/shards --details
    """
    if shown is not None:
        return _show_again(Dataset(shown), num_workers, as_json=as_json, details=details)
    if values["view"] or values["from"]:
        return _plan_views(values, num_workers, as_json=as_json, details=details, dry_run=dry_run)
    for name in ("view", "from", "assume_axes"):
        values.pop(name)
    dataset, settings = options.plan_settings(values)
    with PlanProgress() as progress:
        report = make_plan(
            dataset,
            settings,
            progress,
            on_probe=progress.probed,
            spread=options.spread_over_cores,
            files_from=files_from,
            dry_run=dry_run,
        )
    if as_json:
        show.as_json(plan_facts(dataset, report, num_workers=num_workers))
        return ExitCode.DONE
    deleting = settings.delete_source_files
    print_plan(
        dataset,
        report,
        deleting=deleting,
        num_workers=num_workers,
        details=details,
        published=not dry_run,
    )
    if report.plan is None:
        print_ignored(load_plans(dataset)[-1], settings)
    else:
        _print_next(dataset, details=details, dry_run=dry_run)
    return ExitCode.DONE


def _plan_views(
    values: dict[str, Any], num_workers: int, *, as_json: bool, details: bool, dry_run: bool
) -> int:
    """Plan the views of a dataset."""
    dataset, settings = options.view_settings(values)
    with PlanProgress() as progress:
        reports = plan_views(dataset, settings, progress, on_probe=progress.probed, dry_run=dry_run)
    if as_json:
        facts = [plan_facts(dataset, report, num_workers=num_workers) for report in reports]
        show.as_json({"generations": facts})
        return ExitCode.DONE
    for report in reports:
        print_plan(
            dataset, report, deleting=False, num_workers=num_workers, details=details,
            published=not dry_run,
        )  # fmt: skip
    if any(report.plan for report in reports):
        _print_next(dataset, details=details, dry_run=dry_run)
    return ExitCode.DONE


def _print_next(dataset: Dataset, *, details: bool, dry_run: bool) -> None:
    if dry_run:
        show.say("Dry run: nothing was written. Next: the same command without --dry_run")
        return
    if not details:
        show.say(f"Details: ctrate-convert plan --show {dataset.out} --details")
    show.say(f"Next: ctrate-convert run {dataset.out}")


def _show_again(dataset: Dataset, num_workers: int, *, as_json: bool, details: bool) -> int:
    """Print the promises of the newest plan again."""
    plan = require_plans(dataset)[-1]
    excluded = load_excluded(dataset, plan)
    deleting = plan.settings.delete_source_files
    if as_json:
        show.as_json({"plan": plan.model_dump(exclude={"shards"}), "excluded": excluded})
        return ExitCode.DONE
    print_summary(dataset, plan, excluded, deleting=deleting, num_workers=num_workers)
    for one in plan.lists:
        show.line(f"List {one.described}")
    if details:
        print_excluded(excluded)
    print_probe(plan, deleting=deleting, num_workers=num_workers, table=details)
    return ExitCode.DONE


def plan_facts(dataset: Dataset, report: PlanReport, *, num_workers: int) -> dict[str, Any]:
    """Return the report as ``--json`` prints it."""
    plan = report.plan
    deleting = plan is not None and plan.settings.delete_source_files
    peak = peak_bytes(plan, num_workers, deleting=deleting) if plan else 0
    free = free_bytes(dataset.out)
    return {
        "plan": plan.model_dump(exclude={"shards"}) if plan else None,
        "shards": len(plan.shards) if plan else 0,
        "tasks": len(plan.tasks) if plan else 0,
        "volumes_found": report.volumes_found,
        "rows": report.rows,
        "already_planned": report.already_planned,
        "left_for_later": report.left_for_later,
        "lists": report.lists,
        "excluded": report.excluded,
        "warnings": report.warnings,
        "num_workers": num_workers,
        "peak_extra_bytes": peak,
        "free_bytes": free,
        "fits": peak <= free,
        "encodings": probe_facts(plan, num_workers) if plan else [],
    }


def print_plan(
    dataset: Dataset,
    report: PlanReport,
    *,
    deleting: bool,
    num_workers: int,
    details: bool = False,
    published: bool = True,
) -> None:
    """Print what the plan found and promises; with ``details``, everything by name."""
    plan = report.plan
    if plan is not None:
        print_summary(dataset, plan, report.excluded, deleting=deleting, num_workers=num_workers)
    if details or plan is None:
        found = ", ".join(f"{name} {rows:,}" for name, rows in report.rows.items())
        rows = f"; table rows: {found}" if found else ""
        show.line(f"Found {show.count(report.volumes_found, 'volume')}{rows}.")
        print_excluded(report.excluded)
    for one in report.lists:
        show.line(f"List {one.described}")
    if report.already_planned:
        show.line(f"Already planned: {show.count(report.already_planned, 'sample')}.")
    if report.left_for_later:
        show.line(f"Left for a later plan: {show.count(report.left_for_later, 'sample')}.")
    for warning in report.warnings:
        show.wrapped(f"Note: {warning}")
    if plan is None:
        show.say("Nothing new to plan.")
    else:
        print_probe(
            plan,
            deleting=deleting,
            num_workers=num_workers,
            table=details,
            published=published,
        )
