"""Write an index for another reader into a folder, with links to the shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.errors import (
    DamageError,
    ExitCode,
    SettingsError,
    environment_problem,
)
from ctrate_convert.exporting.export import require_outside
from ctrate_convert.exporting.indexes.as_dali import dali_files
from ctrate_convert.exporting.indexes.as_energon import energon_files
from ctrate_convert.exporting.indexes.as_wids import wids_files
from ctrate_convert.exporting.indexes.own_folder import Kind, write_folder
from ctrate_convert.exporting.indexes.places import PlacedShard, load_places
from ctrate_convert.store.layout import Dataset

_FILES: dict[Kind, Callable[[Sequence[PlacedShard]], dict[str, bytes]]] = {
    "wids": wids_files,
    "dali": dali_files,
    "energon": energon_files,
}


@dataclass(frozen=True)
class IndexReport:
    """The index that was written.

    ``samples`` are those that count. ``superseded`` are copies in the tars that a repair has
    replaced. ``kept`` are files that somebody changed since they were written. ``failed`` are the
    shards that are not in the index, each with the reason.
    """

    index: Kind
    folder: str
    shards: int
    samples: int
    superseded: int
    written: int
    removed: int
    kept: list[str]
    failed: list[tuple[str, str]]
    exit_code: ExitCode


def export_index(dataset: Dataset, folder: Path, index: Kind) -> IndexReport:
    """Make ``folder`` a dataset that another reader opens: links to the shards, and its index.

    All places come from the records; no shard is opened. The same call again brings the folder up
    to date, and overwrites only what it wrote itself. A damaged shard is left out.

    Raises:
        SettingsError: no shard is published yet, or ``folder`` lies in the dataset directory.
        RefusedError: the folder holds other files of these names; nothing was changed.
        DamageError: no shard is left.
        EnvironmentProblem: the folder cannot be written.
    """
    require_outside(dataset, folder)
    try:
        places = load_places(dataset)
        if not places.shards:
            raise _nothing(dataset, places.left_out)
        links = {one.name: one.path.absolute() for one in places.shards}
        report = write_folder(folder, index, {**links, **_FILES[index](places.shards)})
    except OSError as error:
        raise environment_problem(error, "writing an index", folder) from error
    return IndexReport(
        index=index,
        folder=str(folder),
        shards=len(places.shards),
        samples=sum(len(one.live) for one in places.shards),
        superseded=sum(len(one.samples) - len(one.live) for one in places.shards),
        written=report.written,
        removed=report.removed,
        kept=report.kept,
        failed=places.left_out,
        exit_code=ExitCode.DAMAGE if places.left_out else ExitCode.DONE,
    )


def _nothing(dataset: Dataset, left_out: Sequence[tuple[str, str]]) -> SettingsError | DamageError:
    if left_out:
        return DamageError(
            "no shard is left for an index",
            where=dataset.out,
            seen=": ".join(left_out[0]),
            next_command=f"ctrate-convert verify {dataset.out} --full",
        )
    return SettingsError(
        "no shard is published yet",
        where=dataset.out,
        next_command=f"ctrate-convert run {dataset.out}",
    )
