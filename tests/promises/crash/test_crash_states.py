"""A power loss at any moment: nothing is lost, and the same command comes to the same end."""

from __future__ import annotations

import pytest

from tests.promises.crash.conftest import Recorded
from tests.promises.crash.disk import State, states_of
from tests.promises.crash.killed import after_a_kill

PARTS = 4


def distinct(recorded: Recorded) -> list[State]:
    states = {state.key: state for _, state in states_of(recorded.start, recorded.log)}
    return list(states.values())


@pytest.mark.parametrize("part", range(PARTS))
def test_every_state_is_complete_after_the_same_command(recorded: Recorded, part: int) -> None:
    """From every state: each sample is there or proven, then each is in one shard, once."""
    states = distinct(recorded)[part::PARTS]
    assert len(states) > 100
    for state in states:
        assert recorded.scenario.wrong_with(state, recorded.ending) is None, state.label


def test_what_was_said_to_be_durable_is(recorded: Recorded) -> None:
    """What ``durable.py`` says has happened has happened, in every state that follows."""
    for disk, state in states_of(recorded.start, recorded.log):
        assert disk.broken_promise(state) is None, state.label


def test_a_kill_and_then_a_power_loss(recorded: Recorded) -> None:
    """What a killed process left un-synced is synced by the next one before it relies on it."""
    states = {state.key: state for state in after_a_kill(recorded)}
    assert len(states) > 50
    for state in states.values():
        assert recorded.scenario.wrong_with(state, recorded.ending) is None, state.label
