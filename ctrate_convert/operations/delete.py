"""Free the disk behind the gate: sources of shards that are proven anew, right now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ctrate_convert.conversion.manifest import merge, planned_shards
from ctrate_convert.conversion.plans import load_plans
from ctrate_convert.conversion.trash import prepare_trash_for
from ctrate_convert.errors import RefusedError
from ctrate_convert.operations.pending import load, pending_work
from ctrate_convert.operations.pool import Message, StopFlag
from ctrate_convert.operations.result import RunResult
from ctrate_convert.operations.run import run_work
from ctrate_convert.operations.sources import Source, survey
from ctrate_convert.paths import Dataset


def deletable_sources(dataset: Dataset) -> list[Source]:
    """All sources with their states; nothing is changed."""
    return list(survey(dataset, load(dataset)))


def delete_sources_of(
    dataset: Dataset,
    sources: Sequence[Source],
    *,
    num_workers: int,
    authorised_by: str,
    trash: Path | None = None,
    stop: StopFlag | None = None,
    on_change: Callable[[RunResult, Message], None] = lambda result, message: None,
) -> RunResult:
    """Read each shard that has deletable sources again from storage, then let the gate delete.

    Interrupted deletions of an earlier call are finished on the way. With ``trash`` sources are
    moved there, whatever the plan says.

    Raises:
        SettingsError: ``trash`` cannot serve.
    """
    plans = load(dataset)
    if trash:
        prepare_trash_for(trash, plans, dataset.out)
    merge(dataset, plans)
    by_index = planned_shards(plans)
    shards = sorted(
        {
            source.shard
            for source in sources
            if source.shard is not None and (source.state == "deletable" or source.interrupted)
        }
    )
    return run_work(
        dataset,
        plans,
        [by_index[index] for index in shards],
        num_workers=num_workers,
        authorised_by=authorised_by,
        trash=trash,
        stop=stop,
        on_change=on_change,
    )


def refuse_deletion_for_good(dataset: Dataset, trash: Path) -> None:
    """A further plan's trash is not that of an earlier one, whose sources would be deleted.

    Raises:
        RefusedError: an earlier plan deletes sources, not all are settled, and it names no trash
            or another.
    """
    for plan, _ in pending_work(dataset, load_plans(dataset), deleting=False):
        settings = plan.settings
        if settings.delete_source_files and settings.trash != str(trash):
            raise RefusedError(
                "an earlier plan lets sources go that await it, and a plan never changes",
                where=dataset.out,
                seen=f"--trash {settings.trash}" if settings.trash else "no --trash",
                expected=f"--trash {trash}",
                next_command="give `convert` with --delete_source_files and --trash: it moves the "
                "sources of every plan",
            )
