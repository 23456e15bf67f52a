"""The work of an element of a verification or an audit: do its units, and write each result.

Nothing else is written, so the element may end anywhere. A unit that has its result is not done
again by a requeued element, nor by the next submission.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from ctrate_convert.checking.check_files import load_check
from ctrate_convert.checking.units import UnitToDo, do_unit, unit_to_do
from ctrate_convert.cluster.element import refuse_if_given_up
from ctrate_convert.errors import CtrateError, DamageError, Interrupted
from ctrate_convert.running.each_process import each_in_a_process
from ctrate_convert.running.parent import start_forkserver
from ctrate_convert.running.pool import TIME_LIMIT_WARNING
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.check import Unit
from ctrate_convert.store.records.plan import shard_name


def work(
    out: str, submission: int, check: int, task: int, num_workers: int, units: Sequence[str]
) -> dict[str, Any]:
    """Do the units of one task, which are lines of JSON; raise an error unless all have a result.

    At the warning before the time limit, the element is requeued if it has come on at all.
    """
    dataset = Dataset(Path(out))
    refuse_if_given_up(dataset, submission, task)
    files = load_check(dataset, check)
    mine = [Unit.model_validate_json(line) for line in units]
    ledger = Ledger(dataset, require_plans(dataset))
    before = [unit for unit in mine if files.result(unit, ledger) is None]
    todo: list[UnitToDo] = []
    errors: list[CtrateError] = []
    for unit in before:
        try:
            todo.append(unit_to_do(ledger, files.check, unit))
        except (FileNotFoundError, KeyError):
            what = f"the record of {shard_name(unit.shard)} is gone"
            errors.append(DamageError(what, where=dataset.record(unit.shard)))
        except DamageError as error:
            errors.append(error)
    # The smallest first: one that is too large for the time limit keeps none from being checked.
    todo.sort(key=lambda one: one.recorded.shard.source_bytes)
    # Slurm signals every process of a step; only this one may act on the warning.
    start_forkserver([do_unit.__module__], ignored=(TIME_LIMIT_WARNING,))
    requeue = signal.signal(TIME_LIMIT_WARNING, _stop)
    try:
        each_in_a_process(do_unit, todo, num_workers)
    except _Warned as warned:
        signal.signal(TIME_LIMIT_WARNING, requeue)
        if any(files.result(unit, ledger) for unit in before):
            # submitit's own handler requeues the element with the same units.
            signal.raise_signal(TIME_LIMIT_WARNING)
        raise Interrupted(
            "the time limit was too short for one shard",
            next_command="the same command with --timeout_min MINUTES",
        ) from warned
    finally:
        signal.signal(TIME_LIMIT_WARNING, requeue)
    if errors:
        raise errors[0]
    return {"exit_code": 0, "units": len(mine)}


class _Warned(Exception):
    """The warning before the time limit has come."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Warned
