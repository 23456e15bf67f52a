"""Free the disk behind the gate: sources of shards that are proven anew, right now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ctrate_convert.conversion.manifest import merge, planned_shards
from ctrate_convert.conversion.trash import prepare_trash
from ctrate_convert.operations.pool import Message, StopFlag
from ctrate_convert.operations.run import RunResult, load, run_work
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
        for folder in {plan.settings.data_folder for plan in plans}:
            prepare_trash(trash, Path(folder), dataset.out)
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
