"""Find the files that are named as volumes: by looking through a folder, or from a list."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ctrate_convert.errors import SettingsError, environment_problem
from ctrate_convert.planning.waiting import each_read
from ctrate_convert.sources.kinds import split_name
from ctrate_convert.store.presence import ASIDE_SUFFIX, PROVEN_SUFFIX
from ctrate_convert.store.privacy import Permission
from ctrate_convert.store.records.plan import SourceKind

_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)
_LEFT_ASIDE = "aside for a deletion; if that was killed, `restore` gives the name back"
_TOLD_EVERY = 1000


class FoundFile(NamedTuple):
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


class Walk:
    """A walk over a folder: it yields the volumes, and notes what it did not look into.

    ``skip`` is not entered, nor are hidden folders and links to folders. With ``listed``, paths
    below the folder or absolute ones, only these files are looked at, and no folder is. A folder on
    their way is judged as the walk would. ``on_found`` is called with the volumes found, now and
    then.
    """

    def __init__(
        self,
        root: str,
        skip: str,
        listed: Iterable[str] | None = None,
        on_found: Callable[[int], None] = lambda found: None,
    ) -> None:
        self._root = root
        self._skip = skip
        self._listed = listed
        self._on_found = on_found
        self._folders: dict[str, bool] = {}
        self.linked_folders: set[str] = set()
        self.unreadable: list[str] = []
        self.permissions: set[Permission] = set()
        self.holding_folders: set[str] = set()
        self._modes: set[tuple[int, int]] = set()

    def __iter__(self) -> Iterator[FoundFile]:
        names = self._walked() if self._listed is None else self._chosen(self._listed)
        number = 0
        for relative, looked in each_read(self._look, names):
            if isinstance(looked, OSError):
                self._note(relative, looked.strerror)
                continue
            found = self._found(relative, *looked)
            if found is None:
                continue
            yield found
            number += 1
            if number % _TOLD_EVERY == 0:
                self._on_found(number)

    def _walked(self) -> Iterator[str]:
        """Yield the relative paths of all files that are named as volumes."""
        pending = [""]
        while pending:
            folders, pending = pending, []
            for folder, entries in each_read(self._entries, folders):
                if isinstance(entries, OSError):
                    if not folder:
                        raise environment_problem(
                            entries, "looking through --data_folder"
                        ) from entries
                    self._note(folder, entries.strerror)
                    continue
                for entry in entries:
                    relative = f"{folder}/{entry.name}" if folder else entry.name
                    if self._is_hidden(entry.name, relative):
                        continue
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            if entry.path != self._skip:
                                pending.append(relative)
                        elif entry.is_symlink() and entry.is_dir():
                            self.linked_folders.add(printable(relative))
                        elif split_name(entry.name):
                            yield relative
                    except OSError as error:
                        self._note(relative, error.strerror)

    def _entries(self, folder: str) -> tuple[str, list[os.DirEntry[str]] | OSError]:
        try:
            with os.scandir(os.path.join(self._root, folder)) as entries:  # noqa: PTH118
                return folder, list(entries)
        except OSError as error:
            return folder, error

    def _chosen(self, listed: Iterable[str]) -> Iterator[str]:
        """Yield the paths of ``listed`` that lie below the folder and are named as volumes."""
        seen: set[str] = set()
        for line in listed:
            relative = self._below(line)
            if relative is None:
                self._note(line, "listed, but no path below --data_folder")
                continue
            folder, _, name = relative.rpartition("/")
            if relative in seen or split_name(name) is None:
                continue
            seen.add(relative)
            if not self._is_hidden(name, relative) and self._may_enter(folder):
                yield relative

    def _below(self, line: str) -> str | None:
        """Return a listed path relative to the folder; None if it does not lie below it."""
        if line.startswith("/"):
            if not line.startswith(self._root.rstrip("/") + "/"):
                return None
            line = line[len(self._root) :]
        parts = [part for part in line.split("/") if part not in ("", ".")]
        return None if not parts or ".." in parts else "/".join(parts)

    def _may_enter(self, folder: str) -> bool:
        """Return True if the walk would have come to ``folder``."""
        if not folder:
            return True
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = self._would_enter(folder)
        return known

    def _would_enter(self, folder: str) -> bool:
        above, _, name = folder.rpartition("/")
        path = os.path.join(self._root, folder)  # noqa: PTH118
        if not self._may_enter(above) or name.startswith(".") or path == self._skip:
            return False
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode) and os.path.isdir(path):  # noqa: PTH112
                self.linked_folders.add(printable(folder))
                return False
        except OSError as error:
            self._note(folder, f"listed, but: {error.strerror}")
            return False
        return stat.S_ISDIR(mode)

    def _is_hidden(self, name: str, relative: str) -> bool:
        if not name.startswith("."):
            return False
        if name.endswith((ASIDE_SUFFIX, PROVEN_SUFFIX)):
            self._note(relative, _LEFT_ASIDE)
        return True

    def _look(self, relative: str) -> tuple[str, tuple[os.stat_result, bool] | OSError]:
        """Return the status of a file, or of what it links to, and if it is a link."""
        path = os.path.join(self._root, relative)  # noqa: PTH118
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                return relative, (os.stat(path), True)
        except OSError as error:
            return relative, error
        return relative, (status, False)

    def _found(self, relative: str, status: os.stat_result, linked: bool) -> FoundFile | None:
        if not stat.S_ISREG(status.st_mode):
            # A folder may be listed that is named as a volume.
            if not stat.S_ISDIR(status.st_mode):
                self._note(relative, "not a regular file")
            return None
        folder, _, name = relative.rpartition("/")
        named = split_name(name)
        if named is None:
            return None
        stem, kind = named
        self._note_access(folder, relative, status, linked)
        problem = name_problem(stem)
        if problem is None and not _is_utf8(relative):
            problem = "its folder's name is not UTF-8 text"
        return FoundFile(
            # One string for a key, which the tables have too.
            sys.intern(stem) if problem is None else printable(stem),
            kind,
            relative if problem is None else printable(relative),
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            linked,
            problem,
        )

    def _note_access(
        self, folder: str, relative: str, status: os.stat_result, linked: bool
    ) -> None:
        mode = (status.st_mode, status.st_gid)
        if mode not in self._modes:
            self._modes.add(mode)
            self.permissions.add(Permission.of(status))
        self.holding_folders.add(folder)
        if linked:
            # The folder of the link's target decides as well who may read the volume.
            path = os.path.realpath(os.path.join(self._root, relative))  # noqa: PTH118
            self.holding_folders.add(os.path.dirname(path))  # noqa: PTH120

    def _note(self, relative: str, cause: str | None) -> None:
        self.unreadable.append(f"{printable(relative)}: {cause}")


def listed_in(path: Path) -> Iterator[str]:
    """Yield the paths in a list with one a line, as `find` prints them.

    Raises:
        SettingsError: the list cannot be read.
    """
    try:
        with path.open("rb") as lines:
            for line in lines:
                if name := os.fsdecode(line.removesuffix(b"\n")):
                    yield name
    except OSError as error:
        raise SettingsError(
            f"--files_from cannot be read: {error.strerror}",
            where=path,
            next_command="check the path given as --files_from",
        ) from error


def printable(name: str) -> str:
    """Return ``name`` with bytes that are not UTF-8, and control characters, escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def name_problem(name: str) -> str | None:
    """Return why ``name`` cannot be a sample's key; None if it can."""
    if _KEY.fullmatch(name):
        return None
    return "its name may only have letters, digits, '_' and '-', 1 to 80 of them"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
