"""A source file as it is now: what speaks against letting it go."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from ctrate_convert.durable import open_beneath
from ctrate_convert.schemas.record import SourceFingerprint

GONE = "it is gone already"
"""The doubt about a source that another hand was faster with: not deleted here, nor kept."""


def doubt_about_source(data_folder: Path, source: SourceFingerprint, out: Path) -> str | None:
    """Why this source must stay, looked at now; None if it may go, and if it is gone already."""
    try:
        with open_beneath(data_folder, source.source) as (directory, name):
            return doubt_about_file(source, out, directory, name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"its path cannot be followed safely: {error}"


def source_is_gone(data_folder: Path, source: SourceFingerprint) -> bool:
    """Whether nothing has this source's name; False where that cannot be told."""
    try:
        with open_beneath(data_folder, source.source) as (directory, name):
            os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return False


def doubt_about_file(source: SourceFingerprint, out: Path, directory: int, name: str) -> str | None:
    """The same of the file ``name`` in an open directory.

    Raises:
        OSError: it cannot be looked at; FileNotFoundError where it is gone.
    """
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return "it is a link; links are neither followed nor deleted"
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    if status.st_nlink != 1:
        return f"it has {status.st_nlink} hard links; deleting one would free nothing"
    now = SourceFingerprint(
        source=source.source,
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        inode=status.st_ino,
    )
    if now != source:
        return "it is not the file that was read any more (" + _difference(now, source) + ")"
    if _lies_in(directory, out):
        return "it lies in the dataset directory"
    return None


def _lies_in(directory: int, folder: Path) -> bool:
    """Whether the open ``directory`` is ``folder`` or lies in it, under whatever mount or name."""
    try:
        wanted = os.stat(folder)
    except FileNotFoundError as error:  # which says nothing of the source
        raise ValueError(f"the dataset directory {folder} is missing") from error
    with contextlib.ExitStack() as stack:
        here = os.fstat(directory)
        while not os.path.samestat(here, wanted):
            directory = os.open("..", os.O_PATH | os.O_DIRECTORY, dir_fd=directory)
            stack.callback(os.close, directory)
            above = os.fstat(directory)
            if os.path.samestat(above, here):
                return False
            here = above
    return True


def _difference(now: SourceFingerprint, then: SourceFingerprint) -> str:
    changed = [
        f"{name} {getattr(then, name)} → {getattr(now, name)}"
        for name in ("size_bytes", "mtime_ns", "ctime_ns", "inode")
        if getattr(now, name) != getattr(then, name)
    ]
    return ", ".join(changed)
