"""Run one function on many values, in a few processes of their own.

Use it for work that holds the interpreter's lock and changes nothing: the processes are killed when
they are no longer wanted, at Ctrl+C, and when their parent is gone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import chain, count, islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from ctrate_convert.errors import CtrateError, WorkerDied
from ctrate_convert.running.parent import hear_signals, signals_held, start_forkserver

T = TypeVar("T")
R = TypeVar("R")


def each_in_a_process(
    function: Callable[[T], R],
    values: Sequence[T],
    num_workers: int,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[R]:
    """Return the results of ``function`` for all values, in their order.

    ``on_done`` is called with the numbers of values done and of all. With one worker, or for one
    value, ``function`` is called in this process. ``function`` must be importable by its name.

    Raises:
        WorkerDied: a process was killed.
        CtrateError, OSError: ``function`` raised it.
    """
    done = count(1)

    def on_answer() -> None:
        on_done(next(done), len(values))

    return list(in_processes(function, values, num_workers, len(values), on_answer))


def in_processes(
    function: Callable[[T], R],
    values: Iterable[T],
    num_workers: int,
    most_ahead: int = 32,
    on_answer: Callable[[], None] = lambda: None,
) -> Generator[R, None, None]:
    """Yield the results of ``function`` for all values, in their order, while others are computed.

    At most ``most_ahead`` values are under way or done before their turn, so that memory stays
    bounded however many there are. The rest is as in `each_in_a_process`.
    """
    rest = iter(values)
    first = list(islice(rest, 2))
    if num_workers == 1 or len(first) <= 1:
        for value in chain(first, rest):
            result = function(value)
            on_answer()
            yield result
        return
    waiting = enumerate(chain(first, rest))
    results: dict[int, R] = {}
    workers: dict[Connection, BaseProcess] = {}
    idle: list[Connection] = []
    asked: dict[Connection, int] = {}
    turn = 0

    def ask() -> None:
        while len(results) + len(asked) < most_ahead and (idle or len(workers) < num_workers):
            number_and_value = next(waiting, None)
            if number_and_value is None:
                return
            if not idle:
                # An interrupt between start and bookkeeping would leave a worker that nobody knows
                # of.
                with signals_held():
                    connection, process = _start(function)
                    workers[connection] = process
                idle.append(connection)
            number, value = number_and_value
            connection = idle.pop()
            with contextlib.suppress(ConnectionError):  # `_answer` notices that it died
                connection.send(value)
            asked[connection] = number

    try:
        start_forkserver([function.__module__])
        ask()
        while asked:
            for ready in wait(list(asked)):
                connection: Connection = ready  # type: ignore[assignment]
                results[asked.pop(connection)] = _answer(connection, workers[connection])
                idle.append(connection)
                on_answer()
            while turn in results:
                ask()  # first, so that no worker waits for what the caller does with the result
                yield results.pop(turn)
                turn += 1
            ask()
    finally:
        # Kill all of them: the interpreter waits at its end for a process that is left.
        with signals_held():
            for process in workers.values():
                process.kill()
        for process in workers.values():
            process.join()


def _start(function: Callable[[T], R]) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(function, there), daemon=True)
    process.start()
    # While this process holds the worker's end too, the pipe never reports that the worker has
    # died.
    there.close()
    return here, process


def _answer(connection: Connection, process: BaseProcess) -> Any:
    try:
        result = connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise _died(process.exitcode) from None
    if isinstance(result, CtrateError | OSError):
        raise result
    return result


def _died(code: int | None) -> WorkerDied:
    how = f"exit code {code}"
    if code is not None and code < 0:
        how = f"killed by {signal.Signals(-code).name}"
    return WorkerDied(
        f"a worker process died: {how}",
        next_command="give the same command again; with fewer --num_workers if memory is short",
    )


def _serve(function: Callable[[T], R], connection: Connection) -> None:
    """Answer the parent's questions in the worker process until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the parent, which kills us
    # SIGTERM keeps its default: these processes change nothing, so they may end anywhere.
    hear_signals()
    # The kernel ends this process with the command only if the main thread started the fork server.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            value = connection.recv()
        except EOFError:
            return
        try:
            result: R | CtrateError | OSError = function(value)
        except (CtrateError, OSError) as error:
            result = error
        connection.send(result)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
