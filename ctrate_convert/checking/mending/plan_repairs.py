"""Plan the repair of damaged shards: convert their samples again, from sources that still exist.

A repair is a generation of the plan like any other: it has new shards, made from the lines that the
damaged shard was planned with. Nothing that is published is touched.
"""

from __future__ import annotations

from collections.abc import Collection

from ctrate_convert.checking.mending.again import Again
from ctrate_convert.errors import EnvironmentProblem, environment_problem
from ctrate_convert.planning.draft import LOCK_PATIENCE_S, draft_of
from ctrate_convert.planning.refusals import numbers_in_use, refuse_foreign
from ctrate_convert.planning.samples.staged import staged
from ctrate_convert.store.durable import PartialFile, publish_directory
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, recorded_numbers
from ctrate_convert.store.locks import locked
from ctrate_convert.store.plans import load_excluded, load_plans
from ctrate_convert.store.records.plan import Plan, PlannedSample


def plan_repairs(dataset: Dataset, damaged: Collection[int]) -> tuple[Plan, ...]:
    """Publish a repair for each plan of the ``damaged`` shards; return all unfinished repairs.

    Every sample in these shards that can be converted again is planned, even if it is sound: a
    shard that was damaged once is not relied on any more. A repair that was planned before and not
    carried out is returned instead of planned again. The new generations propose no deletion: that
    is for the user to ask for anew.

    Raises:
        DamageError: a plan or a record was changed.
        RefusedError: the directory holds shards that no plan has made.
        EnvironmentProblem: no space or permission, or other planners are at work.
    """
    try:
        with locked(dataset.lock("plan"), timeout_s=LOCK_PATIENCE_S):
            for original in load_plans(dataset):
                _publish(dataset, original, damaged)
            return _unfinished(dataset, load_plans(dataset))
    except OSError as error:
        raise environment_problem(error, "planning the repair") from error


def _publish(dataset: Dataset, original: Plan, damaged: Collection[int]) -> None:
    numbers = numbers_in_use(dataset)
    # Again for each plan: the repair of the one before has taken numbers.
    plans = load_plans(dataset)
    refuse_foreign(dataset, plans, numbers)
    found = _repairable(dataset, plans, original, damaged)
    if not found:
        return
    # The place for sources that go belongs to the proposal.
    settings = original.settings.model_copy(update={"delete_source_files": False, "trash": None})
    with PartialFile(dataset.plans / "samples") as file:
        draft = draft_of(
            staged((sample for sample, _ in found.values()), settings, file),
            settings,
            table_sha256=original.table_sha256,
            lists=original.lists,
            excluded=load_excluded(dataset, plans[-1]),
            earlier=plans,
            repairs={key: shard for key, (_, shard) in found.items()},
        )
        published = publish_directory(draft.files, dataset.plan(draft.plan.generation))
    if not published:
        raise EnvironmentProblem(
            "another planner published at the same moment",
            where=dataset.plans,
            next_command=f"ctrate-convert verify {dataset.out} --repair",
        )


def _repairable(
    dataset: Dataset, plans: tuple[Plan, ...], original: Plan, damaged: Collection[int]
) -> dict[str, tuple[PlannedSample, int]]:
    """Return by key the planned line and the damaged shard of each sample to convert again."""
    ledger = Ledger(dataset, plans)
    again = Again(dataset, original)
    under_way = {key for plan in _unfinished(dataset, plans) for key in plan.repairs}
    found = {}
    for shard in original.shards:
        if shard.index not in damaged:
            continue
        live = {one.key for one in ledger.shard(shard.index).live}
        for sample in again.lines(shard):
            if sample.key in live - under_way:
                found[sample.key] = (sample, shard.index)
    return found


def _unfinished(dataset: Dataset, plans: tuple[Plan, ...]) -> tuple[Plan, ...]:
    recorded = recorded_numbers(dataset)
    return tuple(
        plan
        for plan in plans
        if plan.repairs and not all(shard.index in recorded for shard in plan.shards)
    )
