"""Tell the state of every source file, from plans, records and journals."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from ctrate_convert.deleting.proposal import Candidate
from ctrate_convert.deleting.trash import last_lines, lies_in_trash
from ctrate_convert.errors import DamageError, RefusedError
from ctrate_convert.store.journals import (
    folder_inodes,
    is_done,
    open_intents,
    read_journal,
    restored_lines,
    restored_words,
)
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, planned_shards
from ctrate_convert.store.plans import load_excluded, load_samples
from ctrate_convert.store.presence import Presence, presence
from ctrate_convert.store.records.plan import Plan, PlannedShard
from ctrate_convert.store.records.record import ShardRecord

T = TypeVar("T")

State = Literal["deletable", "kept", "failed", "pending", "excluded", "deleted", "trashed", "gone"]


@dataclass(frozen=True)
class Source:
    """One source file (or the place where it was), its state and the reason.

    ``deletable``: converted; it may go if the comparison at deletion finds it equal to its sample.
    ``kept``: converted, but it stays. ``trashed``: moved to the place that ``reason`` names.
    ``gone``: missing, and this program did not delete it. ``stayed``: a deletion kept it before,
    for the ``reason``.
    """

    key: str
    source: str
    size_bytes: int
    state: State
    reason: str
    shard: int | None = None
    interrupted: bool = False
    dtype: str = ""
    max_abs_error: float | None = None
    stayed: bool = False


def refuse_views(dataset: Dataset, plans: Iterable[Plan]) -> None:
    """Refuse to delete what views were made from.

    Raises:
        RefusedError: the plans are of views.
    """
    for plan in plans:
        if plan.settings.view is not None:
            raise RefusedError(
                "the shards that views were made from are never deleted", where=dataset.out,
                seen=f"views of {plan.settings.data_folder}",
                next_command="ctrate-convert delete, of that dataset, lets its sources go",
            )  # fmt: skip


def survey(dataset: Dataset, plans: Sequence[Plan]) -> Iterator[Source]:
    """Yield every source of the plans in shard order, the excluded sources last.

    Views have none: their sources are the shards of another dataset, which nothing here lets go.

    Sources described by damaged lines of a plan are left out; `find_damage` names those lines.
    """
    if any(plan.settings.view for plan in plans):
        return
    ledger = Ledger(dataset, plans)
    retried = {key: plan.generation for plan in plans for key in plan.retries}
    for index, (plan, shard) in ledger.planned.items():
        if index in ledger.recorded:
            try:
                one = ledger.shard(index)
            except (DamageError, OSError):
                yield from _of_damaged_record(dataset, plan, shard, ledger.superseded)
                continue
            for source in _of_record(dataset, plan, one.record, retried):
                if source.key in one.superseded:
                    continue  # its new shard yields it
                if plan.repairs and source.state == "failed":
                    continue  # the shard that still holds it yielded it
                yield source
            continue
        # The shard that a repair is to replace has yielded these sources already.
        if plan.repairs:
            continue
        for sample in _readable(load_samples, dataset, plan, shard):
            yield Source(
                sample.key, sample.source, sample.source_size_bytes, "pending",
                "not converted yet", index, dtype=sample.header.dtype if sample.header else "",
            )  # fmt: skip
    # The newest plan's list holds for the whole dataset.
    for excluded in _readable(load_excluded, dataset, plans[-1]):
        if excluded.source is not None:
            yield Source(
                excluded.key, excluded.source, excluded.source_size_bytes, "excluded",
                f"{excluded.reason}: {excluded.detail}" if excluded.detail else excluded.reason,
            )  # fmt: skip


def _readable(load: Callable[..., tuple[T, ...]], *what: object) -> tuple[T, ...]:
    """Return what ``load`` returns for a plan's list; an empty tuple if its lines are damaged."""
    try:
        return load(*what)
    except (DamageError, OSError):
        return ()


def _of_damaged_record(
    dataset: Dataset, plan: Plan, shard: PlannedShard, superseded: Mapping[int, Collection[str]]
) -> Iterator[Source]:
    """Yield the sources of a shard whose record is unreadable: kept, or gone before."""
    deleted = {line.key for line in read_journal(dataset, shard.index) if is_done(line)}
    folder = Path(plan.settings.data_folder)
    for sample in _readable(load_samples, dataset, plan, shard):
        if sample.key in superseded.get(shard.index, ()):
            continue  # it comes with its new shard
        if plan.repairs and sample.key not in superseded.get(plan.repairs[sample.key], ()):
            continue  # it came with the shard that holds it still
        state: State = "gone"
        reason = "missing, and the record of its shard is damaged"
        seen = presence(folder, sample.source)
        if sample.key in deleted and seen is not Presence.THERE:
            state, reason = "deleted", "deleted after it was compared with its shard"
        elif seen is not Presence.GONE:
            state, reason = "kept", f"the record of {shard.name} is damaged"
        yield Source(
            sample.key, sample.source, sample.source_size_bytes, state, reason, shard.index
        )


