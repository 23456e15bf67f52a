"""No fsync is there for nothing: leave out any one, and a state shows what it was for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.promises.crash.conftest import Recorded
from tests.promises.crash.disk import Entry, Fsync, NameChange, State, states_of
from tests.promises.crash.killed import after_a_kill, next_log
from tests.promises.crash.scenario import HIDDEN

LOST = (
    "data: settle < shard.convert_shard",
    "names: publish < shard._read_and_publish",
    "data: _temporary_with < create_once < shard.convert_shard",
    "data: _temporary_with < create_once < consents.record_consent",
    "names: create_once < consents.record_consent",
    "data: append_lines < entries.write_intents",
    "names: append_lines < entries.write_intents",
    "names: gate._sync_folders",
    "names: make_directories < layout.prepare",
)
"""Without it a source is gone and no record, shard, journal or consent accounts for it."""

STUCK = (
    "data: settle < publish_directory < make._publish",
    "data: _temporary_with < create_once < publish_directory < make._publish",
    "names: create_once < publish_directory < make._publish",
)
"""Nothing is lost without it, but the same command cannot finish."""

STUCK_AFTER_A_KILL = (
    "names: layout.prepare",
    "names: trusted._not_synced",
    "names: finish._sync_folder_of",
)
"""The same, where a kill comes before the power loss: it syncs what a killed process left."""

ONLY_PROMISED = (
    "names: publish_directory < make._publish",  # once ``plan`` has ended, the plan is there
    "data: _temporary_with < replace < merger._merge_once",  # a cache: the next merge makes it anew
    "names: replace < merger._merge_once",
    "data: _temporary_with < create_once < card.keep_card",  # the dataset card, for readers
    "names: create_once < card.keep_card",
    "names: create_once < shard.convert_shard",  # the gate syncs it before it relies on it
    "data: append_lines < entries.write_outcomes",  # the next run writes ``found_gone`` instead
    "data: _temporary_with < create_once < attempts.__init__",  # a note: an attempt goes unseen
    "names: create_once < attempts.__init__",
    "names: make_directories < attempts.__init__",
    "data: _temporary_with < create_once < attempts.end",
    "names: create_once < attempts.end",
)
"""Neither: what a command has said to be done is not there, and the next one does it again."""

ONLY_PROMISED_AFTER_A_KILL = ("data: append_lines < finish._finish",)
"""The same, of what a run notes that finds an interrupted deletion."""

OF_AN_OLD_DATASET = ("names: make_directories < consents.record_consent",)
"""Where the folder is missing: left out in ``test_command_states.py``."""

PUTS_BACK = ("names: aside.give_name_back",)
"""Of a name that ``restore`` says is back: left out in ``test_restore_states.py``."""


def left_out(recorded: Recorded, site: str) -> list[Entry]:
    log = [e for e in recorded.log if not (isinstance(e, Fsync) and e.site == site)]
    assert len(log) < len(recorded.log)
    return log


def new_states(recorded: Recorded, site: str) -> Iterator[State]:
    """States that can only be reached without the fsync."""
    seen = {state.key for _, state in states_of(recorded.start, recorded.log)}
    for _, state in states_of(recorded.start, left_out(recorded, site)):
        if state.key not in seen:
            seen.add(state.key)
            yield state


def test_every_fsync_is_accounted_for(recorded: Recorded) -> None:
    """The fsyncs of a run, and of one that follows a kill, are those that are tried here."""
    after_kills: list[Entry] = []
    disk = recorded.start.copy()
    for entry in recorded.log:
        disk.take(entry)
        if isinstance(entry, NameChange) and _is_of_note(entry):
            after_kills += next_log(recorded, disk)
    sites = {entry.site for entry in [*recorded.log, *after_kills] if isinstance(entry, Fsync)}
    promised = (*ONLY_PROMISED, *ONLY_PROMISED_AFTER_A_KILL)
    listed = (*LOST, *STUCK, *STUCK_AFTER_A_KILL, *promised, *OF_AN_OLD_DATASET, *PUTS_BACK)
    assert sites == set(listed)
    assert len(listed) == len(set(listed))


def _is_of_note(change: NameChange) -> bool:
    """A plan, a record, or a source that goes aside or away."""
    first = change.names[0][0]
    aside = any(name.endswith(HIDDEN) for name, _ in change.names)
    return aside or first in ("0000", "shard-000000.json")


@pytest.mark.parametrize("site", LOST)
def test_without_it_something_is_lost(recorded: Recorded, site: str) -> None:
    """A state shows a source that is gone and unproven, or a record without its shard."""
    for state in new_states(recorded, site):
        recorded.scenario.put(state.tree)
        if recorded.scenario.lost():
            return
    raise AssertionError("no state needs it")


@pytest.mark.parametrize("site", STUCK)
def test_without_it_the_same_command_cannot_finish(recorded: Recorded, site: str) -> None:
    """A state shows a run that does not come to its end."""
    assert any(
        recorded.scenario.wrong_with(state, recorded.ending) for state in new_states(recorded, site)
    )


@pytest.mark.parametrize("site", STUCK_AFTER_A_KILL)
def test_without_it_a_kill_and_a_power_loss_are_too_much(recorded: Recorded, site: str) -> None:
    """A state shows what a killed process left, and nobody synced."""
    seen = {state.key for state in after_a_kill(recorded)}
    assert any(
        recorded.scenario.wrong_with(state, recorded.ending)
        for state in after_a_kill(recorded, without=site)
        if state.key not in seen
    )


@pytest.mark.parametrize("site", ONLY_PROMISED)
def test_without_it_a_promise_is_broken(recorded: Recorded, site: str) -> None:
    """A state shows a file that ``durable.py`` had said to be there, and is not, or not whole."""
    states = states_of(recorded.start, left_out(recorded, site))
    assert any(disk.broken_promise(state) for disk, state in states)


@pytest.mark.parametrize("site", ONLY_PROMISED_AFTER_A_KILL)
def test_without_it_what_follows_a_kill_breaks_a_promise(recorded: Recorded, site: str) -> None:
    """A state lacks a line that a run has added to an interrupted journal."""
    disk = recorded.start.copy()
    for entry in recorded.log:
        disk.take(entry)
        if isinstance(entry, NameChange) and entry.what == "unlink" and _is_of_note(entry):
            log = [
                e for e in next_log(recorded, disk) if not (isinstance(e, Fsync) and e.site == site)
            ]
            if any(after.broken_promise(state) for after, state in states_of(disk, log)):
                return
    raise AssertionError("no state needs it")
