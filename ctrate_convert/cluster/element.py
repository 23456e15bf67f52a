"""The work of an element on its node: convert one task's pending shards, as a local run would.

At the warning signal before the time limit, and at preemption, the element stops between two blocks
of a volume. If another run makes sense, it is requeued with what is left.
"""

from __future__ import annotations

import os
import signal
import traceback
from pathlib import Path
from typing import Any

from submitit.core.logger import get_logger

from ctrate_convert.cluster.scheduler.client import SlurmClient
from ctrate_convert.cluster.scheduler.here import scheduler_facts
from ctrate_convert.cluster.submissions import load_submissions
from ctrate_convert.deleting.consents import load_consent
from ctrate_convert.errors import (
    CtrateError,
    DamageError,
    EnvironmentProblem,
    ExitCode,
    Interrupted,
    RefusedError,
)
from ctrate_convert.looking.words import size
from ctrate_convert.running.delete import make_ready_to_delete
from ctrate_convert.running.parent import start_forkserver
from ctrate_convert.running.pool import (
    TIME_LIMIT_WARNING,
    StopFlag,
    stop_on_signals,
)
from ctrate_convert.running.result import RunResult
from ctrate_convert.running.run import Crew, run_work
from ctrate_convert.running.space import SpaceWatch
from ctrate_convert.running.staff import FORKSERVER_PRELOAD
from ctrate_convert.store.attempts import Attempt
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, allows
from ctrate_convert.store.merger import merge_when_due
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.attempt import EndCause
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.manifest import GIB

_LOCK_PATIENCE_S = 300.0
"""A requeued element may meet the lock that its own earlier run left behind on a lost node."""


def work(
    out: str,
    submission: int,
    task: int,
    num_workers: int,
    warning_s: int,
    min_free_gb: float = 0.0,
    consent: str = "",
    scratch: str | None = None,
    deletes_only: bool = False,
) -> dict[str, Any]:
    """Convert what is pending of one task; raise an error unless all its shards are published.

    ``consent`` names the consent under which sources are deleted; without one they stay.
    ``scratch`` is the folder for scratch files, which may name variables of the node. With
    ``deletes_only`` nothing is converted: only the sources of shards that are published go.
    """
    refuse_if_given_up(Dataset(Path(out)), submission, task)
    # Slurm signals every process of a step; only this one may act on the warning.
    start_forkserver(FORKSERVER_PRELOAD, ignored=(TIME_LIMIT_WARNING,))
    with stop_on_signals(StopFlag(), (TIME_LIMIT_WARNING, signal.SIGTERM)) as stop:
        result = _convert(
            Dataset(Path(out)),
            task,
            num_workers,
            min_free_gb,
            consent,
            stop,
            scheduler_facts(os.environ) | {"submission": str(submission)},
            _scratch_here(scratch) if scratch else None,
            deletes_only=deletes_only,
        )
    if stop.reason == TIME_LIMIT_WARNING.name and _is_worth_another_run(result, warning_s):
        # submitit's own handler is in force again: it asks the payload for a checkpoint, requeues
        # the element and exits.
        signal.raise_signal(TIME_LIMIT_WARNING)
    if result.stopped_by:
        raise Interrupted(f"stopped by {result.stopped_by}")
    for failure in result.failed_shards.values():
        raise failure.error
    if result.busy_shards:
        raise EnvironmentProblem(f"another process holds shards {result.busy_shards}")
    return {
        "exit_code": int(ExitCode(result.exit_code)),
        "converted": result.converted,
        "failed_samples": len(result.failed_samples),
    }


def refuse_if_given_up(dataset: Dataset, submission: int, task: int) -> None:
    """Raise if this element's array counts as never accepted, for its task may run elsewhere.

    A controller that stalls may accept a request long after everybody gave it up.

    Raises:
        RefusedError: the array was given up.
    """
    for files in load_submissions(dataset):
        if files.submission.number != submission:
            continue
        for place, array in enumerate(files.submission.arrays):
            answer = files.answer(place) if task in array.tasks else None
            if answer is not None and answer.job_id is None:
                raise RefusedError(
                    "this array was given up before the scheduler accepted it; its tasks were free "
                    "to be submitted again",
                    where=files.folder,
                    next_command=f"ctrate-convert status {dataset.out}",
                )


def _convert(
    dataset: Dataset,
    task: int,
    num_workers: int,
    min_free_gb: float,
    consent_name: str,
    stop: StopFlag,
    scheduler: dict[str, str],
    scratch: Path | None,
    *,
    deletes_only: bool,
) -> RunResult:
    try:
        plans = require_plans(dataset)
        consent = _believed(dataset, consent_name)
        ledger = Ledger(dataset, plans)
        work = [one for one in ledger.pending(consent) if one.shard.task == task]
        if deletes_only:
            consent = load_consent(dataset, consent_name)  # or raise why it cannot be believed
            make_ready_to_delete(dataset, plans, consent)
            # As `delete` does here, also what an earlier deletion has kept is compared again.
            work = [
                one
                for one in ledger.planned.values()
                if one.shard.task == task
                and one.shard.index in ledger.recorded
                # Another shard of the task may have been published since the person was asked.
                and allows(consent, *one)
            ]
    except (CtrateError, OSError) as error:
        # No run began that could record how this attempt ended.
        Attempt(dataset, [task], scheduler, num_workers).end(
            "failed",
            cause=EndCause.ERROR,
            reason=error.one_line() if isinstance(error, CtrateError) else str(error),
            traceback=traceback.format_exc(),
            shards_done=0,
            shards_failed=(),
            samples_converted=0,
            samples_failed=0,
            max_rss_bytes=0,
        )
        raise
    crew = Crew(
        num_workers,
        stop,
        scheduler,
        lock_patience_s=_LOCK_PATIENCE_S,
        may_start=SpaceWatch(dataset.out, round(min_free_gb * GIB), _say).may_start,
        scratch=scratch,
    )
    result = run_work(dataset, work, crew, consent)
    merge_when_due(dataset, None)
    return result


def _believed(dataset: Dataset, name: str) -> Consent | None:
    """Return the submission's consent; warn and return None if it cannot be believed.

    Even if somebody else had a hand in the consent, conversion goes on: every source stays.
    """
    if not name:
        return None
    try:
        return load_consent(dataset, name)
    except (RefusedError, DamageError) as error:
        get_logger().warning(f"every source is kept: {error.one_line()}")
        return None


def _scratch_here(scratch: str) -> Path | None:
    """Return the folder for scratch files on this node; warn and return None if there is none."""
    path = Path(os.path.expandvars(scratch))
    if path.is_absolute() and path.is_dir() and os.access(path, os.W_OK | os.X_OK):
        return path
    get_logger().warning(f"scratch files lie beside the shards: no folder {path} here ({scratch})")
    return None


def _say(paused: bool, free_bytes: int) -> None:
    """Write to the element's log that it pauses for want of space, or goes on."""
    word = "paused" if paused else "going on"
    get_logger().info(f"{word}: {size(max(0, free_bytes))} stay free at the output")


def _is_worth_another_run(result: RunResult, warning_s: int) -> bool:
    """Return True unless a whole time limit was too short for one shard.

    In that case the task needs more time instead of another run. An element that paused for want of
    space did not have its time.
    """
    if result.shards_done or result.paused:
        return True
    left_s = SlurmClient().time_left_s(os.environ.get("SLURM_JOB_ID", ""))
    # The warning comes ``warning_s`` before the limit; far more time left means a preemption.
    return left_s is not None and left_s > 2 * warning_s + 60