def _of_record(
    dataset: Dataset, plan: Plan, record: ShardRecord, retried: Mapping[str, int]
) -> Iterator[Source]:
    """Yield the sources of a recorded shard; a sample is listed where it was planned last.

    ``retried`` has the last generation that tried a failed sample again, by key.
    """
    journal = read_journal(dataset, record.shard)
    newest = last_lines(journal)
    latest = {line.key: line for line in journal}
    deleted = {key for key, line in newest.items() if is_done(line)}
    interrupted = open_intents(journal)
    folder = Path(plan.settings.data_folder)
    restored = restored_lines(journal)
    inodes = folder_inodes(journal)
    for sample in record.converted:
        name, size_bytes = sample.source.source, sample.source.size_bytes
        seen = presence(folder, name, inodes.get(sample.key, 0))
        state: State
        last = latest.get(sample.key)
        stayed = False
        # Before UNSEEN: a folder that the deletion emptied may have been removed since.
        if sample.key in deleted and seen is not Presence.THERE:
            state, reason = "deleted", "deleted after it was compared with its shard"
            if newest[sample.key].event == "trashed":
                state, reason = "trashed", f"moved to {newest[sample.key].trash}"
        elif seen is Presence.UNSEEN:
            state, reason = "kept", "the folder that it is in cannot be seen now"
        elif (
            # As at the gate: if the moved file still lies in the trash, the file here is another
            # one.
            seen is Presence.THERE
            and sample.key in restored
            and not lies_in_trash(restored[sample.key], record.shard, sample.source)
        ):
            state, reason = "kept", restored_words(restored[sample.key])
        elif seen is Presence.THERE:
            state, reason = "deletable", "converted, not deleted"
            if last is not None and last.event in ("kept", "undecided"):
                stayed, reason = True, f"{last.reason} ({last.time})"
        elif sample.key in interrupted and lies_in_trash(
            interrupted[sample.key], record.shard, sample.source
        ):
            state = "trashed"
            reason = f"moved to {interrupted[sample.key].trash}; the journal awaits its last line"
        elif sample.key in interrupted:
            state, reason = "deleted", "deleted by a command that was killed before it said so"
        else:
            state, reason = "gone", "missing, though this program did not delete it"
        yield Source(
            sample.key, name, size_bytes, state, reason, record.shard, sample.key in interrupted,
            sample.source_header.dtype, sample.array.max_abs_error, stayed,
        )  # fmt: skip
    for failure in record.failed:
        if retried.get(failure.key, 0) <= plan.generation:
            size_bytes = 0
            if (folder / failure.source).is_file():
                size_bytes = (folder / failure.source).stat().st_size
            yield Source(
                failure.key, failure.source, size_bytes, "failed", failure.reason, record.shard
            )


def candidates(
    sources: Iterable[Source], plans: Sequence[Plan], *, pending: bool
) -> Iterator[Candidate]:
    """Yield a candidate for each source that may go; with ``pending``, for pending ones too."""
    planned = planned_shards(plans)
    states = {"deletable", "pending"} if pending else {"deletable"}
    for source in sources:
        if source.shard in planned and source.state in states:
            plan, shard = planned[source.shard]
            yield Candidate(
                plan,
                shard.index,
                shard.task,
                source.size_bytes,
                source.dtype,
                source.max_abs_error,
                os.path.dirname(os.path.join(plan.settings.data_folder, source.source)),  # noqa: PTH118, PTH120
            )


@dataclass(frozen=True)
class SourceTotals:
    """The number of source files in a state, and their bytes."""

    files: int
    size_bytes: int


def totals(sources: Sequence[Source]) -> dict[str, SourceTotals]:
    """Return the number of files and their bytes by state."""
    found: dict[str, list[int]] = {}
    for source in sources:
        sums = found.setdefault(source.state, [0, 0])
        sums[0] += 1
        sums[1] += source.size_bytes
    return {state: SourceTotals(*sums) for state, sums in found.items()}
