"""Mend what describes the shards: plans from their second copy, records from their shards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ctrate_convert.checking.mending.rebuild import rebuild_record
from ctrate_convert.checking.verify import UNKNOWN_SHARD, VerifyReport
from ctrate_convert.errors import DamageError, environment_problem
from ctrate_convert.store.durable import create_once
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.locks import locked
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plan_copies import restore_plan_files
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.damage import Damage
from ctrate_convert.store.records.plan import Plan, PlannedShard
from ctrate_convert.store.set_aside import set_aside

_LOCK_PATIENCE_S = 10.0


@dataclass
class MendReport:
    """The result of mending plans and records.

    ``plan_files`` were restored. ``rebuilt`` names records, ``aside`` the files that damaged ones
    were renamed to. ``uncompared`` names the rebuilt records whose shard no manifest knew: its
    bytes were taken as they are. ``not_rebuilt`` has the other damaged records, each with the
    reason.
    """

    plan_files: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    uncompared: list[str] = field(default_factory=list)
    not_rebuilt: list[tuple[str, str]] = field(default_factory=list)

    @property
    def did_something(self) -> bool:
        """True if a file was restored or rebuilt."""
        return bool(self.plan_files or self.rebuilt)


def mend(dataset: Dataset, found: VerifyReport) -> MendReport:
    """Restore plan files and rebuild records, and take what is mended out of ``found``.

    A record is rebuilt if it is damaged, or if it is missing and its shard is there. The damaged
    file is kept aside. After an interruption the next call goes on.

    Raises:
        EnvironmentProblem: a file cannot be written.
    """
    done = MendReport()
    try:
        plans = require_plans(dataset)
        dataset.prepare()
        mended = _restore_plans(dataset, plans, done)
        rebuilt = _rebuild_records(dataset, plans, done)
    except OSError as error:
        raise environment_problem(error, "mending plans and records") from error
    # The manifest knows the digests of the damaged records, so merge these shards again.
    if rebuilt:
        merge(dataset, plans, again=rebuilt)
    for index in rebuilt:
        mended |= {dataset.record(index).name}
        found.damage = [one for one in found.damage if not _is_unknown_shard(dataset, index, one)]
    found.damage = [one for one in found.damage if one.shard not in mended]
    return done


def _is_unknown_shard(dataset: Dataset, index: int, one: Damage) -> bool:
    return one.shard == dataset.shard(index).name and one.what == UNKNOWN_SHARD


def _restore_plans(dataset: Dataset, plans: Sequence[Plan], done: MendReport) -> set[str]:
    for plan in plans:
        for path in restore_plan_files(dataset.plan(plan.generation)):
            done.plan_files.append(f"{dataset.plans.name}/{path.parent.name}/{path.name}")
    return set(done.plan_files)


def _rebuild_records(dataset: Dataset, plans: Sequence[Plan], done: MendReport) -> list[int]:
    ledger = Ledger(dataset, plans)
    rebuilt = []
    for plan, shard in ledger.planned.values():
        missing = not os.path.lexists(dataset.record(shard.index))
        if shard.index not in ledger.damaged and not (
            missing and os.path.lexists(dataset.shard(shard.index))
        ):
            continue
        name = dataset.record(shard.index).name
        entry = ledger.merged.get(shard.name)
        try:
            _rebuild(dataset, plan, shard, entry.sha256 if entry else None, done)
        except DamageError as error:
            done.not_rebuilt.append((name, error.one_line()))
        except _Busy:
            done.not_rebuilt.append((name, "another process is at this shard"))
        else:
            done.rebuilt.append(name)
            rebuilt.append(shard.index)
            if entry is None:
                done.uncompared.append(name)
    return rebuilt


class _Busy(Exception):
    """Raised if another process holds the shard's lock."""


def _rebuild(
    dataset: Dataset,
    plan: Plan,
    shard: PlannedShard,
    merged_sha256: str | None,
    done: MendReport,
) -> None:
    """Move the shard's damaged record aside, if there is one, and write a rebuilt record."""
    lock = dataset.lock(f"shard-{shard.index:06d}")
    with locked(lock, timeout_s=_LOCK_PATIENCE_S) as mine:
        if not mine:
            raise _Busy
        record = rebuild_record(dataset, plan, shard, merged_sha256)
        path = dataset.record(shard.index)
        # A kill between the two steps leaves no record, and the next call rebuilds it from the
        # shard again.
        with contextlib.suppress(FileNotFoundError):
            aside = set_aside(path)
            done.aside.append(f"{path.parent.name}/{aside.name}")
        # A lock may exclude nobody here, so another process may have written a record.
        if not create_once(path, record.to_json()):
            raise _Busy
