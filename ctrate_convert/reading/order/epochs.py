"""Count the epochs of a dataset in its process and in torch's workers together.

Workers that start anew for each epoch hold a copy of the dataset, which cannot know how often the
others were iterated. So all copies share a log in memory, to which a process appends one line when
it begins an iteration. A line is appended whole or not at all, and all processes see the same
order; so they agree without a lock.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import sys
from multiprocessing import context, reduction
from typing import Any

_LINE = struct.Struct("<QQqq")
_NEXT = -1  # the epoch in the line of an iteration that takes the next one
_SETTING = (0, 0)  # stands for no iteration: the line only sets the next epoch


class EpochCount:
    """The number of the next epoch.

    It is shared with the workers that torch forks or spawns. All workers of one iteration over a
    loader get the same epoch, and the next iteration gets the next one. Any other copy, by pickling
    or in a process that forked by itself, goes on from the same number on its own.
    """

    def __init__(self, epoch: int = 0) -> None:
        self._open(epoch)

    def _open(self, epoch: int) -> None:
        self._log = os.memfd_create("ctrate-convert-epochs", os.MFD_CLOEXEC)
        fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)
        self._process = os.getpid()
        self._begun = 0
        if epoch:
            self.set(epoch)

    def __del__(self) -> None:
        if hasattr(self, "_log"):
            os.close(self._log)

    def __reduce__(self) -> tuple[Any, ...]:
        if context.get_spawning_popen() is None:
            return EpochCount, (self.next(),)
        return _shared, (reduction.DupFd(self._log), self._process)

    def begin(self, epoch: int | None = None) -> int:
        """Begin an iteration and return its epoch: the next one, or the given one."""
        iteration = self._iteration()
        self._append(iteration, _NEXT if epoch is None else epoch)
        return self._read()[0][iteration]

    def set(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self._append(_SETTING, epoch)

    def next(self) -> int:
        """Return the epoch of the next iteration."""
        return self._read()[1]

    def begun_elsewhere(self) -> bool:
        """Return True if the last iteration was begun by a worker of this process."""
        here = os.getpid()
        return here == self._process and self._read()[2] not in (0, here)

    def _iteration(self) -> tuple[int, int]:
        """Return what names this iteration: the same in all workers that take part in it."""
        data = sys.modules.get("torch.utils.data")
        worker = None if data is None else data.get_worker_info()
        if worker is None:
            if os.getpid() != self._process:
                # A fork of the user's own: its iterations are none of the others' business.
                epoch = self.next()
                os.close(self._log)
                self._open(epoch)
            return secrets.randbits(64), 0
        # torch draws this seed once for each set of workers. Those that persist count for
        # themselves.
        self._begun += 1
        return (worker.seed - worker.id) % 2**64, self._begun

    def _append(self, iteration: tuple[int, int], epoch: int) -> None:
        os.write(self._log, _LINE.pack(*iteration, epoch, os.getpid()))

    def _read(self) -> tuple[dict[tuple[int, int], int], int, int]:
        """Return the epoch of each iteration, the next one, and the last process to begin one."""
        data = os.pread(self._log, os.fstat(self._log).st_size, 0)
        known: dict[tuple[int, int], int] = {}
        following = last = 0
        for one, other, epoch, process in _LINE.iter_unpack(data):
            iteration = (one, other)
            if epoch != _NEXT:
                known.clear()  # torch's seeds may come again after a number was set
                following, last = epoch, 0
            if iteration != _SETTING and iteration not in known:
                known[iteration], last = following, process
                following += 1
        return known, following, last


def _shared(log: Any, process: int) -> EpochCount:
    found = EpochCount.__new__(EpochCount)
    found._log, found._process, found._begun = log.detach(), process, 0
    return found
