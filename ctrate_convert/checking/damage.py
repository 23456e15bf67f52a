"""Find damaged plans and records: each command names them and goes on without them.

These checks look only as far as each command must; `verify` looks at everything.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

from ctrate_convert.errors import DamageError
from ctrate_convert.store.durable import open_regular
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, identity
from ctrate_convert.store.plan_copies import PLAN_COPY_FILE, PLAN_FILE, PlanFile, plan_files
from ctrate_convert.store.plans import (
    EXCLUDED_FILE,
    SAMPLES_FILE,
    check_excluded,
    check_lines,
)
from ctrate_convert.store.records.damage import Damage
from ctrate_convert.store.records.plan import Plan, PlannedShard


def mend_command(dataset: Dataset) -> str:
    """Return the command that restores plans and rebuilds records."""
    return f"ctrate-convert verify {dataset.out} --full --repair"


def find_damage(ledger: Ledger) -> list[Damage]:
    """Return what is wrong with the files of the plans and with the records of their shards."""
    dataset, plans = ledger.dataset, ledger.plans
    found = [one for plan in plans for one in _damaged_plan(ledger, plan)]
    for index, what in ledger.damaged.items():
        name = f"{dataset.records.name}/{dataset.record(index).name}"
        found.append(Damage(name, None, f"{what}; rebuild it with: {mend_command(dataset)}"))
    return found


def _damaged_plan(ledger: Ledger, plan: Plan) -> list[Damage]:
    """Return what is wrong with one plan's files, unless they are those that were found sound."""
    folder = ledger.dataset.plan(plan.generation)
    seen: list[object] = [plan.plan_id]
    with contextlib.suppress(OSError):
        for name in (PLAN_FILE, PLAN_COPY_FILE, SAMPLES_FILE, EXCLUDED_FILE):
            seen.append(identity(folder / name))
        if ledger.sound.get(folder.name) == tuple(seen):
            return []
    found = [*damaged_plan_files(ledger.dataset, [plan]), *_damaged_lists(ledger.dataset, plan)]
    if not found:
        ledger.sound[folder.name] = tuple(seen)
    return found


def damaged_plan_files(dataset: Dataset, plans: Sequence[Plan]) -> Iterator[Damage]:
    """Yield the damage in each generation's ``plan.json`` and its copy, or between the two.

    A generation that an earlier version wrote has no copy; that is no damage.
    """
    for plan in plans:
        first, second = plan_files(dataset.plan(plan.generation))
        for file in (first, second):
            if file.plan is None and not (file is second and file.is_missing):
                what = f"{file.reason}; restore it with: {mend_command(dataset)}"
                yield Damage(_name(dataset, plan, file), None, what)
        # Both files can be read, yet they do not hold the same bytes.
        if first.plan is not None and second.plan is not None and first.data != second.data:
            yield Damage(_name(dataset, plan, second), None, _difference(dataset, first, second))


def generations_without_a_copy(dataset: Dataset, plans: Sequence[Plan]) -> list[int]:
    """Return the generations whose plan is in one file only."""
    return [
        plan.generation for plan in plans if plan_files(dataset.plan(plan.generation))[1].is_missing
    ]


def place_of_lines(shard: PlannedShard) -> str:
    """Describe, for people, where a shard's lines are in the list of samples."""
    end = shard.lines_offset + shard.lines_size_bytes
    return f"the lines of {shard.name} (bytes {shard.lines_offset}–{end})"


def told(error: DamageError | OSError) -> str:
    """Return the facts of ``error`` without its place, which the finding names already."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    seen = f": seen {error.seen}, expected {error.expected}" if error.seen else ""
    return f"{error.what}{seen}" + (f"; {error.next_command}" if error.next_command else "")


def _damaged_lists(dataset: Dataset, plan: Plan) -> Iterator[Damage]:
    folder = f"{dataset.plans.name}/{dataset.plan(plan.generation).name}"
    # Only if the whole list is not the planned one, each shard's lines tell where it differs.
    for shard in () if _is_planned_list(dataset, plan) else plan.shards:
        try:
            check_lines(dataset, plan, shard)
        except (DamageError, OSError) as error:
            what = f"{place_of_lines(shard)}: {told(error)}"
            yield Damage(f"{folder}/{SAMPLES_FILE}", None, what)
    try:
        check_excluded(dataset, plan)
    except (DamageError, OSError) as error:
        yield Damage(f"{folder}/{EXCLUDED_FILE}", None, told(error))


def _is_planned_list(dataset: Dataset, plan: Plan) -> bool:
    digest = hashlib.sha256()
    try:
        with open_regular(dataset.plan(plan.generation) / SAMPLES_FILE) as stream:
            while block := stream.read(2**20):
                digest.update(block)
    except (DamageError, OSError):
        return False
    return digest.hexdigest() == plan.samples_sha256


def _name(dataset: Dataset, plan: Plan, file: PlanFile) -> str:
    return f"{dataset.plans.name}/{dataset.plan(plan.generation).name}/{file.path.name}"


def _difference(dataset: Dataset, first: PlanFile, second: PlanFile) -> str:
    # The same plan in other bytes can be restored safely; of two different plans a person must
    # choose one.
    if first.plan == second.plan:
        return f"differs from {first.path.name}; restore it with: {mend_command(dataset)}"
    return (
        f"holds another plan than {first.path.name}, which counts; move {PLAN_COPY_FILE} away "
        f"if that is right, then: {mend_command(dataset)}"
    )
