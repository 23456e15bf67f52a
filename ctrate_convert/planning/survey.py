"""Collect everything to plan from: the volumes below the data folder, the tables, the lists."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ctrate_convert.errors import SettingsError
from ctrate_convert.planning.discover import Discovery, discover
from ctrate_convert.sources.kinds import KIND_NAMES
from ctrate_convert.store.records.plan import ExcludedSample, PlanSettings
from ctrate_convert.store.records.volume_list import VolumeList

if TYPE_CHECKING:  # tables.py imports pandas, which is slow
    from ctrate_convert.formats.tables import Tables

_EXAMPLES = 3


@dataclass(frozen=True)
class Survey:
    """The input of a plan.

    ``exclusion_list`` holds the keys of all exclusion lists together, and ``keep_list`` those of
    all keep lists; it is None if none was given. ``lists`` are the records of all of them.
    """

    found: Discovery
    tables: Tables
    exclusion_list: frozenset[str]
    keep_list: frozenset[str] | None
    lists: tuple[VolumeList, ...]


def take_survey(
    settings: PlanSettings,
    output: Path,
    *,
    files_from: Path | None = None,
    on_found: Callable[[int], None] = lambda found: None,
) -> Survey:
    """Look through the data folder and read the tables that ``settings`` name.

    ``files_from`` and ``on_found`` are those of `discover`.

    Raises:
        SettingsError: one of them is missing or unusable, or ``output`` is the data folder.
        EnvironmentProblem: the data folder cannot be read.
    """
    from ctrate_convert.formats.tables import read_tables, read_volume_list

    data_folder = Path(settings.data_folder)
    if output.resolve() == data_folder:
        raise SettingsError(
            "the output directory is the data folder",
            where=data_folder,
            next_command="choose an output directory of its own",
        )
    if output.exists() and not output.is_dir():
        raise SettingsError("the output directory is a file", where=output)
    excluding = [read_volume_list(Path(path), "exclude_file") for path in settings.exclude_file]
    keeping = [read_volume_list(Path(path), "keep_file") for path in settings.keep_file]
    return Survey(
        tables=read_tables(
            Path(settings.reports_file), Path(settings.labels_file), Path(settings.meta_file)
        ),
        found=discover(
            data_folder,
            skip=output.resolve(),
            source=settings.source,
            files_from=files_from,
            on_found=on_found,
        ),
        exclusion_list=frozenset().union(*(keys for _, keys in excluding)),
        keep_list=frozenset().union(*(keys for _, keys in keeping)) if keeping else None,
        lists=tuple(record for record, _ in (*excluding, *keeping)),
    )


def absolute(settings: PlanSettings) -> PlanSettings:
    """Return the settings with every path absolute and its links resolved.

    Raises:
        SettingsError: a path is not text, so that a plan cannot hold it.
    """
    paths = {
        name: _absolute(name, getattr(settings, name))
        for name in ("data_folder", "reports_file", "meta_file", "labels_file")
    }
    trash = _absolute("trash", settings.trash) if settings.trash else None
    lists = {
        name: tuple(_absolute(name, path) for path in getattr(settings, name))
        for name in ("exclude_file", "keep_file")
    }
    return settings.model_copy(update={**paths, **lists, "trash": trash})


def _absolute(name: str, path: str) -> str:
    resolved = os.fspath(Path(path).expanduser().resolve())
    try:
        resolved.encode()
    except UnicodeEncodeError as error:
        raise SettingsError(
            f"the path of --{name} is not UTF-8 text",
            where=ascii(resolved),
            next_command="rename the folder, or name it through a link with another name",
        ) from error
    return resolved


def nothing_to_convert(survey: Survey, excluded: Sequence[ExcludedSample]) -> SettingsError:
    """Return the error for a plan without samples; it shows the names that were seen."""
    tables, kind = survey.tables, survey.found.kind
    listed = sorted(tables.keys())
    stems = list(islice(survey.found.files, _EXAMPLES))
    seen = [
        f"{len(survey.found.files)} {KIND_NAMES[kind]} names{_such_as(stems)}",
        *(
            f"{len(table)} rows in {table.path.name}{_such_as(list(islice(table, _EXAMPLES)))}"
            for table in tables.by_setting.values()
        ),
        "excluded: " + _counts(excluded),
    ]
    inputs = "--data_folder and the three tables"
    if survey.keep_list is not None:
        kept = sorted(survey.keep_list)[:_EXAMPLES]
        seen.insert(-1, f"{len(survey.keep_list)} names on the keep lists{_such_as(kept)}")
        inputs = "--data_folder, the three tables and --keep_file"
    return SettingsError(
        "no volume can be converted",
        where=survey.found.data_folder,
        seen="; ".join(seen),
        expected=f"{KIND_NAMES[kind]} files named as the tables' VolumeName"
        + _such_as([f"{key}{'.npz' if kind == 'npz' else '.nii.gz'}" for key in listed[:1]]),
        next_command=f"check {inputs}: do they belong to one split?",
    )


def _counts(excluded: Sequence[ExcludedSample]) -> str:
    counts = Counter(sample.reason for sample in excluded)
    return ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items())) or "none"


def _such_as(names: Sequence[str]) -> str:
    return f" (such as {', '.join(names)})" if names else ""
