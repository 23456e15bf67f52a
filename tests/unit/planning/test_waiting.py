"""Threads read where storage makes readers wait, and only there; the order stays."""

from __future__ import annotations

import threading
import time

from ctrate_convert.planning.waiting import each_read


def test_reads_that_wait_are_done_at_once() -> None:
    threads: set[str] = set()

    def read(value: int) -> int:
        threads.add(threading.current_thread().name)
        time.sleep(0.005)
        return value

    started = time.monotonic()
    assert list(each_read(read, range(400))) == list(range(400))
    assert time.monotonic() - started < 400 * 0.005 / 2
    assert len(threads) > 2


def test_reads_from_memory_stay_in_one_thread() -> None:
    threads: set[int] = set()

    def read(value: int) -> int:
        threads.add(threading.get_ident())
        return sum(range(200)) * 0 + value

    assert list(each_read(read, range(2000))) == list(range(2000))
    assert threads == {threading.get_ident()}
