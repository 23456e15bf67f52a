"""The command ``ctrate-convert status``."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import click

from ctrate_convert.checking.damage import find_damage
from ctrate_convert.cli import options, show
from ctrate_convert.cli.ask import print_consents
from ctrate_convert.cli.damage import print_damage, with_damage
from ctrate_convert.cli.language import amount, word
from ctrate_convert.cli.status_table import print_tasks
from ctrate_convert.cluster.states.evidence import State
from ctrate_convert.cluster.states.other_work import OtherWork
from ctrate_convert.cluster.states.status import Status, StatusReader, fold_numbers
from ctrate_convert.cluster.states.stuck import Stuck
from ctrate_convert.cluster.submissions import SubmissionFiles
from ctrate_convert.errors import ExitCode, Interrupted
from ctrate_convert.store.layout import Dataset

_REFRESH_S = 15
_CONSENTS = 3
_BAR = 24
_NAMED = 5
_ORDER: tuple[State, ...] = get_args(State)


@click.command("status")
@options.out_argument
@click.option("--watch", is_flag=True, help="Refresh until only finished or stuck work is left.")
@click.option("--failed", is_flag=True, help="Only tasks that failed.")
@click.option("--long", is_flag=True, help="A line for each task, however many there are.")
@options.json_option
def command(out: Path, watch: bool, failed: bool, long: bool, as_json: bool) -> int:
    """One line a task: its state, the evidence for it, the reason; and what all add up to.

    time, CPU and mem are shares of what was asked for: of the time limit, of all cores for that
    time, of the memory. A narrow terminal leaves them out.

    Asks squeue once and sacct once, and says what could not be asked. --watch ends once nothing
    moves any more: with 0 if all is done, with 5 if a job is stuck in the queue or Slurm cannot
    be asked, else with 2.

    \b
    Examples:
      ctrate-convert status /data/shards
      ctrate-convert status /data/shards --watch
      ctrate-convert status /data/shards --json --failed
    """
    dataset = Dataset(out)
    reader = StatusReader(dataset)
    with contextlib.ExitStack() as stack:
        if watch:
            stack.enter_context(_told_at_the_end())
        return _look(out, reader, watch=watch, failed=failed, long=long, as_json=as_json)


@contextlib.contextmanager
def _told_at_the_end() -> Iterator[None]:
    """Say at Ctrl+C that only the watching has ended."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted("no longer watching; nothing was cancelled") from error


def _look(
    out: Path, reader: StatusReader, *, watch: bool, failed: bool, long: bool, as_json: bool
) -> int:
    """Print the status, with ``watch`` again and again; return the exit code."""
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
                show.line(_headline(status))
            print_status(out, status, failed=failed, long=long)
            print_damage(damage)
        # Without Slurm's commands nothing is ever going to be known here.
        blind = not status.view.queue_asked and shutil.which("squeue") is None
        if not watch or status.is_at_rest or blind:
            return with_damage(_code(status) if watch else ExitCode.DONE, damage)
        time.sleep(_REFRESH_S)


def _headline(status: Status) -> str:
    """Return the clock and a bar, for a terminal that is watched."""
    planned = sum(status.samples.values())
    over = planned - status.samples.get("pending", 0)
    share = over / planned if planned else 1.0
    full = int(share * _BAR)
    bar = "█" * full + "░" * (_BAR - full)
    clock = time.strftime("%H:%M:%S")
    return f"{clock}  {bar}  {share:.0%}, {over:,} of {planned:,} samples; again in {_REFRESH_S} s"


def _code(status: Status) -> int:
    """Return how a watch ends: 0 only if every task is done and no job is stuck."""
    if status.view.stuck or not status.view.queue_asked:
        return ExitCode.ENVIRONMENT
    is_done = all(line.state == "done" for line in status.lines)
    newest = {one.name: one for one in status.view.other_work}
    is_done &= all(one.results >= one.units and not one.failures for one in newest.values())
    return ExitCode.DONE if is_done else ExitCode.SAMPLES_FAILED


def print_status(out: Path, status: Status, *, failed: bool = False, long: bool = False) -> None:
    """Print the table of the tasks, as `print_tasks` does, and the totals."""
    print_tasks([x for x in status.lines if not failed or x.state == "failed"], long=long)
    states = [line.state for line in status.lines]
    tasks = word(", ").join(amount(states.count(s), s) for s in _ORDER if s in states)
    show.say(f"Tasks: {tasks}.")
    parts = " + ".join(amount(number, state) for state, number in status.samples.items())
    show.say(f"Samples: {parts} = {sum(status.samples.values()):,}.")
    facts = [word("{} freed").format(show.size(status.freed_bytes))] if status.freed_bytes else []
    if status.source_bytes_per_s:
        speed = f"{status.source_bytes_per_s / 1e6:,.0f}"
        facts.insert(0, word("{} MB/s of sources").format(speed))
    if status.eta_s is not None:
        facts.append(word("ETA {}").format(show.duration(status.eta_s)))
    if facts:
        show.line(word(", ").join(facts) + word("."))
    print_consents(status.consents, newest=_CONSENTS)
    slow = [line.task for line in status.lines if line.is_straggler]
    if slow and status.straggler_limit_s:
        limit = show.duration(status.straggler_limit_s)
        more = f" and {len(slow) - _NAMED:,} more" if len(slow) > _NAMED else ""
        tasks = ", ".join(map(str, slow[:_NAMED])) + more
        show.say(f"Stragglers, over twice the median ({limit}): task {tasks}.")
    _print_stuck(status)
    _print_other_work(out, status)
    _print_without_finaliser(out, status)
    _print_failed_samples(out, status)
    for problem in status.unavailable:
        show.say(f"Could not be asked: {problem}")
    _print_next(out, states, status)


