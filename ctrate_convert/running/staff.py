"""The worker processes of a run: each carries out one conversion after the other.

A worker that is killed costs the shard that it is at; the next order goes to another one. Sources
are let go by a process that has done nothing else, so never by the one that wrote their shard.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from ctrate_convert.running import worker
from ctrate_convert.running.parent import signals_held, start_forkserver
from ctrate_convert.running.worker import Order

FORKSERVER_PRELOAD = ["ctrate_convert.running.worker", "ctrate_convert.running.staff"]

_SERVES_S = 10.0
"""A worker of this age gets no further order. To start one takes some hundredths of a second, which
counts for shards of a few megabytes alone; a large shard has a process to itself."""


@dataclass
class Hired:
    """A worker process; orders go in by one pipe, and its messages come by the other."""

    process: BaseProcess
    orders: Connection
    messages: Connection
    hired_at: float = field(default_factory=time.monotonic)

    def join(self) -> None:
        """Tell the process, if it still lives, that no further order comes; wait for its end."""
        # A word and not the end of the pipe, of which another worker may hold a copy.
        with contextlib.suppress(OSError):
            self.orders.send(None)
        self.orders.close()
        self.messages.close()
        self.process.join()
        self.process.close()


class Staff:
    """The worker processes that wait for an order, and the start of further ones."""

    def __init__(self) -> None:
        # Not fork: the parent may have threads. Not spawn: each worker would import numpy anew.
        start_forkserver(FORKSERVER_PRELOAD)
        self._context = multiprocessing.get_context("forkserver")
        self._idle: list[Hired] = []

    def give(self, order: Order) -> Hired:
        """Give ``order`` to a worker that waits or, to let sources go, to a new one."""
        while self._idle:
            hired = self._idle.pop()
            if order.releasing or not _sent(hired, order):
                _dismiss(hired)
                continue
            return hired
        hired = self._start()
        _sent(hired, order)  # of one that has died by now, its messages end: the caller sees that
        return hired

    def take_back(self, hired: Hired) -> None:
        """Keep a worker that has converted a shard for the next one, unless it is too old."""
        if time.monotonic() - hired.hired_at < _SERVES_S:
            self._idle.append(hired)
        else:
            hired.join()

    def dismiss(self) -> None:
        """End the workers that wait for an order."""
        while self._idle:
            _dismiss(self._idle.pop())

    def _start(self) -> Hired:
        get_orders, orders = self._context.Pipe(duplex=False)
        messages, tell = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_serve, args=(worker.main, get_orders, tell), daemon=True
        )
        with signals_held():
            process.start()
        # While this process holds the worker's ends too, no pipe tells that the worker has died.
        get_orders.close()
        tell.close()
        return Hired(process, orders, messages)


def _sent(hired: Hired, order: Order) -> bool:
    try:
        hired.orders.send(order)
    except OSError:
        return False
    return True


def _dismiss(hired: Hired) -> None:
    hired.process.kill()  # it holds nothing, and a stopped one would not hear that it may go
    hired.join()


def _serve(
    carry_out: Callable[[Order, Connection], None], orders: Connection, messages: Connection
) -> None:
    """Carry out orders in the worker process until none comes any more."""
    while True:
        try:
            order: Order | None = orders.recv()
        except EOFError:
            return
        if order is None:
            return
        carry_out(order, messages)
