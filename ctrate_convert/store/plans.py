"""Read plans from disk; every read checks the hashes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.errors import DamageError, SettingsError
from ctrate_convert.store.durable import open_regular, read_regular
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plan_copies import PLAN_FILE, load_plan
from ctrate_convert.store.records.base import parse, read, sha256_hex
from ctrate_convert.store.records.plan import (
    ExcludedSample,
    Plan,
    PlannedSample,
    PlannedShard,
    PlanSettings,
)
from ctrate_convert.store.records.record import FailedSample, ShardRecord

SAMPLES_FILE = "samples.jsonl"
EXCLUDED_FILE = "excluded.jsonl"

_RESTORE = "restore the file from a copy; what is published and recorded is untouched"


def load_plans(dataset: Dataset) -> tuple[Plan, ...]:
    """Return all generations of the plan, oldest first; none if nothing was planned yet.

    This reads each ``plan.json``, or its copy if ``plan.json`` is damaged, but not the samples.

    Raises:
        DamageError: a generation is missing, does not continue the one before, or both copies of
            its plan are damaged.
    """
    if not dataset.plans.is_dir():
        return ()
    # A hidden folder is a generation that was not published yet, or never.
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
        plan = load_plan(folder)
        _check_continues(plan, plans, folder)
        plans.append(plan)
    return tuple(plans)


def require_plans(dataset: Dataset) -> tuple[Plan, ...]:
    """Return all plans of the dataset, at least one.

    Raises:
        SettingsError: there is no plan.
        DamageError: as `load_plans`.
    """
    plans = load_plans(dataset)
    if not plans:
        raise SettingsError(
            "no plan here",
            where=dataset.out,
            next_command="ctrate-convert plan --output_dir OUT …, or: ctrate-convert demo",
        )
    return plans


def load_samples(dataset: Dataset, plan: Plan, shard: PlannedShard) -> tuple[PlannedSample, ...]:
    """Return the samples of one shard in its order; only their lines of ``samples.jsonl`` are read.

    Raises:
        DamageError: the lines are not the planned ones.
    """
    path = dataset.plan(plan.generation) / SAMPLES_FILE
    data = check_lines(dataset, plan, shard)
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


def check_lines(dataset: Dataset, plan: Plan, shard: PlannedShard) -> bytes:
    """Return one shard's lines of ``samples.jsonl``, unparsed, after checking their hash.

    Raises:
        DamageError: the lines are not the planned ones.
    """
    path = dataset.plan(plan.generation) / SAMPLES_FILE
    try:
        with open_regular(path) as stream:
            # Fewer bytes, of a file that was cut short, fail the check of the hash.
            data = os.pread(stream.fileno(), shard.lines_size_bytes, shard.lines_offset)
    except FileNotFoundError as error:
        raise _missing(path) from error
    _check_sha256(data, shard.lines_sha256, f"{path}, shard {shard.index}")
    return data


def check_size_of_samples(dataset: Dataset, plan: Plan) -> None:
    """Raise if ``samples.jsonl`` is shorter or longer than the planned lines.

    Raises:
        DamageError: the file has another size than planned.
        OSError: the size cannot be read.
    """
    path = dataset.plan(plan.generation) / SAMPLES_FILE
    seen = path.stat().st_size
    expected = sum(shard.lines_size_bytes for shard in plan.shards)
    if seen != expected:
        raise DamageError(
            "the plan's list of samples has another size than planned",
            where=path,
            seen=f"{seen} bytes",
            expected=f"{expected} bytes",
            next_command=_RESTORE,
        )


def load_excluded(dataset: Dataset, plan: Plan) -> tuple[ExcludedSample, ...]:
    """Return the volumes and rows that ``plan`` excludes, each with its reason.

    Raises:
        DamageError: the list is not the one that was planned.
    """
    path = dataset.plan(plan.generation) / EXCLUDED_FILE
    data = check_excluded(dataset, plan)
    return tuple(parse(ExcludedSample, line, path) for line in data.splitlines())


def check_excluded(dataset: Dataset, plan: Plan) -> bytes:
    """Return the list of exclusions, unparsed, after checking its hash.

    Raises:
        DamageError: the list is not the one that was planned.
    """
    path = dataset.plan(plan.generation) / EXCLUDED_FILE
    try:
        data = read_regular(path)
    except FileNotFoundError as error:
        raise _missing(path) from error
    _check_sha256(data, plan.excluded_sha256, path)
    return data


@dataclass(frozen=True)
class PlannedBefore:
    """All keys that earlier generations have planned, and those that failed when last planned.

    ``failed_with`` holds, by key, the settings under which the sample failed.
    """

    keys: frozenset[str]
    failed: Mapping[str, FailedSample]
    failed_with: Mapping[str, PlanSettings]


def planned_before(dataset: Dataset, plans: Sequence[Plan]) -> PlannedBefore:
    """Return the keys that ``plans`` hold and the samples among them that failed.

    A shard with a damaged record adds no failed sample.

    Raises:
        DamageError: a shard's lines are damaged, and its record is damaged or missing: then it is
            not known which samples were planned.
    """
    keys: set[str] = set()
    failed: dict[str, FailedSample] = {}
    failed_with: dict[str, PlanSettings] = {}
    for plan in plans:
        if plan.repairs:  # its samples were planned and converted by an earlier plan
            continue
        for shard in plan.shards:
            for key in _keys(dataset, plan, shard):
                keys.add(key)
                failed.pop(key, None)
            for failure in _failed(dataset, plan, shard):
                failed[failure.key] = failure
                failed_with[failure.key] = plan.settings
    return PlannedBefore(frozenset(keys), failed, failed_with)


def _keys(dataset: Dataset, plan: Plan, shard: PlannedShard) -> list[str]:
    """Return the keys of one shard from its lines, or from its record if the lines are damaged."""
    try:
        return [sample.key for sample in load_samples(dataset, plan, shard)]
    except DamageError:
        record = _record(dataset, plan, shard)
        if record is None or len(record.samples) != shard.samples:
            raise
        return [sample.key for sample in record.samples]


def _failed(dataset: Dataset, plan: Plan, shard: PlannedShard) -> tuple[FailedSample, ...]:
    record = _record(dataset, plan, shard)
    return record.failed if record else ()


def _record(dataset: Dataset, plan: Plan, shard: PlannedShard) -> ShardRecord | None:
    """Return the shard's record, or None if it is missing, damaged or of another plan."""
    try:
        record = read(ShardRecord, dataset.record(shard.index))
    except (FileNotFoundError, DamageError):
        return None
    is_ours = (record.plan_id, record.shard) == (plan.plan_id, shard.index)
    return record if is_ours else None


def _check_continues(plan: Plan, earlier: Sequence[Plan], folder: Path) -> None:
    """Raise if numbers have a gap, or if a fixed setting differs from the first generation.

    Raises:
        DamageError: the plan does not fit the generations before it.
    """
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
    # Readers expect the same members and array types in every sample.
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
    """Return the first shard number and the first task number that ``plans`` leave free."""
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
