"""A power loss while sources come back from a trash: each is there or at home, and comes home."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.promises.crash.command_scenarios import PutBackScenario, RestoreScenario
from tests.promises.crash.conftest import Recorded
from tests.promises.crash.disk import Entry, Fsync, NameChange, State, states_of
from tests.promises.crash.killed import next_log
from tests.promises.crash.recorder import named_by_order
from tests.promises.crash.scenario import Ending, quick_folder
from tests.promises.crash.test_every_fsync import PUTS_BACK
from tests.promises.crash.test_trash_states import without

NEEDED = (
    "names: open_beneath < restore._move_back",
    "names: move_if_free < restore._move_back",
)
"""Without it a source is neither at home nor in the trash."""

KEEPS_ONE_NAME = ("names: restore._move_back",)
"""Without it a source that is told to be back is in the trash, too."""

NEEDED_AFTER_A_KILL = ("names: restore._is_home",)
"""Without it the journal says of a source that it is back, and the power loss undoes that."""

ONLY_PROMISED = ("data: append_lines < restore._restore_shard",)
"""The next call finds the source at home and writes the line again."""


@dataclass(frozen=True)
class BroughtBack(Recorded):
    """The same with sources that come back."""

    scenario: RestoreScenario


@pytest.fixture(scope="module")
def back() -> Iterator[BroughtBack]:
    """An undisturbed ``restore``."""
    with quick_folder("restore-states") as place:
        scenario = RestoreScenario.make(place)
        start = scenario.prepare()
        log = named_by_order(scenario.record(start).log)
        ending = Ending(scenario.shards(), scenario.manifest())
        assert scenario.incomplete(ending) is None
        yield BroughtBack(scenario, start, tuple(log), ending)


def kills(back: BroughtBack) -> Iterator[tuple[Recorded, list[Entry]]]:
    """Right after each move: what the disk holds, and what the next call does."""
    disk = back.start.copy()
    for entry in back.log:
        disk.take(entry)
        if isinstance(entry, NameChange) and entry.needs is not None:
            killed = disk.copy()
            yield Recorded(back.scenario, killed, (), back.ending), next_log(back, killed)


def distinct(states: Iterator[State]) -> list[State]:
    return list({state.key: state for state in states}.values())


def wrong_with(back: BroughtBack, state: State) -> str | None:
    """What is wrong in this state or after the same call again.

    Not: that a file system without atomic renames left both names, and they stay.
    """
    scenario = back.scenario
    scenario.put(state.tree)
    twice = scenario.twice()
    wrong = scenario.lost() or scenario.restart()
    return wrong or (None if twice else scenario.incomplete(back.ending))


def test_every_state_is_complete_after_the_same_command(back: BroughtBack) -> None:
    """From every state: no source is missing in both places, then each is at home, told so."""
    states = distinct(state for _, state in states_of(back.start, back.log))
    assert len(states) > 10
    for state in states:
        assert wrong_with(back, state) is None, state.label


def test_a_kill_and_then_a_power_loss(back: BroughtBack) -> None:
    """What a killed call moved is settled before the journal tells of it."""
    states = distinct(
        state for killed, log in kills(back) for _, state in states_of(killed.start, log)
    )
    assert len(states) > 20
    for state in states:
        assert wrong_with(back, state) is None, state.label


@pytest.mark.parametrize("site", NEEDED)
def test_without_it_a_source_is_nowhere(back: BroughtBack, site: str) -> None:
    """A state shows what the fsync is for."""
    for state in distinct(state for _, state in states_of(back.start, without(back.log, site))):
        back.scenario.put(state.tree)
        if back.scenario.lost():
            return
    raise AssertionError("no state needs it")


def told_twice(back: BroughtBack, log: list[Entry]) -> bool:
    """Whether the whole ``log`` may end in a source that is at home and in the trash."""
    disk = back.start.copy()
    for entry in log:
        disk.take(entry)
    for state in distinct(disk.states()):
        back.scenario.put(state.tree)
        if back.scenario.twice():
            return True
    return False


@pytest.mark.parametrize("site", KEEPS_ONE_NAME)
def test_without_it_a_source_has_two_names(back: BroughtBack, site: str) -> None:
    """Only without it is a source still in the trash of which the command said that it is back."""
    assert not told_twice(back, list(back.log))
    assert told_twice(back, without(back.log, site))


@pytest.mark.parametrize("site", NEEDED_AFTER_A_KILL)
def test_without_it_a_kill_and_a_power_loss_are_too_much(back: BroughtBack, site: str) -> None:
    """A state shows a move that nobody synced, and no later call makes again."""
    assert any(
        wrong_with(back, state)
        for killed, log in kills(back)
        for state in distinct(
            state for _, state in states_of(killed.start, without(tuple(log), site))
        )
    )


@pytest.mark.parametrize("site", ONLY_PROMISED)
def test_without_it_a_promise_is_broken(back: BroughtBack, site: str) -> None:
    """A state shows a line that was said to be written, and is not."""
    states = states_of(back.start, without(back.log, site))
    assert any(disk.broken_promise(state) for disk, state in states)


def test_every_fsync_of_a_restore_is_accounted_for(back: BroughtBack) -> None:
    """The sites here are those that a call has, or one that follows a kill."""
    entries = [*back.log, *(entry for _, log in kills(back) for entry in log)]
    sites = {entry.site for entry in entries if isinstance(entry, Fsync)}
    assert sites == {*NEEDED, *KEEPS_ONE_NAME, *NEEDED_AFTER_A_KILL, *ONLY_PROMISED}


@pytest.fixture(scope="module")
def put_back() -> Iterator[Recorded]:
    """An undisturbed ``restore`` of what a killed ``delete`` left aside."""
    with quick_folder("put-back-states") as place:
        scenario = PutBackScenario.make(place)
        start = scenario.prepare()
        log = named_by_order(scenario.record(start).log)
        ending = Ending(scenario.shards(), scenario.manifest())
        assert scenario.incomplete(ending) is None
        yield Recorded(scenario, start, tuple(log), ending)


def test_a_power_loss_while_a_name_is_given_back(put_back: Recorded) -> None:
    """From every state the same command gives the source its name."""
    states = distinct(state for _, state in states_of(put_back.start, put_back.log))
    assert states
    for state in states:
        assert put_back.scenario.wrong_with(state, put_back.ending) is None, state.label


def left_aside(put_back: Recorded, log: list[Entry]) -> bool:
    """Whether the file may lie aside after the whole ``log``."""
    disk = put_back.start.copy()
    for entry in log:
        disk.take(entry)
    for state in disk.states():
        put_back.scenario.put(state.tree)
        if put_back.scenario.aside():
            return True
    return False


@pytest.mark.parametrize("site", PUTS_BACK)
def test_without_it_a_name_is_not_given_back_for_good(put_back: Recorded, site: str) -> None:
    """Only without it may a power loss undo what the command has said."""
    assert not left_aside(put_back, list(put_back.log))
    assert left_aside(put_back, without(put_back.log, site))
