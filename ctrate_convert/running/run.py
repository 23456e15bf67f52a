"""Convert pending shards in this process's workers: the one path of local runs and array tasks."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctrate_convert.deleting.finish import finish_deletions
from ctrate_convert.deleting.trash import prepare_trash_for
from ctrate_convert.deleting.trusted import require_trusted
from ctrate_convert.errors import (
    EnvironmentProblem,
    WorkerDied,
    WorkerKilled,
)
from ctrate_convert.running.pool import TIME_LIMIT_WARNING, Message, StopFlag, run_orders
from ctrate_convert.running.result import RunResult, Tally
from ctrate_convert.running.space import require_room
from ctrate_convert.running.worker import Advanced, Order, ShardFailed
from ctrate_convert.store.attempts import Attempt, Outcome
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.leavings import remove_stale_partials
from ctrate_convert.store.ledger import Ledger, Planned, allows, recorded_numbers
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.attempt import EndCause
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.manifest import Manifest
from ctrate_convert.store.records.plan import Plan, PlannedShard

_log = logging.getLogger(__name__)

_ENVIRONMENT = "environment"


@dataclass(frozen=True)
class Crew:
    """The workers of a run, with their stop flag, their scheduler job and the caller's callbacks.

    ``num_workers`` processes convert at once. Workers check ``stop`` between two blocks of a
    volume. ``scheduler`` holds the facts of this process's job; it is empty if there is none. A
    worker waits ``lock_patience_s`` for a shard that another process holds. ``may_start`` is called
    with the bytes that the shards under way will still write; while it returns False, only shards
    begin that merely let sources go. ``on_change`` is called with every message of a worker.
    ``scratch`` is the folder for scratch files; None for the output's.
    """

    num_workers: int
    stop: StopFlag = field(default_factory=StopFlag)
    scheduler: Mapping[str, str] = field(default_factory=dict)
    lock_patience_s: float = 0.0
    may_start: Callable[[int], bool] = lambda claimed_bytes: True
    on_change: Callable[[RunResult, Message], None] = lambda result, message: None
    scratch: Path | None = None


@dataclass(frozen=True)
class Tasks:
    """The tasks to carry out: ``only`` these (None: all), except those in ``leave``."""

    only: frozenset[int] | None = None
    leave: frozenset[int] = frozenset()

    def has(self, task: int) -> bool:
        """Return True if ``task`` is to be carried out."""
        return (self.only is None or task in self.only) and task not in self.leave


def run_work(
    dataset: Dataset, work: Sequence[Planned], crew: Crew, consent: Consent | None = None
) -> RunResult:
    """Carry out ``work`` under one attempt.

    The sources of shards that ``consent`` names are let go, each shard's after it was published.
    Without a consent no source is touched.
    """
    dataset.prepare()
    recorded = recorded_numbers(dataset)
    _sweep(dataset, recorded)
    result = RunResult(
        samples_total=sum(shard.samples for _, shard in work),
        source_bytes_total=sum(
            shard.source_bytes for _, shard in work if shard.index not in recorded
        ),
        shards_total=len(work),
    )
    if not work:
        return result
    deletes_only = all(shard.index in recorded for _, shard in work)
    attempt = Attempt(
        dataset,
        _tasks(work),
        dict(crew.scheduler),
        crew.num_workers,
        deletes_only=deletes_only,
    )
    _log.info("attempt %s: %d shards, %d workers", attempt.name, len(work), crew.num_workers)
    orders = [
        Order(
            dataset.out,
            shard.index,
            attempt.name,
            consent=consent.name if consent and allows(consent, plan, shard) else None,
            patience_s=crew.lock_patience_s,
            releasing=shard.index in recorded,
            scratch=crew.scratch,
            planned=_alone(plan, shard),
        )
        # Shards that only let sources go come first: they take no space and may free some. Then the
        # largest, so that no worker is still busy with one when the others are done.
        for plan, shard in sorted(
            work, key=lambda one: (one[1].index in recorded, one[1].source_bytes), reverse=True
        )
    ]
    tally = Tally(result, {shard.index: shard for _, shard in work}, recorded)

    def on_message(message: Message) -> None:
        tally.take(message)
        if not isinstance(message, Advanced):
            _log.info("%s", message)
        if isinstance(message, ShardFailed) and _hits_every_shard(message):
            crew.stop.set(_ENVIRONMENT)
        attempt.progress(result.note())
        crew.on_change(result, message)

    def may_begin(order: Order) -> bool:
        # It takes no space and may free some: to wait for space would be to wait for itself.
        if order.releasing:
            return True
        may = crew.may_start(tally.claimed_bytes())
        # The answer changed: a pause begins or ends.
        if may == result.paused:
            result.paused = not may
            attempt.progress(result.note(), force=True)
        if may:
            tally.begin(order.shard)
        return may

    broken: BaseException | None = None
    try:
        run_orders(orders, crew.num_workers, crew.stop, on_message, may_begin)
    # Also KeyboardInterrupt and SystemExit: the attempt's end must tell why it ended.
    except BaseException as error:
        broken = error
        raise
    finally:
        # The run stopped itself: its exit code is that of the failure, not of an interruption.
        if crew.stop.reason and crew.stop.reason != _ENVIRONMENT:
            result.stopped_by = crew.stop.reason
        attempt.progress(result.note(), force=True)
        _end(attempt, result, broken)
    return result


def _alone(plan: Plan, shard: PlannedShard) -> Planned:
    """Return the shard with its plan's facts, without the other shards, of which there are many."""
    return Planned(
        plan.model_copy(update={"shards": (shard,), "retries": (), "repairs": {}}), shard
    )


