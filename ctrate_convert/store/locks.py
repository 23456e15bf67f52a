"""Locks between processes. They only save work: where flock excludes nobody, all stays correct."""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import filelock


class Hold(enum.Enum):
    """The outcome of asking for a lock; true if the work may be done."""

    BUSY = "another process has it"
    HELD = "this process has it, and the kernel keeps others out"
    NO_SERVICE = "there is no lock service here"

    def __bool__(self) -> bool:
        return self is not Hold.BUSY


@contextlib.contextmanager
def locked(path: Path, *, timeout_s: float = -1) -> Iterator[Hold]:
    """Hold the lock file ``path``; yields `Hold.BUSY` where that failed for ``timeout_s``.

    Where there is no flock, `Hold.NO_SERVICE` is yielded, which is as true as `Hold.HELD`.
    """
    lock = filelock.FileLock(path, timeout=timeout_s)
    try:
        lock.acquire()
    except filelock.Timeout:
        yield Hold.BUSY
        return
    except (NotImplementedError, OSError):
        yield Hold.NO_SERVICE
        return
    try:
        yield Hold.HELD if _excludes(path) else Hold.NO_SERVICE
    finally:
        lock.release()


def _excludes(path: Path) -> bool:
    """Return True if the lock excludes a second holder: flock may succeed for everybody.

    A look through a second descriptor, which flock treats like another process.
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
    """Return True if the file is locked through another descriptor; False without locks, too.

    Otherwise ``descriptor`` holds the lock afterwards, until it is closed.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
