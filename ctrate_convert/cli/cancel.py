"""The command ``ctrate-convert cancel``."""

from __future__ import annotations

from pathlib import Path

import click

from ctrate_convert.cli import options, show
from ctrate_convert.cluster.cancel import cancel
from ctrate_convert.cluster.states.status import fold_numbers
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.layout import Dataset


@click.command("cancel")
@options.out_argument
@click.argument("tasks", metavar="[TASK]...", nargs=-1, type=click.IntRange(min=0))
@options.json_option
def command(out: Path, tasks: tuple[int, ...], as_json: bool) -> int:
    """Cancel what is live: all of it, or the tasks that are named. What is published stays.

    \b
    Examples:
      ctrate-convert cancel /data/shards
      ctrate-convert cancel /data/shards 17 18
    """
    done = cancel(Dataset(out), tasks)
    if as_json:
        show.as_json(done)
        return ExitCode.DONE
    if done.tasks or not done.commands:
        which = f" ({fold_numbers(done.tasks)})" if done.tasks else ""
        show.line(f"Cancelled {show.count(len(done.tasks), 'task')}{which}.")
    if done.commands:
        show.line(f"Cancelled what jobs did of {' and '.join(done.commands)}.")
    again = f"; ctrate-convert relaunch {out}" if done.tasks else ""
    show.line(f"Next: ctrate-convert status {out}{again}")
    return ExitCode.DONE
