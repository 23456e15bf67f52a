"""Locks between processes. They only save work: where flock excludes nobody, all stays correct."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock


@contextlib.contextmanager
def locked(path: Path, *, timeout_s: float = -1) -> Iterator[bool]:
    """Hold the lock file ``path``; yields False where it could not be had in ``timeout_s``.

    Where there is no flock, it is yielded as if it were held.
    """
    lock = filelock.FileLock(path, timeout=timeout_s)
    try:
        lock.acquire()
    except filelock.Timeout:
        yield False
        return
    except (NotImplementedError, OSError):
        yield True
        return
    try:
        yield True
    finally:
        lock.release()
