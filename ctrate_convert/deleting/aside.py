"""Give a source its name back that a deletion renamed aside: after a comparison or after a kill."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from ctrate_convert.store.durable import fsync_open_directory, open_beneath, rename_if_free
from ctrate_convert.store.fresh import fresh_status
from ctrate_convert.store.locks import is_locked_elsewhere
from ctrate_convert.store.presence import hidden_names, status_of


def put_back(data_folder: Path, source: str) -> bool:
    """Give a source its name back that a killed process left aside; return True if it was done.

    A file that a live process holds aside stays with that process.
    """
    with (
        contextlib.suppress(OSError, ValueError),
        open_beneath(data_folder, source) as (directory, name),
    ):
        left = any(status_of(one, directory) is not None for one in hidden_names(name))
        return left and not put_back_in(directory, name)
    return False


def put_back_in(directory: int, name: str) -> str:
    """Put back a source in an open folder; return why it cannot be done, or an empty string.

    Raises:
        OSError: it cannot be seen whether something was left aside.
    """
    left = []
    for hidden in hidden_names(name):
        status = status_of(hidden, directory)
        if status is None:
            continue
        if not stat.S_ISREG(status.st_mode):
            return f"what bears its hidden name is no file: {hidden}"
        if _is_compared(hidden, directory):
            return "another process is comparing it"
        left.append(hidden)
    if not left or give_name_back(directory, name):
        return ""
    return f"two files claim its name: the one left aside by a killed command is {left[0]}"


def _is_compared(hidden: str, directory: int) -> bool:
    """Return True if a live process holds the file; False if the file system has no locks.

    Without locks the file may be taken from a live process; that process then sees that its file
    has moved. The file is closed before it is renamed, because NFS and FUSE keep a second name of
    an open file.
    """
    try:
        descriptor = open_hidden(hidden, directory)
    except (FileNotFoundError, PermissionError):  # unreadable files get their names back, too
        return False
    try:
        return is_locked_elsewhere(descriptor)
    finally:
        os.close(descriptor)


def give_name_back(directory: int, name: str) -> bool:
    """Return True if the source has its name again, durably as far as the folder allows.

    Also return True if no hidden name is left: another process gave the name back, or took the
    file.
    """
    for hidden in hidden_names(name):
        try:
            if not rename_if_free(hidden, directory, name, directory):
                # The name is taken. If both names lead to one file, the hidden one is only a
                # leftover.
                if not _are_one_file(hidden, name, directory):
                    return False
                os.unlink(hidden, dir_fd=directory)
        except FileNotFoundError:
            continue
        except OSError:
            return False
        # Not every folder can be synced, and the rename is done in any case.
        with contextlib.suppress(OSError):
            fsync_open_directory(directory)
    return True


def _are_one_file(hidden: str, name: str, directory: int) -> bool:
    """Return True if both names lead to one file, after a power loss or without renameat2(2)."""
    one, other = fresh_status(hidden, directory), fresh_status(name, directory)
    return one.st_nlink > 1 and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def open_hidden(name: str, directory: int) -> int:
    """Open a file that may be another process's: follow no link, and never wait for a FIFO."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=directory)
