"""Read plans back: a plan is believed only where its hashes fit, every time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.durable import open_regular, read_regular
from ctrate_convert.errors import DamageError
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.base import parse, read, sha256_hex
from ctrate_convert.schemas.plan import (
    ExcludedSample,
    Plan,
    PlannedSample,
    PlannedShard,
    PlanSettings,
)
from ctrate_convert.schemas.record import FailedSample, ShardRecord

PLAN_FILE = "plan.json"
SAMPLES_FILE = "samples.jsonl"
EXCLUDED_FILE = "excluded.jsonl"

_RESTORE = "restore the file from a copy; what is published and recorded is untouched"


def load_plans(dataset: Dataset) -> tuple[Plan, ...]:
    """All generations of the dataset's plan, oldest first; none where nothing was planned yet.

    Reads each ``plan.json``, not the samples.

    Raises:
        DamageError: a generation is missing, was changed, or does not continue the one before.
    """
    if not dataset.plans.is_dir():
        return ()
    # Hidden names are generations that never got published.
    names = sorted(path.name for path in dataset.plans.iterdir() if path.name[0] != ".")
    plans: list[Plan] = []
    for generation in range(len(names)):
        folder = dataset.plan(generation)
        if folder.name not in names:
            raise DamageError(
                "a generation of the plan is missing",
                where=dataset.plans,
                seen=", ".join(names),
                expected=folder.name,
                next_command="restore it from a copy; move away what is not a generation",
            )
        plan = _load_plan(folder)
        _check_continues(plan, plans, folder)
        plans.append(plan)
    return tuple(plans)


def load_samples(dataset: Dataset, plan: Plan, shard: PlannedShard) -> tuple[PlannedSample, ...]:
    """The samples of one shard, in its order; reads only their lines of ``samples.jsonl``.

    Raises:
        DamageError: the lines are not the planned ones.
    """
    path = dataset.plan(plan.generation) / SAMPLES_FILE
    try:
        with open_regular(path) as stream:
            data = os.pread(stream.fileno(), shard.lines_size_bytes, shard.lines_offset)
    except FileNotFoundError as error:
        raise _missing(path) from error
    _check_sha256(data, shard.lines_sha256, f"{path}, shard {shard.index}")
    samples = tuple(parse(PlannedSample, line, path) for line in data.splitlines())
    if len(samples) != shard.samples:
        raise DamageError(
            "the plan has another number of samples than lines",
            where=f"{path}, shard {shard.index}",
            seen=len(samples),
            expected=shard.samples,
            next_command=_RESTORE,
        )
    return samples


def load_excluded(dataset: Dataset, plan: Plan) -> tuple[ExcludedSample, ...]:
    """What is not converted, and why, as ``plan``'s generation saw it.

    Raises:
        DamageError: the list is not the one that was planned.
    """
    path = dataset.plan(plan.generation) / EXCLUDED_FILE
    try:
        data = read_regular(path)
    except FileNotFoundError as error:
        raise _missing(path) from error
    _check_sha256(data, plan.excluded_sha256, path)
    return tuple(parse(ExcludedSample, line, path) for line in data.splitlines())


@dataclass(frozen=True)
class PlannedBefore:
    """Every key that a generation has planned, and which of them failed where planned last.

    ``failed_with`` are the settings under which they failed.
    """

    keys: frozenset[str]
    failed: Mapping[str, FailedSample]
    failed_with: Mapping[str, PlanSettings]


def planned_before(dataset: Dataset, plans: Sequence[Plan]) -> PlannedBefore:
    """What ``plans`` hold and what became of it.

    Raises:
        DamageError: a plan or a record was changed.
    """
    keys: set[str] = set()
    failed: dict[str, FailedSample] = {}
    failed_with: dict[str, PlanSettings] = {}
    for plan in plans:
        if plan.repairs:  # of samples that an earlier one has planned and converted
            continue
        for shard in plan.shards:
            for sample in load_samples(dataset, plan, shard):
                keys.add(sample.key)
                failed.pop(sample.key, None)
            for failure in _failed(dataset, plan, shard):
                failed[failure.key] = failure
                failed_with[failure.key] = plan.settings
    return PlannedBefore(frozenset(keys), failed, failed_with)


def _failed(dataset: Dataset, plan: Plan, shard: PlannedShard) -> tuple[FailedSample, ...]:
    path = dataset.record(shard.index)
    try:
        record = read(ShardRecord, path)
    except FileNotFoundError:
        return ()
    if record.plan_id != plan.plan_id:
        raise DamageError(
            "a shard's record belongs to another plan",
            where=path,
            seen=record.plan_id,
            expected=plan.plan_id,
        )
    return record.failed


def _load_plan(folder: Path) -> Plan:
    path = folder / PLAN_FILE
    try:
        plan = read(Plan, path)
        samples_size = (folder / SAMPLES_FILE).stat().st_size
    except FileNotFoundError as error:
        raise _missing(Path(error.filename)) from error
    except NotADirectoryError as error:
        raise DamageError("not a generation of a plan", where=folder) from error
    if plan.content_id() != plan.plan_id:
        raise DamageError(
            "the plan was changed after it was written",
            where=path,
            seen=plan.content_id(),
            expected=plan.plan_id,
            next_command=_RESTORE,
        )
    planned_size = sum(shard.lines_size_bytes for shard in plan.shards)
    if samples_size != planned_size:
        raise DamageError(
            "the plan's list of samples has another size than planned",
            where=folder / SAMPLES_FILE,
            seen=f"{samples_size} bytes",
            expected=f"{planned_size} bytes",
            next_command=_RESTORE,
        )
    return plan


def _check_continues(plan: Plan, earlier: Sequence[Plan], folder: Path) -> None:
    """Numbers go on without a gap, and what must not change between generations has not."""
    shard, task = next_numbers(earlier)
    numbers = [s.index for s in plan.shards]
    tasks = [s.task for s in plan.shards]
    facts: list[tuple[str, object, object]] = [
        ("generation", plan.generation, len(earlier)),
        ("has shards", bool(plan.shards), True),
        ("all or no samples are repairs", len(plan.repairs) in (0, plan.samples), True),
        ("samples in shards", sum(s.samples for s in plan.shards), plan.samples),
        ("first shard number", numbers[:1], [shard]),
        ("shard numbers in a row", numbers == _count(shard, len(numbers)), True),
        ("first task number", tasks[:1], [task]),
        ("tasks in order", tasks == sorted(tasks), True),
        ("task numbers in a row", list(plan.tasks) == _count(task, len(plan.tasks)), True),
        ("lines in a row", [s.lines_offset for s in plan.shards] == _offsets(plan), True),
    ]
    if earlier:
        now, first = plan.settings, earlier[0].settings
        facts.append(("layout", now.layout, first.layout))
        facts.append(("encoding", now.encoding, first.encoding))
        facts.append(("dtype", now.dtype, first.dtype))
    for name, seen, expected in facts:
        if seen != expected:
            raise DamageError(
                f"the plan does not fit the generations before it: {name}",
                where=folder / PLAN_FILE,
                seen=seen,
                expected=expected,
                next_command=_RESTORE,
            )


def next_numbers(plans: Sequence[Plan]) -> tuple[int, int]:
    """The first shard number and the first task number that ``plans`` leave free."""
    if not plans:
        return 0, 0
    last = plans[-1].shards[-1]
    return last.index + 1, last.task + 1


def _count(first: int, number: int) -> list[int]:
    return list(range(first, first + number))


def _offsets(plan: Plan) -> list[int]:
    offsets = []
    position = 0
    for shard in plan.shards:
        offsets.append(position)
        position += shard.lines_size_bytes
    return offsets


def _check_sha256(data: bytes, expected: str, where: object) -> None:
    seen = sha256_hex(data)
    if seen != expected:
        raise DamageError(
            "the plan's list was changed after it was written",
            where=where,
            seen=f"sha256 {seen}",
            expected=f"sha256 {expected}",
            next_command=_RESTORE,
        )


def _missing(path: Path) -> DamageError:
    return DamageError("a file of the plan is missing", where=path, next_command=_RESTORE)
