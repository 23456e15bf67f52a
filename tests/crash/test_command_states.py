"""A power loss during ``delete`` and ``verify --repair``: nothing is lost, the same end is reached.

Their fsyncs are those of a run, and are left out in turn in ``test_every_fsync.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.command_scenarios import DeleteScenario, RepairScenario
from tests.crash.conftest import Recorded
from tests.crash.disk import Fsync, states_of
from tests.crash.killed import after_a_kill
from tests.crash.recorder import named_by_order
from tests.crash.scenario import Ending, quick_folder
from tests.crash.test_every_fsync import LOST, ONLY_PROMISED, STUCK, STUCK_AFTER_A_KILL

LISTED = {*LOST, *STUCK, *STUCK_AFTER_A_KILL, *ONLY_PROMISED}

OF_A_REPAIR = {
    "data: _temporary_with < create_once < publish_directory < repair._publish",
    "names: create_once < publish_directory < repair._publish",
    "names: publish_directory < repair._publish",
}
"""Those of a plan, which a repair publishes too."""


@pytest.fixture(scope="module", params=[DeleteScenario, RepairScenario], ids=["delete", "repair"])
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
