"""Who may read and write what the program makes.

Sources and tables are read by whom their owner let read them; what is made from them is readable
by nobody else. The dataset keeps the answer in one place, the mode of its ``.run`` folder: 0700,
0750 or 0755. It is chosen when the first plan is made, a later plan can only narrow it, and a
person may change it with chmod. Group and others never get to write, whatever the umask.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctrate_convert.store.durable import fsync_directory

if TYPE_CHECKING:
    from ctrate_convert.store.layout import Dataset

EVERYBODY = 0o755
_OWNER_ONLY = 0o700
_WRITABLE = 0o022
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


@dataclass(frozen=True)
class Permission:
    """The permission bits and the group of a file, as stat tells them."""

    mode: int
    gid: int

    @classmethod
    def of(cls, status: os.stat_result) -> Permission:
        """Return the permissions that ``status`` tells."""
        return cls(stat.S_IMODE(status.st_mode), status.st_gid)


def granted(
    files: Iterable[Permission], tables: Iterable[Path], folders: Iterable[Path], out: Path
) -> int:
    """Return the mode that ``.run`` in ``out`` may have, given what it is made from.

    ``files`` are the volumes and ``folders`` the ones that hold them. To read a file one needs to
    read it and to search every folder above it, so a 0644 file below a 0700 folder is private.
    """
    gid = _group_of_new_files(out)
    mode = EVERYBODY
    for permission in set(files):
        mode &= _level(permission, stat.S_IRGRP, gid)
    tables = [*tables]
    for table in tables:
        mode &= _level(_permission_of(table), stat.S_IRGRP, gid)
    holding = {*folders, *(table.parent for table in tables)}
    for folder in {above for one in holding for above in (one, *one.parents)}:
        mode &= _level(_permission_of(folder), stat.S_IXGRP, gid)
    return mode


def _level(permission: Permission, group_bit: int, gid: int) -> int:
    """Return the mode that lets those in who have ``group_bit`` as group, and its fellow as others.

    Others are let in where neither class is shut out: who is not in our group may be in theirs.
    Where theirs is not ours, our group is others to them.
    """
    to_group = bool(permission.mode & group_bit)
    to_others = to_group and bool(permission.mode & group_bit >> 3)
    if permission.gid != gid:
        to_group = to_others
    return _OWNER_ONLY | (0o050 if to_group else 0) | (0o005 if to_others else 0)


def _permission_of(path: Path) -> Permission:
    """Return the path's permissions; none for its group if an ACL lets others in."""
    try:
        permission = Permission.of(path.stat())
    except OSError:
        return Permission(_OWNER_ONLY, -1)
    return Permission(permission.mode, -1) if _has_acl(path) else permission


def _has_acl(path: Path) -> bool:
    for name in _ACLS:
        with contextlib.suppress(OSError):
            os.getxattr(path, name)
            return True
    return False


def _group_of_new_files(folder: Path) -> int:
    """Return the group that a file made in ``folder`` gets; the folder may be missing yet."""
    there = next(one for one in (folder, *folder.parents) if one.is_dir())
    status = there.stat()
    return status.st_gid if status.st_mode & stat.S_ISGID else os.getegid()


def forbid(mode: int = _WRITABLE) -> None:
    """Add ``mode``, and writing by group and others, to the umask of this process."""
    os.umask(os.umask(0o077) | mode & 0o077 | _WRITABLE)


def keep_private(dataset: Dataset) -> None:
    """Let nothing that this process makes be more open than ``.run`` of ``dataset``.

    It sets the umask, so that files of the libraries are covered too. The umask only ever gets
    stricter: the person's own one stays in force.
    """
    try:
        allowed = stat.S_IMODE(dataset.run.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        allowed = EVERYBODY
    except OSError:
        allowed = _OWNER_ONLY
    forbid(~allowed)


def narrow(dataset: Dataset, allowed: int) -> None:
    """Take from ``.run``, where it exists, every permission that ``allowed`` has not."""
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(dataset.run.stat().st_mode)
        if mode & 0o777 & ~allowed:
            dataset.run.chmod(mode & (allowed | 0o7000))
            fsync_directory(dataset.run)


def storage_is_ours(dataset: Dataset) -> str | None:
    """Return why others could have changed ``.run``; None where only this user could.

    ACLs are covered: where one lets somebody write, the mode's group bits show it.
    """
    for path in _trusted(dataset):
        with contextlib.suppress(FileNotFoundError):
            doubt = doubt_about(path.lstat())
            if doubt:
                return f"{path} {doubt}"
    return None


def doubt_about(status: os.stat_result) -> str | None:
    """Return why somebody else could have written this file or folder; None where not."""
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}, not to user {os.geteuid()}"
    if mode & _WRITABLE:
        return f"is writable by others than its owner (mode {mode:04o})"
    return None


def _trusted(dataset: Dataset) -> Iterator[Path]:
    """Yield all that a deletion rests on."""
    yield from (
        dataset.run,
        dataset.plans,
        dataset.records,
        dataset.consents,
        dataset.journals,
        dataset.submissions,
    )
    if dataset.plans.is_dir():
        for generation in sorted(dataset.plans.iterdir()):
            if not generation.name.startswith("."):
                yield generation
                yield generation / "plan.json"
