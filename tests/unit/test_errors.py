"""Errors keep their facts on every way that they go."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest

from ctrate_convert.errors import CtrateError, DamageError, WorkerKilled

NEXT = "ctrate-convert verify OUT --full"


@pytest.mark.parametrize("kind", [CtrateError, DamageError, WorkerKilled])
def test_facts_survive_pickling(kind: type[CtrateError]) -> None:
    error = kind("broken", where="a.tar", seen=1, expected=2, next_command=NEXT)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own
        assert type(again) is kind and vars(again) == vars(error)
        assert again.lines() == error.lines() and str(again) == str(error)


def test_the_next_command_is_in_a_traceback_and_in_no_reason() -> None:
    """torch makes a worker's error anew from its traceback; records keep one line."""
    error = DamageError("broken", where="a.tar", next_command=NEXT)
    assert str(error) == error.one_line() == "broken (a.tar)"
    told = "".join(traceback.format_exception(error))
    assert told.endswith(f"DamageError: broken (a.tar)\nNext: {NEXT}\n")
    anew = DamageError(f"Caught DamageError in DataLoader worker process 0.\nOriginal {told}")
    assert NEXT in str(anew)
    plain = "".join(traceback.format_exception(DamageError("broken")))
    assert plain.endswith("DamageError: broken\n")
