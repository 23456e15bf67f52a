"""Measuring on a machine that others use too: CPU time, taken in turns, as medians of ratios."""

from __future__ import annotations

import mmap
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU (user and system, child processes too) and of wall clock."""

    cpu_s: float
    wall_s: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu_s + other.cpu_s, self.wall_s + other.wall_s)


def cpu_seconds() -> float:
    """CPU that this process and its finished children have used so far."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def cost_of(work: Callable[[], object]) -> Cost:
    """Do ``work`` here and tell what it cost."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    work()
    return Cost(cpu_seconds() - cpu, time.perf_counter() - wall)


def settle() -> None:
    """Let the kernel finish what earlier candidates left to write, so that none pays for it."""
    os.sync()


def touch_memory(size_bytes: int) -> None:
    """Have the machine hand out so much memory now, so that no candidate waits for it.

    A virtual machine gives free memory back to its host after a while; the first touch of it
    then takes many times as long.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, size_bytes, flags=flags).close()


@dataclass(frozen=True)
class Spread:
    """A median with the lowest and the highest that it stands between."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of ``values``."""
        seen = list(values)
        return cls(statistics.median(seen), min(seen), max(seen))

    def __str__(self) -> str:
        return f"{self.median:.2f}× ({self.low:.2f}–{self.high:.2f})"


def ratios(numerators: Sequence[Cost], denominators: Sequence[Cost]) -> Spread:
    """CPU of one candidate over that of another, round by round."""
    pairs = zip(numerators, denominators, strict=True)
    return Spread.of(one.cpu_s / other.cpu_s for one, other in pairs)


def in_turns(
    candidates: Sequence[Callable[[], Cost]],
    rounds: int,
    warm_up: int = 1,
    *,
    settled: bool = True,
) -> list[list[Cost]]:
    """Run the candidates A B A B …; the costs of each, without the rounds that warm up.

    Every second round goes backwards, so that none always follows the same other one. Where they
    write little, ``settled`` can be spared.
    """
    costs: list[list[Cost]] = [[] for _ in candidates]
    for number in range(warm_up + rounds):
        order = list(range(len(candidates)))
        for index in reversed(order) if number % 2 else order:
            if settled:
                settle()
            cost = candidates[index]()
            if number >= warm_up:
                costs[index].append(cost)
    return costs
