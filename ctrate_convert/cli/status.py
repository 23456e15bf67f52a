"""The command ``ctrate-convert status``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from ctrate_convert.checking.damage import find_damage
from ctrate_convert.cli import options, show
from ctrate_convert.cli.ask import print_consents
from ctrate_convert.cli.damage import print_damage, with_damage
from ctrate_convert.cluster.states.status import Status, StatusReader, TaskLine, fold
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.layout import Dataset

_REFRESH_S = 15
_FOLD_ABOVE = 40
_CONSENTS = 3
_ORDER = ("done", "running", "pending", "failed", "unknown")


@click.command("status")
@options.out_argument
@click.option("--watch", is_flag=True, help="Refresh until nothing is live any more.")
@click.option("--failed", is_flag=True, help="Only tasks that failed.")
@options.json_option
def command(out: Path, watch: bool, failed: bool, as_json: bool) -> int:
    """One line a task: its state, the evidence for it, the reason; and what all add up to.

    Asks squeue once and sacct once, and says what could not be asked.

    \b
    Examples:
      ctrate-convert status /data/shards
      ctrate-convert status /data/shards --watch
      ctrate-convert status /data/shards --json --failed
    """
    dataset = Dataset(out)
    reader = StatusReader(dataset)
    while True:
        status = reader.read()
        damage = find_damage(status.view.ledger)
        if as_json:
            facts = {**status.facts(), "damage": damage}
            if failed:
                facts["tasks"] = [t for t in facts["tasks"] if t["state"] == "failed"]  # type: ignore[attr-defined]
            show.as_json(facts)
        else:
            if watch and sys.stdout.isatty():
                click.clear()
            print_status(out, status, failed=failed)
            print_damage(damage)
        if not watch or status.is_at_rest:
            return with_damage(ExitCode.DONE, damage)
        time.sleep(_REFRESH_S)


def print_status(out: Path, status: Status, *, failed: bool = False) -> None:
    """Print the table of the tasks, and the totals."""
    lines = [line for line in status.lines if not failed or line.state == "failed"]
    if len(lines) > _FOLD_ABOVE and sys.stdout.isatty():
        rows = [_row(name, line, number) for name, line, number in fold(lines)]
    else:
        rows = [_row(str(line.task), line, 1) for line in lines]
    show.table(
        (">task", "state", "evidence", "reason", ">attempts", "job", "node", ">elapsed",
         ">MaxRSS", ">samples"),
        rows,
    )  # fmt: skip
    states = [line.state for line in status.lines]
    tasks = ", ".join(f"{states.count(s):,} {s}" for s in _ORDER if s in states)
    show.line(f"Tasks: {tasks}.")
    parts = " + ".join(f"{number:,} {state}" for state, number in status.samples.items())
    show.line(f"Samples: {parts} = {sum(status.samples.values()):,}.")
    facts = [f"{show.size(status.freed_bytes)} freed"]
    if status.source_bytes_per_s:
        facts.insert(0, f"{status.source_bytes_per_s / 1e6:,.0f} MB/s of sources")
    if status.eta_s is not None:
        facts.append(f"ETA {show.duration(status.eta_s)}")
    show.line(", ".join(facts) + ".")
    print_consents(status.consents, newest=_CONSENTS)
    slow = [str(line.task) for line in status.lines if line.is_straggler]
    if slow and status.straggler_limit_s:
        limit = show.duration(status.straggler_limit_s)
        show.line(f"Stragglers, over twice the median ({limit}): task {', '.join(slow)}.")
    for problem in status.unavailable:
        show.line(f"Could not be asked: {problem}")
    _print_next(out, states, status)


def _row(name: str, line: TaskLine, number: int) -> tuple[object, ...]:
    return (
        name,
        line.state,
        line.evidence,
        line.reason,
        line.attempts if number == 1 else "",
        (line.job or "") if number == 1 else "",
        (line.node or "") if number == 1 else "",
        show.duration(line.elapsed_s) if line.elapsed_s is not None and number == 1 else "",
        show.size(line.max_rss_bytes) if line.max_rss_bytes and number == 1 else "",
        f"{line.samples_done}/{line.samples}" if number == 1 else f"{number:,} tasks",
    )


def _print_next(out: Path, states: Sequence[str], status: Status) -> None:
    if not status.is_at_rest:
        return
    if "failed" in states:
        show.line(f"Next: ctrate-convert logs {out} TASK; ctrate-convert relaunch {out} --dry_run")
    elif "unknown" in states:
        show.line(f"Next: ctrate-convert relaunch {out} --include_unknown --dry_run")
    elif "pending" in states:
        show.line(f"Next: ctrate-convert submit {out}, or here: ctrate-convert run {out}")
    else:
        show.line(f"Next: ctrate-convert verify {out}")
