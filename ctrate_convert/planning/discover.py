"""Find the volumes below the data folder, at any depth; a file's stem is its sample's key."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.errors import SettingsError, environment_problem
from ctrate_convert.sources.kinds import split_name
from ctrate_convert.store.presence import ASIDE_SUFFIX, PROVEN_SUFFIX
from ctrate_convert.store.privacy import Permission
from ctrate_convert.store.records.plan import SourceChoice, SourceKind

_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)
_LEFT_ASIDE = "aside for a deletion; if that was killed, `restore` gives the name back"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that is named as a volume; ``source`` is its path below the data folder.

    ``problem`` tells why the name cannot be kept; odd bytes in such names are escaped. ``linked``:
    the name is a symbolic link, and the numbers are its target's.
    """

    stem: str
    kind: SourceKind
    source: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    linked: bool
    problem: str | None


@dataclass(frozen=True)
class Discovery:
    """All files by stem, and everything that was not looked into.

    ``kind`` is that of all files; ``of_other_kind`` counts those of the other, which are ignored.
    ``linked_folders`` are symbolic links to folders, which are not entered. ``unreadable`` are
    folders and files that could not be opened or are not files, each with the cause.
    ``permissions`` are all permissions that a file has, and ``holding_folders`` all folders that
    hold one.
    """

    data_folder: Path
    kind: SourceKind
    of_other_kind: int
    files: Mapping[str, tuple[FoundFile, ...]]
    linked_folders: tuple[str, ...]
    unreadable: tuple[str, ...]
    permissions: frozenset[Permission]
    holding_folders: frozenset[Path]


def discover(data_folder: Path, *, skip: Path, source: SourceChoice = "auto") -> Discovery:
    """Look through ``data_folder``, entering neither hidden folders nor links nor ``skip``.

    Raises:
        SettingsError: ``data_folder`` is missing or no folder, or holds both kinds of volumes and
            ``source`` does not say which counts.
        EnvironmentProblem: it cannot be read.
    """
    if not data_folder.is_dir():
        raise SettingsError(
            "--data_folder is no folder" if data_folder.exists() else "--data_folder is missing",
            where=data_folder,
            next_command="check the path given as --data_folder",
        )
    walk = _Walk(os.fspath(data_folder), os.fspath(skip))
    files: dict[str, list[FoundFile]] = {}
    volumes = list(walk)
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
        holding_folders=frozenset(map(Path, walk.holding_folders)),
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


def printable(name: str) -> str:
    """Return ``name`` with bytes that are not UTF-8, and control characters, escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def name_problem(name: str) -> str | None:
    """Return why ``name`` cannot be a sample's key; None if it can."""
    if _KEY.fullmatch(name):
        return None
    return "its name may only have letters, digits, '_' and '-', 1 to 80 of them"


class _Walk:
    """A walk over the data folder: it yields the volumes, and notes what it did not look into."""

    def __init__(self, root: str, skip: str) -> None:
        self._root = root
        self._skip = skip
        self.linked_folders: list[str] = []
        self.unreadable: list[str] = []
        self.permissions: set[Permission] = set()
        self.holding_folders: set[str] = set()

    def __iter__(self) -> Iterator[FoundFile]:
        pending = [""]
        while pending:
            folder = pending.pop()
            for entry in self._entries(folder):
                relative = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    if entry.name.endswith((ASIDE_SUFFIX, PROVEN_SUFFIX)):
                        self._note(relative, _LEFT_ASIDE)
                    continue
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path != self._skip:
                            pending.append(relative)
                    elif entry.is_symlink() and entry.is_dir():
                        self.linked_folders.append(printable(relative))
                    elif named := split_name(entry.name):
                        yield from self._file(entry, relative, *named)
                except OSError as error:
                    self._note(relative, error.strerror)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(os.path.join(self._root, folder)) as entries:  # noqa: PTH118
                return list(entries)
        except OSError as error:
            if not folder:
                raise environment_problem(error, "looking through --data_folder") from error
            self._note(folder, error.strerror)
            return []

    def _file(
        self, entry: os.DirEntry[str], relative: str, stem: str, kind: SourceKind
    ) -> Iterator[FoundFile]:
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode):
            self._note(relative, "not a regular file")
            return
        self._note_access(entry, status)
        problem = name_problem(stem)
        if problem is None and not _is_utf8(relative):
            problem = "its folder's name is not UTF-8 text"
        yield FoundFile(
            stem=printable(stem),
            kind=kind,
            source=relative if problem is None else printable(relative),
            size_bytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            linked=entry.is_symlink(),
            problem=problem,
        )

    def _note_access(self, entry: os.DirEntry[str], status: os.stat_result) -> None:
        self.permissions.add(Permission.of(status))
        self.holding_folders.add(entry.path[: -len(entry.name)])
        if entry.is_symlink():
            # The folder of the link's target decides as well who may read the volume.
            self.holding_folders.add(os.path.dirname(os.path.realpath(entry.path)))  # noqa: PTH120

    def _note(self, relative: str, cause: str | None) -> None:
        self.unreadable.append(f"{printable(relative)}: {cause}")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
