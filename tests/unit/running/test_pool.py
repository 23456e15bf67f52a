"""Workers share a queue of shards, and storage keeps nobody waiting who could convert."""

from __future__ import annotations

import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import pytest

from ctrate_convert.errors import Interrupted
from ctrate_convert.running import pool, worker
from ctrate_convert.running.pool import Message, StopFlag, run_orders
from ctrate_convert.running.worker import Advanced, Order, ShardDone, ShardFailed, Written

PATIENCE_S = 60.0


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path.name)
        time.sleep(0.002)


def read_back_while_the_next_converts(order: Order, connection: Connection) -> None:
    """A worker whose storage answers only once the next shard, if there is one, was begun."""
    (order.out / f"begun-{order.shard}").touch()
    connection.send(Written(order.shard))
    if not (order.out / f"last-{order.shard}").exists():
        wait_for(order.out / f"begun-{order.shard + 1}")
    connection.send(ShardDone(order.shard))


def convert_for_a_while(order: Order, connection: Connection) -> None:
    """A worker that notes how many are at work with it."""
    (order.out / f"begun-{order.shard}").touch()
    time.sleep(0.2)
    at_work = len([*order.out.glob("begun-*")]) - len([*order.out.glob("ended-*")])
    (order.out / f"at-work-{order.shard}").write_text(str(at_work))
    (order.out / f"ended-{order.shard}").touch()
    connection.send(ShardDone(order.shard))


def orders(folder: Path, count: int) -> list[Order]:
    return [Order(folder, shard, "attempt", None) for shard in range(count)]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_another_shard_is_begun_while_one_is_read_back(tmp_path: Path, num_workers: int) -> None:
    """Settling and reading back a shard does not hold up the conversion of the next one."""
    (tmp_path / "last-3").touch()
    said: list[Message] = []
    with mock.patch.object(worker, "main", read_back_while_the_next_converts):
        run_orders(orders(tmp_path, 4), num_workers, StopFlag(), said.append)
    assert sorted(one.shard for one in said if isinstance(one, ShardDone)) == [0, 1, 2, 3]


def test_no_more_convert_at_once_than_were_asked_for(tmp_path: Path) -> None:
    """While none has written its shard, no worker is begun beyond the number asked for."""
    with mock.patch.object(worker, "main", convert_for_a_while):
        run_orders(orders(tmp_path, 5), 2, StopFlag(), lambda message: None)
    at_work = [int(path.read_text()) for path in tmp_path.glob("at-work-*")]
    assert len(at_work) == 5
    assert max(at_work) == 2


def hang(order: Order, connection: Connection) -> None:
    """A worker that storage does not let go, whatever it is told."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (order.out / f"begun-{order.shard}").touch()
    connection.send(Advanced(order.shard, 1, 1))
    time.sleep(PATIENCE_S)


def test_a_worker_that_does_not_stop_is_given_up_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed at last; the report calls it given up, and not a lack of memory."""
    monkeypatch.setattr(pool, "_STOP_PATIENCE_S", 0.3)
    stop, said = StopFlag(), list[Message]()

    def take(message: Message) -> None:
        said.append(message)
        stop.set("SIGINT")

    with mock.patch.object(worker, "main", hang):
        run_orders(orders(tmp_path, 1), 1, stop, take)
    assert isinstance(said[-1], ShardFailed)
    assert isinstance(said[-1].error, Interrupted)
    assert "did not stop in time" in said[-1].error.one_line()
