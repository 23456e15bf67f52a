"""One process carries out many orders; its end costs the order that it was at, and no other."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import pytest

from ctrate_convert.errors import WorkerKilled
from ctrate_convert.running import staff, worker
from ctrate_convert.running.parent import hear_signals
from ctrate_convert.running.pool import Message, StopFlag, run_orders
from ctrate_convert.running.worker import Order, ShardDone, ShardFailed, SourcesReleased

PATIENCE_S = 20.0
"""Shorter than the patience after which a worker is killed."""

Main = Callable[[Order, Connection], None]


def note_the_process(order: Order, connection: Connection) -> None:
    (order.out / f"{order.shard}{'-released' * order.releasing}").write_text(str(os.getpid()))
    if order.releasing:
        connection.send(SourcesReleased(order.shard))
    else:
        connection.send(ShardDone(order.shard, output_bytes=1))


def die_at_the_third(order: Order, connection: Connection) -> None:
    if order.shard == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    note_the_process(order, connection)


def die_after_the_third(order: Order, connection: Connection) -> None:
    note_the_process(order, connection)
    if order.shard == 2:
        os.kill(os.getpid(), signal.SIGKILL)


def fail_at_the_third(order: Order, connection: Connection) -> None:
    if order.shard == 2:
        connection.send(ShardFailed(2, WorkerKilled("no memory", next_command=""), ""))
    else:
        note_the_process(order, connection)


def hear_only_late(order: Order, connection: Connection) -> None:
    """The second order is told to stop while the first one's handler is still in place."""
    heard: list[int] = []
    if order.shard:
        time.sleep(0.5)
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    hear_signals()
    while order.shard and not heard:
        time.sleep(0.01)
    connection.send(ShardDone(order.shard))


def carried_out(
    main: Main, folder: Path, *, consent: str | None = None, pause_s: float = 0.0
) -> list[Message]:
    """The last messages of six orders that one worker at a time carried out."""
    said: list[Message] = []
    orders = [Order(folder, shard, "attempt", consent) for shard in range(6)]

    def take(message: Message) -> None:
        said.append(message)
        time.sleep(pause_s)

    with mock.patch.object(worker, "main", main):
        run_orders(orders, 1, StopFlag(), take)
    return said


def processes(folder: Path) -> dict[str, int]:
    return {path.name: int(path.read_text()) for path in folder.iterdir()}


def test_one_process_carries_out_many_orders(tmp_path: Path) -> None:
    assert len(carried_out(note_the_process, tmp_path)) == 6
    assert len({*processes(tmp_path).values()}) == 1


def test_an_old_process_gets_no_further_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staff, "_SERVES_S", 0.0)
    assert len(carried_out(note_the_process, tmp_path)) == 6
    assert len({*processes(tmp_path).values()}) == 6


def test_a_kill_costs_the_order_that_the_process_was_at(tmp_path: Path) -> None:
    said = carried_out(die_at_the_third, tmp_path)
    (failed,) = [one for one in said if isinstance(one, ShardFailed)]
    assert failed.shard == 2 and isinstance(failed.error, WorkerKilled)
    assert sorted(processes(tmp_path)) == ["0", "1", "3", "4", "5"]
    assert len({*processes(tmp_path).values()}) == 2


def test_a_kill_between_two_orders_costs_none(tmp_path: Path) -> None:
    said = carried_out(die_after_the_third, tmp_path, pause_s=0.1)
    assert all(isinstance(one, ShardDone) for one in said)
    assert len({*processes(tmp_path).values()}) == 2


def test_a_failure_ends_the_process(tmp_path: Path) -> None:
    """What it left in memory is not known."""
    assert len(carried_out(fail_at_the_third, tmp_path)) == 6
    assert len({*processes(tmp_path).values()}) == 2


def test_sources_are_let_go_by_a_process_that_did_nothing_else(tmp_path: Path) -> None:
    assert len(carried_out(note_the_process, tmp_path, consent="consent")) == 12
    by_name = processes(tmp_path)
    released = [by_name[name] for name in by_name if name.endswith("-released")]
    assert len(released) == len({*released}) == 6
    assert not {*released} & {by_name[str(shard)] for shard in range(6)}


def test_a_request_to_stop_is_not_lost_between_two_orders(tmp_path: Path) -> None:
    stop = StopFlag()

    def take(message: Message) -> None:
        threading.Timer(0.2, stop.set, ["as asked"]).start()

    started = time.monotonic()
    with mock.patch.object(worker, "main", hear_only_late):
        run_orders([Order(tmp_path, one, "attempt") for one in range(3)], 1, stop, take)
    assert time.monotonic() - started < PATIENCE_S
