"""How a function is run on many values: one after the other, or by what the caller brings."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Spread(Protocol):
    """A function that yields the results of another one for all values, in their order."""

    def __call__(
        self, function: Callable[[T], R], values: Iterable[T], /
    ) -> Generator[R, None, None]:
        """Yield ``function(value)`` for each value; closing it ends the work."""
        ...


def in_this_process(function: Callable[[T], R], values: Iterable[T], /) -> Generator[R, None, None]:
    """Run ``function`` on one value after the other."""
    for value in values:
        yield function(value)
