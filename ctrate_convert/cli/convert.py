"""``ctrate-convert convert``: the original's one command, with all its options."""

from __future__ import annotations

import sys
from typing import Any

import click

from ctrate_convert.cli import options, show
from ctrate_convert.cli.plan import print_plan
from ctrate_convert.cli.probe_table import print_probe
from ctrate_convert.cli.run import convert_pending
from ctrate_convert.conversion.planning import make_plan
from ctrate_convert.errors import RefusedError
from ctrate_convert.operations.pending import load
from ctrate_convert.operations.sources import survey
from ctrate_convert.paths import Dataset

DELETE_WORD = "DELETE"


@click.command("convert")
@options.plan_options
@options.num_workers_option
@options.min_free_option
@options.yes_option
@options.json_option
def command(num_workers: int, min_free_gb: float, yes: bool, as_json: bool, **values: Any) -> int:
    """Plan, convert and, with --delete_source_files, delete along the way, in one command.

    A source is deleted only after its shard was read back from storage and proven.

    \b
    Example:
      ctrate-convert convert --data_folder /data/npz --reports_file train_reports.csv \\
        --meta_file train_metadata.csv --labels_file train_predicted_labels.csv \\
        --output_dir /data/shards --samples_per_shard 100 --num_workers 16
    """
    deleting = bool(values["delete_source_files"])
    if deleting and not yes and not sys.stdin.isatty():
        raise RefusedError(
            "--delete_source_files asks before it deletes, and there is no terminal to ask at",
            next_command="add --yes to the same command, or leave --delete_source_files out",
        )
    # The plan itself authorises deletion only where nobody is left to be asked.
    dataset, settings = options.plan_settings(
        values | {"delete_source_files": deleting and yes}, deleting=deleting
    )
    report = make_plan(dataset, settings)
    if not as_json:
        print_plan(dataset, report, deleting=deleting, num_workers=num_workers)
        if report.plan:
            print_probe(report.plan, deleting=deleting, num_workers=num_workers)
        show.line()
    authorised_by = None
    if deleting:
        authorised_by = (
            "convert --delete_source_files --yes" if yes else _ask(dataset, settings.trash)
        )
    return convert_pending(
        dataset,
        num_workers=num_workers,
        min_free_gb=min_free_gb,
        as_json=as_json,
        authorised_by=authorised_by,
        trash=options.trash_folder(settings.trash),
    )


def _ask(dataset: Dataset, trash: str | None) -> str | None:
    """The warning, the true count and bytes, and the typed word; None for any other answer."""
    candidates = [
        source
        for source in survey(dataset, load(dataset))
        if source.state in ("pending", "deletable")
    ]
    total_bytes = sum(source.size_bytes for source in candidates)
    fate = f"moved to {trash}" if trash else "deleted for good"
    show.note(
        f"WARNING: up to {show.count(len(candidates), 'source file')} "
        f"({show.size(total_bytes)}) will be {fate}, each only after its shard was\n"
        "read back from storage and proven. Failed and excluded samples keep theirs."
    )
    if show.ask(f"Type {DELETE_WORD} to allow it") == DELETE_WORD:
        return f"convert --delete_source_files, {DELETE_WORD} typed"
    show.note("Converting without deleting anything.")
    return None
