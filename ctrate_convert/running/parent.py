"""Tie worker processes to the command that started them.

A command starts one fork server, which forks the workers. Ctrl+C and SIGTERM often reach the whole
process group: the fork server must survive them, and each worker decides for itself once it can. A
command that is killed takes the fork server and all workers with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import select
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection

from ctrate_convert.running.heap import keep_freed_memory
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.privacy import keep_private

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)

_TIE = "ctrate_convert.running.forkserver_tie"
_TO_STOP = (signal.SIGINT, signal.SIGTERM)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, the process ``parent``, ends.

    The kernel sends SIGKILL. SIGTERM would be held back until a worker can obey it, and asks to
    stop at the next block, while after the parent's end nothing more may begin. The same command
    goes on from every state that a kill leaves. The signal comes when the parent's *thread* that
    forked ends, so that thread must live as long as the process.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent ended before prctl took effect
        os._exit(1)


def parent_is_gone(connection: Connection) -> bool:
    """Return True if nobody reads any more what this worker writes to ``connection``."""
    poll = select.poll()
    poll.register(connection.fileno(), 0)  # poll always reports errors and hang-ups
    return bool(poll.poll(0))


def start_forkserver(preload: Sequence[str], ignored: Sequence[signal.Signals] = ()) -> None:
    """Start the process that workers are forked from, unless it runs.

    The fork server blocks SIGINT and SIGTERM, and so do the workers until they call `hear_signals`:
    no signal is lost, and none ends a process that is only just starting. ``ignored`` are signals
    that a scheduler sends to every process of a job and on which only the command is to act.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    context = multiprocessing.get_context("forkserver")
    # From another thread there is no tie: the kernel would kill the workers when that thread ends.
    context.set_forkserver_preload([_TIE, *preload] if main_thread else [*preload])
    if context.get_start_method() != "forkserver":
        return
    resource_tracker.ensure_running()  # first: its start unblocks SIGINT and SIGTERM
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    try:
        with signals_held():
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_STOP)  # the fork server inherits it
            try:
                forkserver.ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Make SIGINT and SIGTERM wait within the block, for steps that must not be left half done.

    Handlers do this, not a signal mask: the kernel gives a signal that this thread blocks to
    another thread, such as one that a library started, and then it interrupts this thread all the
    same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread runs handlers
        return
    held: list[int] = []
    before = [(one, signal.signal(one, lambda number, _: held.append(number))) for one in _TO_STOP]
    try:
        yield
    finally:
        for one, handler in before:
            signal.signal(one, handler)
        for number in held:
            signal.raise_signal(number)


def hear_signals() -> None:
    """Unblock SIGINT and SIGTERM in a worker that has its handlers for them in place."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_STOP)


def begin_work(dataset: Dataset) -> None:
    """Prepare a worker for its work; call this once its signal handlers are in place."""
    keep_private(dataset)
    keep_freed_memory()
    hear_signals()
