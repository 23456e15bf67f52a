"""Control who may read and write what the program makes.

The output is readable by nobody who may not read the sources and tables. The dataset keeps this
answer in one place, the mode of its ``.run`` folder: 0700, 0750 or 0755. The first plan sets it, a
later plan can only narrow it, and a person may change it with chmod. Group and others never get
write permission, whatever the umask.
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
    """The permission bits and the group of a file, as stat reports them."""

    mode: int
    gid: int

    @classmethod
    def of(cls, status: os.stat_result) -> Permission:
        """Return the permission in a stat result."""
        return cls(stat.S_IMODE(status.st_mode), status.st_gid)


def granted(
    files: Iterable[Permission], tables: Iterable[Path], folders: Iterable[Path], out: Path
) -> int:
    """Return the widest mode that ``.run`` in ``out`` may have, given its inputs.

    ``files`` are the permissions of the volumes, ``folders`` the folders that hold them. Reading a
    file needs read permission for it and search permission for every folder above it, so a 0644
    file below a 0700 folder is private.
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
    """Return the mode that ``permission`` allows: 0700, 0750 or 0755.

    ``group_bit`` is the group's permission bit to look at, read or search; the bit for others is
    three places to its right. Others get access only if both classes have it, since somebody
    outside our group may be a member of the file's group. If the file has another group than
    ``gid``, our group counts as others.
    """
    to_group = bool(permission.mode & group_bit)
    to_others = to_group and bool(permission.mode & group_bit >> 3)
    if permission.gid != gid:
        to_group = to_others
    return _OWNER_ONLY | (0o050 if to_group else 0) | (0o005 if to_others else 0)


def _permission_of(path: Path) -> Permission:
    """Return the path's permission, without a group if an ACL may let others in.

    A path that cannot be looked at counts as private.
    """
    try:
        permission = Permission.of(path.stat())
    except OSError:
        # No group has the id -1.
        return Permission(_OWNER_ONLY, -1)
    return Permission(permission.mode, -1) if _has_acl(path) else permission


def _has_acl(path: Path) -> bool:
    for name in _ACLS:
        with contextlib.suppress(OSError):
            # The attribute exists only where an ACL says more than the mode does.
            os.getxattr(path, name)
            return True
    return False


def _group_of_new_files(folder: Path) -> int:
    """Return the group of a new file in ``folder``, which need not exist yet."""
    there = next(one for one in (folder, *folder.parents) if one.is_dir())
    status = there.stat()
    # In a folder with the set-group-ID bit, new files get the folder's group.
    return status.st_gid if status.st_mode & stat.S_ISGID else os.getegid()


def forbid(mode: int = _WRITABLE) -> None:
    """Add ``mode`` and write permission for group and others to the umask of this process."""
    # umask(2) can only be read by setting it; 0o077 is the safe value for that moment.
    os.umask(os.umask(0o077) | mode & 0o077 | _WRITABLE)


def keep_private(dataset: Dataset) -> None:
    """Make sure that this process makes nothing more open than ``.run`` of ``dataset``.

    The function sets the umask, which also covers files that libraries write. The umask only gets
    stricter, so the person's own umask stays in force.
    """
    try:
        allowed = stat.S_IMODE(dataset.run.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        allowed = EVERYBODY
    except OSError:
        allowed = _OWNER_ONLY
    forbid(~allowed)


def narrow(dataset: Dataset, allowed: int) -> None:
    """Remove from ``.run``, if it exists, every permission that ``allowed`` does not have."""
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(dataset.run.stat().st_mode)
        if mode & 0o777 & ~allowed:
            # 0o7000 keeps the set-group-ID bit, which gives new files the folder's group.
            dataset.run.chmod(mode & (allowed | 0o7000))
            fsync_directory(dataset.run)


def storage_is_ours(dataset: Dataset) -> str | None:
    """Return why others could have changed ``.run``; None if only this user could.

    This covers ACLs: if an ACL lets somebody write, the mode's group bits show it.
    """
    for path in _trusted(dataset):
        with contextlib.suppress(FileNotFoundError):
            doubt = doubt_about(path.lstat())
            if doubt:
                return f"{path} {doubt}"
    return None


def doubt_about(status: os.stat_result) -> str | None:
    """Return why somebody else could have written this file or folder; None if nobody could."""
    mode = stat.S_IMODE(status.st_mode)
    # A link may lead elsewhere tomorrow.
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    # Its owner may change a file whatever its mode is.
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}, not to user {os.geteuid()}"
    if mode & _WRITABLE:
        return f"is writable by others than its owner (mode {mode:04o})"
    return None


def _trusted(dataset: Dataset) -> Iterator[Path]:
    """Yield all paths that a deletion depends on."""
    # Not the output folder itself: on clusters a group may often write there, and the shards in it
    # are read anew.
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
