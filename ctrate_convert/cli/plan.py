"""The command ``ctrate-convert plan``."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import click

from ctrate_convert.cli import options, show
from ctrate_convert.cli.plan_progress import PlanProgress
from ctrate_convert.cli.probe_table import print_probe, probe_facts
from ctrate_convert.cli.sections import PlanCommand
from ctrate_convert.errors import ExitCode
from ctrate_convert.planning.estimate import peak_extra_bytes
from ctrate_convert.planning.make import PlanReport, make_plan
from ctrate_convert.planning.run_estimate import busy_workers
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.plan import Plan

_NAMED = 10


@click.command("plan", cls=PlanCommand)
@options.plan_options
@options.files_from_option
@options.num_workers_option
@options.json_option
def command(num_workers: int, as_json: bool, files_from: Path | None, **values: Any) -> int:
    """Find the volumes, join the tables, and freeze what goes into which shard and task.

    A later plan into the same directory adds what is new and touches nothing that is there.
    Time and peak disk are promised for --num_workers, on a cluster those of all elements that run
    at a time together; the plan itself does not depend on it.

    \b
    Example:
      ctrate-convert plan --data_folder /data/npz --reports_file train_reports.csv \\
        --meta_file train_metadata.csv --labels_file train_predicted_labels.csv \\
        --output_dir /data/shards
    """
    dataset, settings = options.plan_settings(values)
    with PlanProgress() as progress:
        report = make_plan(
            dataset, settings, progress, spread=options.spread_over_cores, files_from=files_from
        )
    if as_json:
        show.as_json(plan_facts(dataset, report, num_workers=num_workers))
    else:
        deleting = settings.delete_source_files
        print_plan(dataset, report, deleting=deleting, num_workers=num_workers)
        if report.plan:
            print_probe(report.plan, deleting=deleting, num_workers=num_workers)
        if report.plan:
            show.line(f"\nNext: ctrate-convert run {dataset.out}")
    return ExitCode.DONE


def free_bytes(folder: Path) -> int:
    """Return the free bytes where ``folder`` is, or is going to be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def plan_facts(dataset: Dataset, report: PlanReport, *, num_workers: int) -> dict[str, Any]:
    """Return the report as ``--json`` prints it."""
    plan = report.plan
    peak = _peak(plan, plan.settings.delete_source_files, num_workers) if plan else 0
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
        "free_bytes": free_bytes(dataset.out),
        "encodings": probe_facts(plan, num_workers) if plan else [],
    }


def _peak(plan: Plan, deleting: bool, num_workers: int) -> int:
    workers = busy_workers(plan, num_workers)
    return peak_extra_bytes(plan.shards, deleting=deleting, workers=workers)


def print_plan(dataset: Dataset, report: PlanReport, *, deleting: bool, num_workers: int) -> None:
    """Print what the plan found, name what it leaves out, and print its estimate."""
    found = ", ".join(f"{name} {rows:,}" for name, rows in report.rows.items())
    show.line(f"Found {show.count(report.volumes_found, 'volume')}; table rows: {found}.")
    if report.plan:
        show.line(_sources_words(report.plan))
    for one in report.lists:
        show.line(f"List {one.described}")
    _print_excluded(report)
    for warning in report.warnings:
        show.line(f"Note: {warning}")
    if report.already_planned:
        show.line(f"Already planned: {show.count(report.already_planned, 'sample')}.")
    if report.left_for_later:
        show.line(f"Left for a later plan: {show.count(report.left_for_later, 'sample')}.")
    plan = report.plan
    if plan is None:
        show.line("Nothing new to plan.")
        return
    free = free_bytes(dataset.out)
    estimate = plan.estimate
    workers = show.count(busy_workers(plan, num_workers), "worker")
    peak = _peak(plan, deleting, num_workers)
    show.line(f"\nPlan {plan.plan_id[:12]} (generation {plan.generation})")
    show.table(
        ("promises", ">"),
        [
            ("samples", f"{plan.samples:,}"),
            ("shards", f"{len(plan.shards):,}"),
            ("tasks", f"{len(plan.tasks):,}"),
            ("bytes in", show.size(estimate.source_bytes)),
            ("bytes out", show.size(estimate.output_bytes)),
            ("largest volume", show.size(estimate.largest_volume_bytes)),
            (f"peak disk, {workers}", f"+ {show.size(peak)}"),
            ("free at the output", show.size(free)),
        ],
    )
    if peak > free:
        show.line(
            "WARNING: that is more than what is free at the output; `run` does not begin what"
            " certainly does not fit, unless --min_free_gb lets it pause for space."
            + ("" if deleting else " --delete_source_files frees space along the way.")
        )


def _sources_words(plan: Plan) -> str:
    """Return a sentence that says what the plan means for the sources."""
    settings = plan.settings
    if not settings.delete_source_files:
        return "Sources are KEPT: this plan deletes nothing."
    fate = f"moving to {settings.trash}" if settings.trash else "deletion"
    discarded = ", ".join(settings.discard_members)
    return f"Sources are proposed for {fate}: `run` and `submit` ask before they delete." + (
        f" Discarded with them: {discarded}." if discarded else ""
    )


def _print_excluded(report: PlanReport) -> None:
    by_reason = Counter(entry.reason for entry in report.excluded)
    for reason, number in sorted(by_reason.items()):
        show.line(f"Left out, {reason.replace('_', ' ')}: {number:,}")
        entries = [entry for entry in report.excluded if entry.reason == reason]
        show.some(
            (f"  {one.key}" + (f" ({one.detail})" if one.detail else "") for one in entries), _NAMED
        )
