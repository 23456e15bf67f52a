"""Count the epochs of a dataset in its process and in torch's workers together.

Workers that start anew for each epoch hold a copy of the dataset, which cannot know how often the
others were iterated. So all copies share a log in memory, to which a process appends one line when
it begins an iteration. A line is appended whole or not at all, and all processes see the same
order; so they agree without a lock.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import secrets
import struct
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import context, reduction
from typing import Any, NamedTuple

from ctrate_convert.errors import SettingsError

MAX_EPOCH = 2**62

_NEXT = -1  # the epoch in the line of an iteration that takes the next one
_LINE = struct.Struct("<qqQqqq")


class _Line(NamedTuple):
    """One iteration, begun in ``process``; or, without a ``seed``, only a new number.

    ``group`` is the process that iterates over the loader: that of the line itself, or the one
    whose worker it is. Each group counts for itself, as the ranks of one machine do, which may all
    have inherited one log.
    """

    group: int
    process: int
    seed: int
    worker: int
    begun: int
    epoch: int


@dataclass
class _Group:
    """What the lines of one group say: the next epoch, and the epoch of each iteration."""

    following: int
    last: int = 0
    known: dict[tuple[int, int, int], int] = field(default_factory=dict)
    times: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    by_process: dict[int, int] = field(default_factory=dict)

    def add(self, line: _Line) -> None:
        if line.epoch != _NEXT:
            self.following, self.last = line.epoch, 0
            self.known.clear()
            self.times.clear()
        if not line.seed:
            return
        # Whoever sets torch's seed before each epoch gets the same one in each. So a worker's
        # second line with a seed belongs to a second iteration.
        of_worker = (line.worker, line.seed, line.begun)
        self.times[of_worker] += 1
        iteration = (line.seed, line.begun, self.times[of_worker])
        if iteration not in self.known:
            self.known[iteration] = self.following
            self.following += 1
        self.last = line.process
        self.by_process[line.process] = self.known[iteration]


class EpochCount:
    """The number of the next epoch.

    It is shared with the workers that torch forks or spawns. All workers of one iteration over a
    loader get the same epoch, and the next iteration gets the next one. A process that was forked
    or spawned otherwise goes on from the same number for itself and its own workers, as does a copy
    by pickling.
    """

    def __init__(self, epoch: int = 0) -> None:
        self._log = os.memfd_create("ctrate-convert-epochs", os.MFD_CLOEXEC)
        fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)
        self._process = os.getpid()
        self._begun = 0
        if epoch:
            self.set(epoch)

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        # At the interpreter's end the module's names are gone, so this one is kept here.
        if hasattr(self, "_log"):
            _close(self._log)

    def __reduce__(self) -> tuple[Any, ...]:
        if context.get_spawning_popen() is None:
            return EpochCount, (self.next(),)
        return _shared, (reduction.DupFd(self._log), self._process)

    def begin(self, epoch: int | None = None) -> int:
        """Begin an iteration and return its epoch: the next one, or the given one."""
        info = _worker_info()
        if info is None:
            seed, worker, begun = secrets.randbits(63) + 1, 0, 0
        else:
            # torch draws this seed once for each set of workers. Those that persist count for
            # themselves.
            self._begun += 1
            seed, worker, begun = (info.seed - info.id) % 2**63 + 1, info.id, self._begun
        self._append(seed, worker, begun, _NEXT if epoch is None else epoch)
        return self._read().by_process[os.getpid()]

    def set(self, epoch: int) -> None:
        """Set the epoch of the next iteration.

        Raises:
            SettingsError: it is negative, or no number that an epoch can have.
        """
        if not 0 <= epoch <= MAX_EPOCH:
            raise SettingsError("no such epoch", seen=epoch, expected=f"0 to {MAX_EPOCH}")
        self._append(0, 0, 0, epoch)

    def next(self) -> int:
        """Return the epoch of the next iteration."""
        return self._read().following

    def begun_elsewhere(self) -> bool:
        """Return True if the last iteration was begun by a worker of this process."""
        return not is_worker() and self._read().last not in (0, os.getpid())

    def _append(self, seed: int, worker: int, begun: int, epoch: int) -> None:
        line = _Line(_group(), os.getpid(), seed, worker, begun, epoch)
        os.write(self._log, _LINE.pack(*line))

    def _read(self) -> _Group:
        """Return what the lines of this process's group say."""
        data = os.pread(self._log, os.fstat(self._log).st_size, 0)
        groups = {self._process: _Group(0)}
        owner = groups[self._process]
        for line in map(_Line._make, _LINE.iter_unpack(data)):
            groups.setdefault(line.group, _Group(owner.following)).add(line)
        return groups.get(_group(), _Group(owner.following))


def _worker_info() -> Any:
    """Return what torch says of this worker; None in other processes."""
    data = sys.modules.get("torch.utils.data")
    return None if data is None else data.get_worker_info()


def is_worker() -> bool:
    """Return True in a worker process of torch's ``DataLoader``."""
    return _worker_info() is not None


def _group() -> int:
    """Return the process that iterates over the loader: this one, or that whose worker it is."""
    parent = multiprocessing.parent_process()
    if not is_worker() or parent is None or parent.pid is None:
        return os.getpid()
    return parent.pid


def _shared(log: Any, process: int) -> EpochCount:
    found = EpochCount.__new__(EpochCount)
    found._log, found._process, found._begun = log.detach(), process, 0
    return found
