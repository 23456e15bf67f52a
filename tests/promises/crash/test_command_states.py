"""A power loss during ``delete`` and ``verify --repair``: nothing is lost, the same end is reached.

Their fsyncs are those of a run, and are left out in turn in ``test_every_fsync.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.promises.crash.command_scenarios import DeleteScenario, KeepScenario, RepairScenario
from tests.promises.crash.conftest import Recorded
from tests.promises.crash.disk import Fsync, states_of
from tests.promises.crash.killed import after_a_kill
from tests.promises.crash.recorder import named_by_order
from tests.promises.crash.scenario import Ending, quick_folder
from tests.promises.crash.test_every_fsync import (
    LOST,
    OF_AN_OLD_DATASET,
    ONLY_PROMISED,
    PUTS_BACK,
    STUCK,
    STUCK_AFTER_A_KILL,
    left_out,
)

LISTED = {*LOST, *STUCK, *STUCK_AFTER_A_KILL, *ONLY_PROMISED, *OF_AN_OLD_DATASET, *PUTS_BACK}

OF_A_REPAIR = {
    "data: settle < publish_directory < plan_repairs._publish",
    "data: _temporary_with < create_once < publish_directory < plan_repairs._publish",
    "names: create_once < publish_directory < plan_repairs._publish",
    "names: publish_directory < plan_repairs._publish",
}
"""Those of a plan, which a repair publishes too."""


SCENARIOS = {"delete": DeleteScenario, "keep": KeepScenario, "repair": RepairScenario}


@pytest.fixture(scope="module", params=[*SCENARIOS.values()], ids=[*SCENARIOS])
def recorded(request: pytest.FixtureRequest) -> Iterator[Recorded]:
    """One undisturbed command."""
    with quick_folder("command-states") as place:
        scenario = request.param.make(place)
        start = scenario.prepare()
        log = named_by_order(scenario.record(start).log)
        ending = Ending(scenario.shards(), scenario.manifest())
        assert scenario.incomplete(ending) is None
        yield Recorded(scenario, start, tuple(log), ending)


def test_every_state_is_complete_after_the_same_command(recorded: Recorded) -> None:
    """From every state: each source is there or proven, then the command comes to its end."""
    states = {state.key: state for _, state in states_of(recorded.start, recorded.log)}
    assert len(states) > 100
    for state in states.values():
        assert recorded.scenario.wrong_with(state, recorded.ending) is None, state.label


def test_a_kill_and_then_a_power_loss(recorded: Recorded) -> None:
    """What a killed command left un-synced is synced by the next one before it relies on it."""
    states = {state.key: state for state in after_a_kill(recorded)}
    assert states
    for state in states.values():
        assert recorded.scenario.wrong_with(state, recorded.ending) is None, state.label


def test_their_fsyncs_are_those_of_a_run(recorded: Recorded) -> None:
    """No command has an fsync of its own that nobody leaves out."""
    sites = {entry.site for entry in recorded.log if isinstance(entry, Fsync)}
    assert sites - LISTED <= OF_A_REPAIR


@pytest.mark.parametrize("site", OF_AN_OLD_DATASET)
def test_without_it_a_promise_is_broken(recorded: Recorded, site: str) -> None:
    """A state shows a consent that was said to be recorded, in a folder that is not there."""
    if isinstance(recorded.scenario, RepairScenario):
        assert all(not isinstance(e, Fsync) or e.site != site for e in recorded.log)
        return
    states = states_of(recorded.start, left_out(recorded, site))
    assert any(disk.broken_promise(state) for disk, state in states)
