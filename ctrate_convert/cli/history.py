"""The command ``ctrate-convert history``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from ctrate_convert.cli import options, show
from ctrate_convert.cli.ask import print_consents
from ctrate_convert.cluster.states.history import PastArray, PastRun, history
from ctrate_convert.cluster.states.status import fold_numbers
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.layout import Dataset


@click.command("history")
@options.out_argument
@options.json_option
def command(out: Path, as_json: bool) -> int:
    """Every submission and every local run, what came of it, and every consent to delete sources.

    \b
    Example:
      ctrate-convert history /data/shards
    """
    past = history(Dataset(out))
    if as_json:
        show.as_json(past)
        return ExitCode.DONE
    if past.arrays:
        show.table(
            ("submission", "when", "command", "job", "tasks", "why", "resources", "outcome"),
            [_row(array) for array in past.arrays],
        )
    else:
        show.line("Nothing was submitted yet.")
    if past.runs:
        show.table(
            ("run", "host", "tasks", "what", ">took", ">converted", ">failed", "outcome"),
            [_run_row(run) for run in past.runs],
        )
    print_consents(past.consents)
    if past.consents:
        _print_who_deletes(past.arrays)
    for number, report in past.reports.items():
        verified = f"{report.samples_checked} samples checked, {len(report.damage)} damaged"
        tasks = ", ".join(f"{count} {state}" for state, count in report.tasks.items())
        show.line(f"Report of {number:04d}, {report.time}: {tasks}; {verified}.")
        if report.relaunched:
            show.line(f"  Relaunched by itself: task {fold_numbers(report.relaunched)}.")
        show.some(f"  For a person: {line}" for line in report.for_a_person)
    for problem in past.unavailable:
        show.line(f"Could not be asked: {problem}")
    return ExitCode.DONE


def _print_who_deletes(arrays: Iterable[PastArray]) -> None:
    """Print under which consent, if any, the elements of each submission delete sources."""
    for number, consent in dict.fromkeys((one.submission, one.consent) for one in arrays):
        what = f"deletes under consent {consent}" if consent else "deletes nothing"
        show.line(f"Submission {number:04d} {what}.")


def _run_row(run: PastRun) -> tuple[str, ...]:
    outcome = run.outcome or "no end: it runs still, or was killed"
    return (
        run.started[:19].replace("T", " "),
        run.host,
        fold_numbers(run.tasks),
        "deletes sources" if run.deletes_only else "converts",
        "" if run.elapsed_s is None else show.duration(run.elapsed_s),
        "" if run.samples_converted is None else f"{run.samples_converted:,}",
        "" if run.samples_failed is None else f"{run.samples_failed:,}",
        ": ".join(filter(None, (outcome, run.reason))),
    )


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
