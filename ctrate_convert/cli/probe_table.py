"""Print what each encoding would make of a plan's volumes, as the probe showed."""

from __future__ import annotations

import dataclasses
from typing import Any

from ctrate_convert.cli import show
from ctrate_convert.planning.run_estimate import RunEstimate, busy_workers, run_estimates
from ctrate_convert.store.records.plan import Plan, Probe


def probe_facts(plan: Plan, num_workers: int) -> list[dict[str, Any]]:
    """Return the table as ``--json`` prints it."""
    deleting = plan.settings.delete_source_files
    workers = {"num_workers": num_workers, "busy_workers": busy_workers(plan, num_workers)}
    return [
        {**dataclasses.asdict(row), "options": row.options, **workers}
        for row in run_estimates(plan, num_workers=num_workers, deleting=deleting)
    ]


def print_probe(
    plan: Plan, *, deleting: bool, num_workers: int, table: bool, published: bool = True
) -> None:
    """Say what to choose instead of the plan's way; with ``table``, what each way would make.

    A plan that is ``published`` keeps its way: another one needs an output of its own.
    """
    probe = plan.probe
    if probe is None:
        return
    rows = run_estimates(plan, num_workers=num_workers, deleting=deleting)
    if table:
        _print_table(plan, probe, rows, num_workers)
        show.line(f"→ is this plan: {next(row for row in rows if row.chosen).options}.")
    else:  # what this very plan is going to fail at is told in any case
        _print_failures([row for row in rows if row.chosen])
    _print_advice(rows, published=published or plan.generation > 0)


def _print_table(plan: Plan, probe: Probe, rows: list[RunEstimate], num_workers: int) -> None:
    workers = show.count(busy_workers(plan, num_workers), "worker")
    unreadable = f"; {probe.unreadable} could not be converted" if probe.unreadable else ""
    show.line(
        f"\nEach way to store the volumes, tried on {show.count(probe.volumes, 'volume')} of "
        f"{plan.samples:,}{unreadable}:"
    )
    show.table(
        (
            " ", "encoding", "array", ">whole set", ">times smaller", ">max error",
            ">MB/s a core", f">time, {workers}", ">peak disk",
        ),
        [_cells(row) for row in rows],
    )  # fmt: skip
    show.line(
        "Times smaller: than the sources on disk. Max error: in HU, of any probed voxel. MB/s: of "
        "voxels as the\nsources hold them, checks and re-read included. Time and peak disk: for "
        f"--num_workers {num_workers}{_most(plan, num_workers)}.\nTime: where each of them has a "
        "core to itself and storage keeps up with all."
    )
    _print_failures(rows)
    if probe.integer_volumes and plan.settings.layout == "webdataset":
        show.line(
            "float16 saves nothing where the source is integers of two bytes: it is as large as "
            "int16, and not exact."
        )


def _print_failures(rows: list[RunEstimate]) -> None:
    """Print each reason once, with the ways that fail for it."""
    ways: dict[str, list[str]] = {}
    for row in rows:
        if row.failure:
            ways.setdefault(row.failure, []).append(row.options)
    for reason, options in ways.items():
        show.line(f"fails with {' and '.join(options)}: {reason}.")


def _most(plan: Plan, num_workers: int) -> str:
    busy = busy_workers(plan, num_workers)
    return f", of which {busy} find a shard" if busy < num_workers else ""


def _cells(row: RunEstimate) -> tuple[str, ...]:
    array = row.dtype + (f", step {row.step:g}" if row.step else "")
    mark = "→" if row.chosen else "+" if row.advised else ""
    if row.failure:
        return (mark, row.encoding, array, "fails", *([""] * 5))
    return (
        mark,
        row.encoding,
        array,
        show.size(row.output_bytes),
        f"{row.times_smaller:.2f}×",
        f"{row.max_error_hu:.3g}",
        f"{row.mb_per_s:,.0f}",
        show.duration(row.hours * 3600),
        f"+ {show.size(row.peak_extra_bytes)}",
    )


def _print_advice(rows: list[RunEstimate], *, published: bool) -> None:
    chosen = next(row for row in rows if row.chosen)
    advised = next((row for row in rows if row.advised), None)
    if advised is not None and not advised.chosen:
        saved = 1 - advised.output_bytes / max(1, chosen.output_bytes)
        where = "; for that, plan into a new --output_dir" if published else ""
        show.wrapped(
            f"+ is what would be chosen: {advised.options} ({saved:.0%} smaller than this plan)"
            f"{where}."
        )