def _print_stuck(status: Status) -> None:
    """Print what waits in vain, a line for each reason, and what mends it."""
    alike: dict[tuple[bool, str], list[Stuck]] = {}
    for stuck in status.view.stuck:
        alike.setdefault((stuck.task is None, stuck.reason), []).append(stuck)
    for (is_finaliser, reason), some in alike.items():
        plural = "s" if len(some) > 1 else ""
        jobs = ", ".join(stuck.job for stuck in some[:_NAMED])
        jobs += f" and {len(some) - _NAMED:,} more" if len(some) > _NAMED else ""
        tasks = fold_numbers([stuck.task for stuck in some if stuck.task is not None])
        who = f"finaliser{plural}" if is_finaliser else f"task{plural} {tasks}"
        show.say(f"Stuck: {who}, job{plural} {jobs}: {reason}.")
        how = word("Mend each as the first" if plural else "Mend it")
        show.line(f"  {how}: {_mend(some)}")


def _print_other_work(out: Path, status: Status) -> None:
    """Print how far the newest verification, audit and deletion on the cluster have come."""
    for one in {one.name: one for one in status.view.other_work}.values():
        results = f"{one.results:,} of {one.units:,} results" if one.units else ""
        name, _, words = one.command.partition(" ")
        again = " ".join(filter(None, (f"ctrate-convert {name} {out}", words, "--submit")))
        if one.is_live:
            parts = [f"{one.running:,} running", f"{one.waiting:,} waiting", results]
            parts += ["Slurm has not answered yet"] if one.is_open else []
            parts += (
                [f"stuck: {one.why_stuck}; ctrate-convert cancel {out}"] if one.why_stuck else []
            )
        elif one.results < one.units:
            parts = [f"over with {results}", _failures(one), f"go on with: {again}"]
        elif one.units:
            parts = [results, f"see: ctrate-convert {name} {out} --result"]
        elif one.failures:
            parts = ["over", _failures(one), f"what is left: ctrate-convert delete {out} --dry_run"]
        else:
            continue
        show.line(f"{name}, submission {one.submission:04d}: {', '.join(filter(None, parts))}.")


def _failures(one: OtherWork) -> str:
    """Return how many elements ended without success, and where their logs are."""
    if not one.failures:
        return ""
    counts = ", ".join(f"{number:,} {state}" for state, number in one.failures.items())
    return f"{counts} (logs: {one.logs})"


def _mend(some: Sequence[Stuck]) -> str:
    """Return the command for the first; a task's cancellation takes all tasks at once."""
    first = some[0]
    tasks = " ".join(str(stuck.task) for stuck in some)
    return first.next_command.replace(f" {first.task}; ", f" {tasks}; ", 1)


def _print_without_finaliser(out: Path, status: Status) -> None:
    """Print which submissions have arrays, but no job that merges, verifies and reports."""
    without = [
        f"{files.submission.number:04d}"
        for files in status.view.submissions
        if files.report() is None and _has_no_finaliser(status, files)
    ]
    if without and any(line.state != "done" for line in status.lines):
        numbers = ", ".join(without)
        show.say(f"No finaliser has submission {numbers}: merge by: ctrate-convert merge {out}")


def _has_no_finaliser(status: Status, files: SubmissionFiles) -> bool:
    number, arrays = files.submission.number, files.submission.arrays
    answers = [status.view.answers.get((number, place)) for place in range(len(arrays))]
    born = [
        array.kind
        for array, answer in zip(arrays, answers, strict=True)
        if answer is not None and answer.job_id
    ]
    unborn = [
        array.kind
        for array, answer in zip(arrays, answers, strict=True)
        if answer is not None and not answer.job_id
    ]
    return "convert" in born and "finalise" in unborn


def _print_failed_samples(out: Path, status: Status) -> None:
    failed = status.view.failed_samples
    if not failed:
        return
    of_views = any(plan.settings.view for plan in status.view.plans)
    noun = "view" if of_views else "volume"
    show.say(f"{show.count(len(failed), noun)} failed; the sources stay:")
    # The views of a shard have one source: the key tells them apart.
    names = ((one.key if of_views else one.source, one.reason) for one in failed.values())
    show.some((f"  {name}: {reason}" for name, reason in names), most=_NAMED)
    show.say(f"  Mend them, then: ctrate-convert relaunch {out} --failed_samples")


def _print_next(out: Path, states: Sequence[str], status: Status) -> None:
    if not status.is_at_rest:
        return
    unknown = [task for task in status.view.tasks if task.verdict.state == "unknown"]
    alive = [task for task in unknown if task.lives_by_accounting]
    if status.view.stuck:
        show.say("Next: what mends the stuck jobs, above; they wait in vain until then")
    elif "failed" in states:
        show.say(f"Next: ctrate-convert logs {out} TASK; ctrate-convert relaunch {out} --dry_run")
    elif "cancelled" in states:
        show.say(f"Next: ctrate-convert relaunch {out} --dry_run")
    elif alive:
        show.say(
            f"Next: ask the administrators whether job {alive[0].job} lives: accounting says so, "
            "squeue does not show it (sacctmgr show runawayjobs)"
        )
    elif unknown:
        show.say(f"Next: ctrate-convert relaunch {out} --include_unknown --dry_run")
    elif "pending" in states:
        show.say(f"Next: ctrate-convert submit {out}, or here: ctrate-convert run {out}")
    else:
        show.say(f"Next: ctrate-convert verify {out}")