def _sweep(dataset: Dataset, recorded: frozenset[int]) -> None:
    """Remove the partial files that killed writers left behind."""
    published = frozenset(f"shard-{index:06d}" for index in recorded)
    for folder in (dataset.out, dataset.records, dataset.plans):
        remove_stale_partials(folder, published)


def _hits_every_shard(failure: ShardFailed) -> bool:
    """Return True if the failure stops the run: a full disk does, a killed worker does not."""
    error = failure.error
    return isinstance(error, EnvironmentProblem) and not isinstance(error, WorkerDied)


def _tasks(work: Iterable[Planned]) -> list[int]:
    return sorted({shard.task for _, shard in work})


def _end(attempt: Attempt, result: RunResult, broken: BaseException | None) -> None:
    """Write the attempt's end; ``broken`` is the exception that ended the run itself, if any."""
    outcome: Outcome = "done"
    cause = EndCause.DONE
    reason = told = ""
    if broken is not None:
        outcome, cause, reason = "failed", EndCause.ERROR, f"{type(broken).__name__}: {broken}"
        told = "".join(traceback.format_exception(broken))
    elif result.failed_shards:
        outcome, first = "failed", next(iter(result.failed_shards.values()))
        killed = isinstance(first.error, WorkerKilled)
        cause = EndCause.WORKER_KILLED if killed else EndCause.ERROR
        reason, told = first.error.one_line(), first.traceback
    elif result.busy_shards:
        outcome, cause, reason = "failed", EndCause.BUSY, "another process holds the shard"
    if result.stopped_by and broken is None:
        outcome, reason = "interrupted", "; ".join(filter(None, (result.stopped_by, reason)))
        warned = result.stopped_by == TIME_LIMIT_WARNING.name
        cause = EndCause.TIME_LIMIT_WARNING if warned else EndCause.SIGNAL
    attempt.end(
        outcome,
        cause=cause,
        reason=reason,
        traceback=told,
        shards_done=result.shards_done,
        shards_failed=sorted(result.failed_shards),
        samples_converted=result.converted,
        samples_failed=len(result.failed_samples),
        max_rss_bytes=result.max_rss_bytes,
    )


def run_pending(
    dataset: Dataset,
    crew: Crew,
    *,
    tasks: Tasks | None = None,
    consent: Consent | None = None,
    must_fit: bool = False,
    warn: Callable[[str], None] | None = None,
) -> tuple[RunResult, Manifest]:
    """Carry out what is pending of ``tasks``, or of all; return the result and merged manifest.

    ``must_fit``: begin nothing that certainly fills the disk. ``warn`` is called if it may fill.
    ``consent``: a person allowed that the sources of the shards it names are let go.

    Raises:
        EnvironmentProblem: the disk would certainly fill.
        RefusedError: sources may be let go, and the output cannot be trusted with that.
        SettingsError: the consent's trash cannot serve.
    """
    plans = require_plans(dataset)
    if consent:
        # Here too, although the gate asks again: it would refuse only when the first shard has been
        # converted.
        require_trusted(dataset)
        if consent.trash:
            prepare_trash_for(Path(consent.trash), plans, dataset.out)
    dataset.prepare()
    # Before the ledger is asked: the journals tell which shards still await the gate.
    finish_deletions(dataset, plans)
    ledger = Ledger(dataset, plans)
    wanted = tasks or Tasks()
    work = [one for one in ledger.pending(consent) if wanted.has(one.shard.task)]
    if must_fit or warn:
        _sweep(dataset, ledger.recorded)  # so that their space counts as free
        words = require_room(
            dataset,
            work,
            ledger.recorded,
            num_workers=crew.num_workers,
            consent=consent,
            may_wait=not must_fit,
        )
        if words and warn:
            warn(words)
    result = run_work(dataset, work, crew, consent)
    manifest = merge(dataset, plans)
    result.failed_before = manifest.samples["failed"] - len(result.failed_samples)
    return result, manifest
