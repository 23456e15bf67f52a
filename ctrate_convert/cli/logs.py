"""The command ``ctrate-convert logs``."""

from __future__ import annotations

from pathlib import Path

import click

from ctrate_convert.cli import options, show
from ctrate_convert.cluster.states.logs import TaskLog, task_log
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.layout import Dataset


@click.command("logs")
@options.out_argument
@click.argument("task", type=click.IntRange(min=0))
@click.option("--attempt", type=click.IntRange(min=1), help="Which attempt, from 1; the last.")
@click.option("--lines", type=click.IntRange(min=1), default=60, show_default=True)
@options.json_option
def command(out: Path, task: int, attempt: int | None, lines: int, as_json: bool) -> int:
    """Show how an attempt at TASK ended: its traceback first, then the end of its log.

    \b
    Examples:
      ctrate-convert logs /data/shards 17
      ctrate-convert logs /data/shards 17 --attempt 1
    """
    log = task_log(Dataset(out), task, attempt=attempt, lines=lines)
    if as_json:
        show.as_json(log)
    else:
        _print(log)
    return ExitCode.DONE


def _print(log: TaskLog) -> None:
    if log.attempt is None and log.path is None:
        show.line(f"Task {log.task} was never attempted.")
        return
    if log.attempt is not None:
        start, end = log.attempt.start, log.attempt.end
        job = start.job
        show.line(
            f"Attempt {log.number} of {log.attempts} at task {log.task}: {start.started}, "
            f"{(job and job.node) or start.host}" + (f", job {job.name}" if job else "")
        )
        if end is None:
            show.line("It left no last word: it lives, or it was killed.")
        else:
            show.line(f"It ended: {end.outcome}" + (f", {end.reason}" if end.reason else ""))
            if end.traceback:
                show.line()
                show.line(end.traceback.rstrip())
    if log.path is not None:
        show.line(f"\n{log.path} ends with:")
        for line in log.tail:
            show.line(line)
