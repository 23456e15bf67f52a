"""``python -m tests.promises.faults.zygote``: command lines, each in a fork of one process.

That process has imported everything, so that a fault hits what the program does to files and
never how the interpreter starts. It has one thread, and each fork is a process of its own with the
real command line: it waits to be told to start, so that strace can be attached before.

A job is a line of JSON. The answers are the fork's process id and, once it was told to ``go``, its
exit code, negative where a signal ended it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import json
import multiprocessing
import os
import pkgutil
import signal
import sys
from typing import Any
from unittest import mock

import ctrate_convert
from ctrate_convert.cli import main
from ctrate_convert.running import run
from tests.promises.crash.scenario import orders_here

_PR_SET_PTRACER, _ANY = 0x59616D61, ctypes.c_ulong(-1)


def import_everything() -> None:
    """All modules of the program, and with them the libraries that it imports late."""
    for module in pkgutil.walk_packages(ctrate_convert.__path__, "ctrate_convert."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def carry_out(job: dict[str, Any], start: int, ready: int) -> None:
    """The command line of ``job``, from its first word to its exit handlers."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)
    signal.alarm(job["timeout_s"])
    os.write(ready, b"x")  # what it calls from here on is seen, so that calls can be numbered
    os.read(start, 1)
    os.close(start)
    said = os.open(job["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = ["ctrate-convert", *job["words"]]
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context
        if job["worker_processes"]:  # by fork, for the same reason as this process
            fork = multiprocessing.get_context("fork")
            patch(mock.patch.object(multiprocessing, "get_context", lambda method: fork))
        else:
            patch(mock.patch.object(run, "run_orders", orders_here))
        try:
            main()
        except SystemExit as left:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            os._exit(int(left.code or 0))  # taking all those modules apart takes longer than a run


def answer(number: int) -> None:
    """One line to whoever asked."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def serve() -> None:
    """Job after job until there is no more."""
    import_everything()
    for line in sys.stdin:
        start, go = os.pipe()
        is_ready, ready = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(go)
            os.close(is_ready)
            carry_out(json.loads(line), start, ready)
        os.close(start)
        os.close(ready)
        os.read(is_ready, 1)
        os.close(is_ready)
        answer(pid)
        sys.stdin.readline()
        os.write(go, b"x")
        os.close(go)
        _, status = os.waitpid(pid, 0)
        answer(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    serve()
