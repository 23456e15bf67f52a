"""Carry out the steps of all shards in worker processes, a few at a time; a kill costs one step.

The workers share one queue of shards. While one worker waits for storage, settling its shard and
reading it back, another one converts.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from ctrate_convert.errors import Interrupted, WorkerDied, WorkerKilled
from ctrate_convert.running.staff import Hired, Staff
from ctrate_convert.running.worker import (
    Advanced,
    Order,
    ShardDone,
    ShardFailed,
    SourcesReleased,
    Written,
)

Message = Advanced | Written | ShardDone | SourcesReleased | ShardFailed

_POLL_S = 0.2
_STOP_PATIENCE_S = 30.0  # then kill workers: harmless, and storage may hang

TIME_LIMIT_WARNING = signal.SIGUSR2
"""The signal that the scheduler is asked to send some time before it ends the job."""


class StopFlag:
    """A flag set once by a signal or a caller; workers then stop between two blocks of a volume."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def set(self, reason: str) -> None:
        """Ask the workers to stop; the first reason counts."""
        self.reason = self.reason or reason

    def __bool__(self) -> bool:
        return self.reason is not None


@contextmanager
def stop_on_signals(
    stop: StopFlag,
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
    on_signal: Callable[[str], None] = lambda name: None,
) -> Iterator[StopFlag]:
    """Make ``signals`` set ``stop`` within the block instead of killing the process.

    ``on_signal`` is called with the first one's name, from the signal's handler.
    """

    def handler(number: int, _: object) -> None:
        name = signal.Signals(number).name
        if not stop:
            on_signal(name)
        stop.set(name)

    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@dataclass
class _Running:
    order: Order
    worker: Hired
    written: bool = False
    given_up: bool = False
    """It was told to stop, did not, and was killed."""


def _has_room(running: Collection[_Running], num_workers: int) -> bool:
    """Return True if another worker may start; one that reads its shard back does not count."""
    # At most one more, however many read back: estimates of disk space count one shard more than
    # workers.
    return len(running) - any(one.written for one in running) < num_workers


def run_orders(
    orders: Sequence[Order],
    num_workers: int,
    stop: StopFlag,
    on_message: Callable[[Message], None],
    may_start: Callable[[Order], bool] = lambda order: True,
) -> None:
    """Carry out ``orders`` in their order, at most ``num_workers`` at a time.

    One more order begins while one of them has only to settle its shard and to read it back. Every
    order ends in one `ShardDone`, `SourcesReleased` or `ShardFailed` message, except those not
    begun before ``stop`` was set. If a converted shard is to let its sources go, that order begins
    next, because it frees space. ``on_message`` may set ``stop``. While ``may_start`` returns False
    for the next order, none begins.
    """
    staff = Staff()
    waiting = deque(orders)
    running: dict[Connection, _Running] = {}
    told_to_stop_at: float | None = None
    try:
        while running or (waiting and not stop):
            while (
                waiting
                and not stop
                and _has_room(running.values(), num_workers)
                and may_start(waiting[0])
            ):
                order = waiting.popleft()
                hired = staff.give(order)
                running[hired.messages] = _Running(order, hired)
            if stop:
                told_to_stop_at = told_to_stop_at or time.monotonic()
                # Every time: one that had not yet begun its order has not heard it.
                for one in running.values():
                    one.worker.process.terminate()
            if told_to_stop_at and time.monotonic() - told_to_stop_at > _STOP_PATIENCE_S:
                for one in running.values():
                    one.given_up = True
                    one.worker.process.kill()
            # No worker runs, and `may_start` refused the next order: ask again in a while.
            if not running:
                time.sleep(_POLL_S)
            # A time limit, because neither a signal nor free space ends the wait: Python resumes it
            # after a handler.
            for ready in wait(list(running), timeout=_POLL_S):
                follow = _receive(staff, running, ready, on_message)  # type: ignore[arg-type]
                if follow is not None:
                    # First in the queue: letting sources go frees space for the shards that wait.
                    waiting.appendleft(follow)
    finally:
        for one in running.values():
            one.worker.process.kill()
            one.worker.join()
        staff.dismiss()


def _receive(
    staff: Staff,
    running: dict[Connection, _Running],
    connection: Connection,
    on_message: Callable[[Message], None],
) -> Order | None:
    """Take one message; return the order that follows from it, if any."""
    one = running[connection]
    try:
        message: Message = one.worker.messages.recv()
    # A worker that was killed closes its end of the pipe without a last message.
    except (EOFError, OSError):
        one.worker.process.join()
        message = _died(one)
    if isinstance(message, Written):
        one.written = True
    elif not isinstance(message, Advanced):
        del running[connection]
        if isinstance(message, ShardDone):
            staff.take_back(one.worker)
        else:
            one.worker.join()
    on_message(message)
    return one.order.then_release(message) if isinstance(message, ShardDone) else None


def _died(one: _Running) -> ShardFailed:
    if one.given_up:
        what = f"the worker of shard {one.order.shard} did not stop in time, and was killed"
        return ShardFailed(one.order.shard, Interrupted(what), "")
    code = one.worker.process.exitcode
    if code is not None and code < 0:
        how = f"killed by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += " (often the kernel or the scheduler, out of memory)"
    else:
        how = f"exit code {code}"
    kind = WorkerKilled if code == -signal.SIGKILL else WorkerDied
    error = kind(
        f"the worker of shard {one.order.shard} died: {how}",
        next_command="give the same command again; it goes on with that shard",
    )
    return ShardFailed(one.order.shard, error, "")
