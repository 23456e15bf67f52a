"""Do many small reads: one after the other from memory, many at once where storage makes them wait.

Threads only help with waiting: what is in memory is read twice as fast by one thread as by many,
which would fight for the interpreter.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

READERS = 16
_LOOK = 16
"""Reads after which it is known if they wait."""
_BATCH = 512
"""Reads that are begun together: few, so that Ctrl+C waits for few."""


def each_read(function: Callable[[T], R], values: Iterable[T]) -> Iterator[R]:
    """Yield the results of ``function`` for all values, in their order."""
    rest = iter(values)
    while some := list(islice(rest, _LOOK)):
        waits = _waits()
        results = list(map(function, some))
        waits = _waits() - waits
        yield from results
        if waits > _LOOK // 2:
            yield from _in_threads(function, rest)


def _waits() -> int:
    """Return how often this thread has given its core away to wait.

    Time would not tell: on a busy machine, a thread also stands still because others compute.
    """
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _in_threads(function: Callable[[T], R], rest: Iterator[T]) -> Iterator[R]:
    with ThreadPoolExecutor(READERS, thread_name_prefix="read") as pool:
        while some := list(islice(rest, _BATCH)):
            yield from pool.map(function, some)
