"""A function is run on many values in a few processes: in order, bounded, ended with its user."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import pytest

from ctrate_convert.errors import SettingsError, WorkerDied
from ctrate_convert.running.each_process import each_in_a_process, in_processes


def squared(value: int) -> int:
    """The first ones take longest, so that results come out of order."""
    time.sleep(0.05 if value % 4 == 0 else 0)
    return value * value


def refused(value: int) -> int:
    raise SettingsError("refused", seen=value)


def killed(value: int) -> int:
    os.kill(os.getpid(), 9)
    return value


def whose(value: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def test_results_come_in_order() -> None:
    told: list[tuple[int, int]] = []
    results = each_in_a_process(squared, range(20), 2, lambda *done: told.append(done))
    assert results == [value * value for value in range(20)]
    assert told == [(done, 20) for done in range(1, 21)]


def test_one_value_needs_no_process() -> None:
    assert each_in_a_process(whose, [1], 8) == [os.getpid()]
    assert set(each_in_a_process(whose, [1, 2, 3], 1)) == {os.getpid()}


def test_values_are_taken_as_they_are_needed() -> None:
    """A caller that is slow does not let results pile up."""
    taken: list[int] = []

    def values() -> Iterator[int]:
        for value in range(1000):
            taken.append(value)
            yield value

    with contextlib.closing(in_processes(squared, values(), 2, most_ahead=5)) as results:
        assert [next(results) for _ in range(10)] == [value * value for value in range(10)]
    assert len(taken) <= 10 + 5 + 2


def test_who_closes_it_ends_the_workers() -> None:
    results = in_processes(whose, range(1000), 2)
    workers = {next(results) for _ in range(6)}
    assert os.getpid() not in workers
    results.close()
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.mark.parametrize(("function", "kind"), [(refused, SettingsError), (killed, WorkerDied)])
def test_an_error_reaches_the_caller(function: object, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        list(in_processes(function, range(9), 2))  # type: ignore[arg-type]
