"""Lock files between processes. Locks save work; results are correct without any lock."""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import filelock


class Hold(enum.Enum):
    """The outcome of asking for a lock; true if the caller may do the work."""

    BUSY = "another process has it"
    HELD = "this process has it, and the kernel keeps others out"
    NO_SERVICE = "there is no lock service here"

    def __bool__(self) -> bool:
        return self is not Hold.BUSY


@contextlib.contextmanager
def locked(path: Path, *, timeout_s: float = -1, mode: int | None = None) -> Iterator[Hold]:
    """Hold the lock file ``path``; yield `Hold.BUSY` if another process keeps it for ``timeout_s``.

    On a file system without flock, yield `Hold.NO_SERVICE`, which is true like `Hold.HELD`.
    ``mode`` is that of a new lock file; by default the umask decides.
    """
    if mode is None:
        lock = filelock.FileLock(path, timeout=timeout_s)
    else:
        lock = filelock.FileLock(path, timeout=timeout_s, mode=mode)
    try:
        lock.acquire()
    except filelock.Timeout:
        yield Hold.BUSY
        return
    # A planted link also ends here, since filelock follows none: the work goes on without the lock.
    except (NotImplementedError, OSError):
        yield Hold.NO_SERVICE
        return
    try:
        yield Hold.HELD if _excludes(path) else Hold.NO_SERVICE
    finally:
        lock.release()


def _excludes(path: Path) -> bool:
    """Return True if the lock file is locked for a second descriptor.

    On some file systems flock succeeds for everybody. flock treats a second descriptor like another
    process, so a second attempt shows whether the first lock excludes anybody.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return is_locked_elsewhere(descriptor)
    finally:
        os.close(descriptor)


def is_locked_elsewhere(descriptor: int) -> bool:
    """Return True if the file is locked through another descriptor.

    If the result is False, ``descriptor`` holds the lock until it is closed, unless the file system
    has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
