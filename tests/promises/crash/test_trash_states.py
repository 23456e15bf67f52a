"""A power loss while sources are moved to a trash: each is at home or there, and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ctrate_convert.errors import ExitCode
from tests.promises.crash.conftest import Recorded
from tests.promises.crash.disk import Disk, Entry, Fsync, NameChange, State, states_of
from tests.promises.crash.killed import next_log
from tests.promises.crash.recorder import named_by_order
from tests.promises.crash.scenario import Ending, quick_folder
from tests.promises.crash.trash_scenario import TrashScenario

NEEDED = (
    "names: open_beneath < trash.open_in_trash",
    "names: move_if_free < trash.take",
)
"""Without it a source is neither at home nor in the trash."""

NEEDED_AFTER_A_KILL = ("names: trash.is_in_trash",)
"""The same, of a move that a killed process made."""

ONLY_PROMISED = ("names: make_directories < trash.prepare_trash",)
"""Each move makes sure of the trash's folders anew, but not of the trash itself."""


@dataclass(frozen=True)
class Moved(Recorded):
    """The same with a trash."""

    scenario: TrashScenario


@pytest.fixture(scope="module")
def moved() -> Iterator[Moved]:
    """An undisturbed run, from where the first shard's folder in the trash is made."""
    with quick_folder("trash-states") as place:
        scenario = TrashScenario.make(place)
        start = Disk.load(scenario.disk_folder)
        log = named_by_order(scenario.record(start).log)
        ending = Ending(scenario.shards(), scenario.manifest())
        assert scenario.incomplete(ending) is None
        first = next(n for n, entry in enumerate(log) if is_move_or_folder(entry))
        for entry in log[:first]:
            start.take(entry)
        yield Moved(scenario, start, tuple(log[first:]), ending)


def is_move_or_folder(entry: Entry) -> bool:
    return isinstance(entry, NameChange) and entry.names[0][0] == "shard-000000"


def without(log: tuple[Entry, ...], site: str) -> list[Entry]:
    left = [entry for entry in log if not (isinstance(entry, Fsync) and entry.site == site)]
    assert len(left) < len(log)
    return left


def kills(moved: Moved) -> Iterator[tuple[Recorded, list[Entry]]]:
    """Right after each move: what the disk holds, and what the next run does."""
    disk = moved.start.copy()
    for entry in moved.log:
        disk.take(entry)
        if isinstance(entry, NameChange) and entry.needs is not None:
            killed = disk.copy()
            yield Recorded(moved.scenario, killed, (), moved.ending), next_log(moved, killed)


def test_every_state_is_complete_after_the_same_command(moved: Moved) -> None:
    """From every state: no source is missing in both places, then each is in the trash, told so.

    One that a file system without atomic renames left under both names is kept under both, since
    its place is taken.
    """
    states: dict[object, State] = {s.key: s for _, s in states_of(moved.start, moved.log)}
    assert len(states) > 30
    scenario, finished = moved.scenario, 0
    for state in states.values():
        scenario.put(state.tree)
        twice = scenario.twice()
        code = ExitCode.REFUSED if twice else ExitCode.DONE
        assert (scenario.lost() or scenario.restart(code) or scenario.lost()) is None, state.label
        assert not scenario.aside(), state.label
        assert scenario.twice() == twice, state.label
        if not twice:
            finished += 1
            assert scenario.incomplete(moved.ending) is None, state.label
    assert finished > 100


def test_a_kill_and_then_a_power_loss(moved: Moved) -> None:
    """What a killed process moved is settled before the journal tells of it."""
    seen: set[object] = set()
    for killed, log in kills(moved):
        for _, state in states_of(killed.start, log):
            if state.key not in seen:
                seen.add(state.key)
                moved.scenario.put(state.tree)
                assert moved.scenario.lost() is None, state.label
    assert len(seen) > 30


@pytest.mark.parametrize("site", NEEDED)
def test_without_it_a_source_is_nowhere(moved: Moved, site: str) -> None:
    """A state shows what the fsync is for."""
    states = {s.key: s for _, s in states_of(moved.start, without(moved.log, site))}
    for state in states.values():
        moved.scenario.put(state.tree)
        if moved.scenario.lost():
            return
    raise AssertionError("no state needs it")


@pytest.mark.parametrize("site", NEEDED_AFTER_A_KILL)
def test_without_it_a_kill_and_a_power_loss_are_too_much(moved: Moved, site: str) -> None:
    """A state shows a move that nobody synced."""
    seen: set[object] = set()
    for killed, log in kills(moved):
        for _, state in states_of(killed.start, without(tuple(log), site)):
            if state.key not in seen:
                seen.add(state.key)
                moved.scenario.put(state.tree)
                if moved.scenario.lost():
                    return
    raise AssertionError("no state needs it")


def test_every_fsync_of_the_trash_is_accounted_for(moved: Moved) -> None:
    """The sites here are those that a run has, or one that follows a kill."""
    entries = [*moved.log, *(entry for _, log in kills(moved) for entry in log)]
    sites = {entry.site for entry in entries if isinstance(entry, Fsync)}
    ours = {site for site in sites if "trash." in site}
    assert ours == {*NEEDED, *NEEDED_AFTER_A_KILL, *ONLY_PROMISED}
