"""Find the volumes below the data folder, at any depth; a file's stem is its sample's key."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.errors import SettingsError
from ctrate_convert.planning.walk import FoundFile, Walk, listed_in
from ctrate_convert.store.privacy import Permission
from ctrate_convert.store.records.plan import SourceChoice, SourceKind


@dataclass(frozen=True)
class Discovery:
    """All files by stem, and everything that was not looked into.

    ``kind`` is that of all files; ``of_other_kind`` counts those of the other, which are ignored.
    ``linked_folders`` are symbolic links to folders, which are not entered. ``unreadable`` are
    folders and files that could not be opened or are not files, each with the cause.
    ``permissions`` are all permissions that a file has, and ``holding_folders`` all folders that
    hold one. ``from_a_list`` is True if only the files on a list were looked at.
    """

    data_folder: Path
    kind: SourceKind
    of_other_kind: int
    files: Mapping[str, tuple[FoundFile, ...]]
    linked_folders: tuple[str, ...]
    unreadable: tuple[str, ...]
    permissions: frozenset[Permission]
    holding_folders: frozenset[Path]
    from_a_list: bool


def discover(
    data_folder: Path,
    *,
    skip: Path,
    source: SourceChoice = "auto",
    files_from: Path | None = None,
    on_found: Callable[[int], None] = lambda found: None,
) -> Discovery:
    """Look through ``data_folder``, entering neither hidden folders nor links nor ``skip``.

    With ``files_from``, the files that this list names are taken instead. ``on_found`` is called
    with the number of volumes found, now and then.

    Raises:
        SettingsError: ``data_folder`` is missing or no folder, or holds both kinds of volumes and
            ``source`` does not say which counts; or the list cannot be read.
        EnvironmentProblem: it cannot be read.
    """
    if not data_folder.is_dir():
        raise SettingsError(
            "--data_folder is no folder" if data_folder.exists() else "--data_folder is missing",
            where=data_folder,
            next_command="check the path given as --data_folder",
        )
    listed = listed_in(files_from) if files_from else None
    walk = Walk(os.fspath(data_folder), os.fspath(skip), listed, on_found)
    files: dict[str, list[FoundFile]] = {}
    volumes = list(walk)
    on_found(len(volumes))
    kinds = Counter(found.kind for found in volumes)
    kind = _kind_that_counts(data_folder, kinds, source)
    for found in volumes:
        if found.kind == kind:
            files.setdefault(found.stem, []).append(found)
    return Discovery(
        data_folder=data_folder,
        kind=kind,
        of_other_kind=kinds.total() - kinds[kind],
        files={
            stem: tuple(sorted(group, key=lambda found: found.source))
            for stem, group in files.items()
        },
        linked_folders=tuple(sorted(walk.linked_folders)),
        unreadable=tuple(sorted(walk.unreadable)),
        permissions=frozenset(walk.permissions),
        holding_folders=frozenset(data_folder / folder for folder in walk.holding_folders),
        from_a_list=listed is not None,
    )


def _kind_that_counts(
    data_folder: Path, kinds: Mapping[SourceKind, int], source: SourceChoice
) -> SourceKind:
    """Return ``source``, or the kind of all volumes if it is ``auto``.

    Raises:
        SettingsError: there are volumes of both kinds.
    """
    if source != "auto":
        return source
    if len(kinds) > 1:
        raise SettingsError(
            "--data_folder holds volumes of two kinds, and which count cannot be guessed",
            where=data_folder,
            seen=f"{kinds['npz']:,} NPZ, {kinds['nifti']:,} NIfTI",
            next_command="give the same command with --source npz or --source nifti",
        )
    return next(iter(kinds), "npz")
