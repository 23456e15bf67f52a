"""Convert what is pending, here: the one path that a local run and an array task share."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctrate_convert.conversion.deletion import Deletion, read_journal
from ctrate_convert.conversion.manifest import (
    merge,
    planned_shards,
    recorded_shards,
    superseded_samples,
)
from ctrate_convert.conversion.plans import load_plans
from ctrate_convert.conversion.trash import prepare_trash_for
from ctrate_convert.conversion.worker import Advanced, Order, ShardDone, ShardFailed, Written
from ctrate_convert.errors import (
    EnvironmentProblem,
    ExitCode,
    Interrupted,
    SettingsError,
    WorkerDied,
)
from ctrate_convert.leavings import remove_stale_partials
from ctrate_convert.operations.attempts import Attempt, Outcome, now_text
from ctrate_convert.operations.pool import Message, StopFlag, run_orders
from ctrate_convert.operations.space import require_room
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.attempt import AttemptProgress
from ctrate_convert.schemas.manifest import Manifest
from ctrate_convert.schemas.plan import Plan, PlannedShard

_ENVIRONMENT = "environment"

Work = tuple[Plan, PlannedShard]


@dataclass
class RunResult:
    """What one run did, summed up as it goes; also what a progress display reads."""

    samples_total: int
    source_bytes_total: int
    shards_total: int
    started_clock: float = field(default_factory=time.monotonic)
    samples_done: int = 0
    source_bytes_done: int = 0
    array_bytes: int = 0
    output_bytes: int = 0
    shards_done: int = 0
    converted: int = 0
    failed_samples: list[tuple[str, str]] = field(default_factory=list)
    failed_before: int = 0
    failed_shards: dict[int, ShardFailed] = field(default_factory=dict)
    busy_shards: list[int] = field(default_factory=list)
    deletion: Deletion = field(default_factory=Deletion)
    max_rss_bytes: int = 0
    paused: bool = False
    stopped_by: str | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started_clock

    @property
    def exit_code(self) -> ExitCode:
        """The worst that happened decides; a sample that failed in an earlier run still counts."""
        if self.stopped_by:
            return ExitCode.INTERRUPTED
        codes = {failure.error.exit_code for failure in self.failed_shards.values()}
        for code in (ExitCode.DAMAGE, ExitCode.REFUSED, ExitCode.ENVIRONMENT):
            if code in codes:
                return code
        if codes:
            return ExitCode.ENVIRONMENT
        failed = self.failed_samples or self.failed_before
        return ExitCode.SAMPLES_FAILED if failed else ExitCode.DONE


def load(dataset: Dataset) -> tuple[Plan, ...]:
    """All plans of the dataset.

    Raises:
        SettingsError: there is none.
        DamageError: one has been tampered with.
    """
    plans = load_plans(dataset)
    if not plans:
        raise SettingsError(
            "no plan here",
            where=dataset.out,
            next_command="ctrate-convert plan --output_dir OUT …, or: ctrate-convert demo",
        )
    return plans


def pending_work(dataset: Dataset, plans: Sequence[Plan], *, deleting: bool) -> list[Work]:
    """Shards without a record; and, when deleting, recorded ones whose sources await the gate."""
    recorded = recorded_shards(dataset)
    superseded = superseded_samples(dataset, plans)
    work = []
    for index, (plan, shard) in planned_shards(plans).items():
        delete_here = deleting or plan.settings.delete_source_files
        if index not in recorded or (
            delete_here
            and not _deletion_settled(dataset, shard, superseded.get(index, frozenset()))
        ):
            work.append((plan, shard))
    return work


def _deletion_settled(dataset: Dataset, shard: PlannedShard, superseded: frozenset[str]) -> bool:
    """Whether each sample's deletion was done or given up, as far as the journal tells.

    The source of a superseded sample is the business of the shard that holds it now.
    """
    settled = superseded | {
        line.key for line in read_journal(dataset, shard.index) if line.event != "intent"
    }
    return bool(settled) and len(settled) >= shard.samples


def run_work(
    dataset: Dataset,
    plans: Sequence[Plan],
    work: Sequence[Work],
    *,
    num_workers: int,
    authorised_by: str | None = None,
    trash: Path | None = None,
    scheduler: dict[str, str] | None = None,
    stop: StopFlag | None = None,
    lock_patience_s: float = 0.0,
    may_start: Callable[[], bool] = lambda: True,
    on_change: Callable[[RunResult, Message], None] = lambda result, message: None,
) -> RunResult:
    """Carry out ``work`` with ``num_workers`` processes under one attempt.

    ``authorised_by`` names the person's command that allows deletion in every plan; without it
    only plans made with ``delete_source_files`` delete, each shard's sources after its proof.
    ``trash`` is where they are moved instead, whatever the plans say. While ``may_start`` says no,
    no shard is begun but those that only await the gate, and the attempt's progress says so.
    """
    stop = StopFlag() if stop is None else stop  # an unset flag is false
    dataset.prepare()
    recorded = recorded_shards(dataset)
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
    attempt = Attempt(dataset, _tasks(work), scheduler)
    orders = [
        Order(
            dataset.out,
            shard.index,
            attempt.name,
            _authorisation(plan, authorised_by),
            lock_patience_s,
            trash or _trash(plan),
        )
        # First what only awaits the gate: it takes no space, and may give some. Then the largest,
        # so that no worker is still busy with one when the others are done.
        for plan, shard in sorted(
            work, key=lambda one: (one[1].index in recorded, one[1].source_bytes), reverse=True
        )
    ]
    seen = _Counter(result, {shard.index: shard for _, shard in work}, recorded)

    def on_message(message: Message) -> None:
        seen.take(message)
        if isinstance(message, ShardFailed) and _hits_every_shard(message):
            stop.set(_ENVIRONMENT)
        attempt.progress(_note(result))
        on_change(result, message)

    def may_begin(order: Order) -> bool:
        may = order.shard in recorded or may_start()
        if may == result.paused:
            result.paused = not may
            attempt.progress(_note(result), force=True)
        return may

    broken: BaseException | None = None
    try:
        run_orders(orders, num_workers, stop, on_message, may_begin)
    except BaseException as error:
        broken = error
        raise
    finally:
        if stop.reason and stop.reason != _ENVIRONMENT:
            result.stopped_by = stop.reason
        attempt.progress(_note(result), force=True)
        _end(attempt, result, broken)
    return result


def _sweep(dataset: Dataset, recorded: frozenset[int]) -> None:
    """Remove what killed writers left behind."""
    published = frozenset(f"shard-{index:06d}" for index in recorded)
    for folder in (dataset.out, dataset.records, dataset.plans):
        remove_stale_partials(folder, published)


def _hits_every_shard(failure: ShardFailed) -> bool:
    """A full disk stops the run; a killed worker costs only its shard."""
    error = failure.error
    return isinstance(error, EnvironmentProblem) and not isinstance(error, WorkerDied)


def _tasks(work: Iterable[Work]) -> list[int]:
    return sorted({shard.task for _, shard in work})


def _trash(plan: Plan) -> Path | None:
    return Path(plan.settings.trash) if plan.settings.trash else None


def _authorisation(plan: Plan, authorised_by: str | None) -> str | None:
    if authorised_by:
        return authorised_by
    return f"plan {plan.plan_id[:12]}" if plan.settings.delete_source_files else None


class _Counter:
    """Sums messages into the result; what a failed shard had counted is taken back."""

    def __init__(
        self, result: RunResult, shards: dict[int, PlannedShard], recorded: frozenset[int]
    ) -> None:
        self._result = result
        self._shards = shards
        self._recorded = recorded
        self._advance: dict[int, int] = {}

    def take(self, message: Message) -> None:
        result = self._result
        if isinstance(message, Advanced):
            before = self._advance.get(message.shard, 0)
            self._advance[message.shard] = before + message.samples
            result.samples_done += message.samples
            result.array_bytes += message.array_bytes
            return
        if isinstance(message, Written):
            return
        result.samples_done -= self._advance.pop(message.shard, 0)
        if isinstance(message, ShardFailed):
            if not isinstance(message.error, Interrupted):
                result.failed_shards[message.shard] = message
            return
        if message.busy:
            result.busy_shards.append(message.shard)
            return
        result.samples_done += self._shards[message.shard].samples
        if message.shard not in self._recorded:
            result.source_bytes_done += self._shards[message.shard].source_bytes
        self._take_done(message)

    def _take_done(self, message: ShardDone) -> None:
        result = self._result
        result.shards_done += 1
        result.max_rss_bytes = max(result.max_rss_bytes, message.max_rss_bytes)
        result.deletion.add(message.deletion)
        if message.fresh:
            result.converted += message.converted
            result.output_bytes += message.output_bytes
            result.failed_samples.extend(message.failed)


def _note(result: RunResult) -> AttemptProgress:
    return AttemptProgress(
        time=now_text(),
        samples_done=result.samples_done,
        samples_total=result.samples_total,
        source_bytes_done=result.source_bytes_done,
        source_bytes_total=result.source_bytes_total,
        shards_done=result.shards_done,
        shards_total=result.shards_total,
        freed_bytes=result.deletion.freed_bytes,
        paused=result.paused,
    )


def _end(attempt: Attempt, result: RunResult, broken: BaseException | None) -> None:
    """The attempt's last word; ``broken`` is what the run itself failed of."""
    outcome: Outcome = "done"
    reason = told = ""
    if broken is not None:
        outcome, reason = "failed", f"{type(broken).__name__}: {broken}"
        told = "".join(traceback.format_exception(broken))
    elif result.failed_shards:
        outcome, first = "failed", next(iter(result.failed_shards.values()))
        reason, told = first.error.one_line(), first.traceback
    elif result.busy_shards:
        outcome, reason = "failed", "another process holds the shard"
    if result.stopped_by and broken is None:
        outcome, reason = "interrupted", "; ".join(filter(None, (result.stopped_by, reason)))
    attempt.end(
        outcome,
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
    *,
    num_workers: int,
    authorised_by: str | None = None,
    trash: Path | None = None,
    must_fit: bool = False,
    warn: Callable[[str], None] | None = None,
    only_tasks: frozenset[int] | None = None,
    leave_tasks: frozenset[int] = frozenset(),
    scheduler: dict[str, str] | None = None,
    stop: StopFlag | None = None,
    may_start: Callable[[], bool] = lambda: True,
    on_change: Callable[[RunResult, Message], None] = lambda result, message: None,
) -> tuple[RunResult, Manifest]:
    """Everything that is pending in ``dataset``, then the merged manifest.

    ``only_tasks`` (None: all) are converted, without ``leave_tasks``, which others hold.
    ``must_fit``: nothing is begun that certainly fills the disk. ``warn`` is told where it may.
    ``trash``: where every source goes that is let go, also by plans that name another or none.

    Raises:
        EnvironmentProblem: it would.
        SettingsError: ``trash`` cannot serve.
    """
    plans = load(dataset)
    if trash:
        prepare_trash_for(trash, plans, dataset.out)
    dataset.prepare()
    work = [
        (plan, shard)
        for plan, shard in pending_work(dataset, plans, deleting=authorised_by is not None)
        if (only_tasks is None or shard.task in only_tasks) and shard.task not in leave_tasks
    ]
    if must_fit or warn:
        recorded = recorded_shards(dataset)
        _sweep(dataset, recorded)  # their space is free for what comes
        words = require_room(
            dataset,
            work,
            recorded,
            num_workers=num_workers,
            deleting=authorised_by is not None,
            to_trash=trash is not None,
            may_wait=not must_fit,
        )
        if words and warn:
            warn(words)
    result = run_work(
        dataset,
        plans,
        work,
        num_workers=num_workers,
        authorised_by=authorised_by,
        trash=trash,
        scheduler=scheduler,
        stop=stop,
        may_start=may_start,
        on_change=on_change,
    )
    manifest = merge(dataset, plans)
    result.failed_before = manifest.samples["failed"] - len(result.failed_samples)
    return result, manifest
