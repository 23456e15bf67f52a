"""``ctrate-convert history``."""

from __future__ import annotations

from pathlib import Path

import click

from ctrate_convert.cli import options, show
from ctrate_convert.errors import ExitCode
from ctrate_convert.paths import Dataset
from ctrate_convert.slurm.history import PastArray, history
from ctrate_convert.slurm.status import fold_numbers


@click.command("history")
@options.out_argument
@options.json_option
def command(out: Path, as_json: bool) -> int:
    """Every submission: when, what, with what resources, and what came of it.

    \b
    Example:
      ctrate-convert history /data/shards
    """
    past = history(Dataset(out))
    if as_json:
        show.as_json(past)
        return ExitCode.DONE
    if not past.arrays:
        show.line("Nothing was submitted yet.")
        return ExitCode.DONE
    show.table(
        ("submission", "when", "command", "job", "tasks", "why", "resources", "outcome"),
        [_row(array) for array in past.arrays],
    )
    for number, report in past.reports.items():
        verified = f"{report.samples_checked} samples checked, {len(report.damage)} damaged"
        tasks = ", ".join(f"{count} {state}" for state, count in report.tasks.items())
        show.line(f"Report of {number:04d}, {report.time}: {tasks}; {verified}.")
    for problem in past.unavailable:
        show.line(f"Could not be asked: {problem}")
    return ExitCode.DONE


def _row(array: PastArray) -> tuple[str, ...]:
    outcome = ", ".join(f"{count} {state}" for state, count in array.outcome.items())
    return (
        f"{array.submission:04d}",
        array.created[:19].replace("T", " "),
        array.command,
        array.job or "none",
        fold_numbers(array.tasks),
        array.why,
        array.resources,
        "; ".join(filter(None, (outcome, array.words))),
    )
