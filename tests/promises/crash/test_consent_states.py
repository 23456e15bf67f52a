"""A consent that a power loss takes: nothing is deleted by it any more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from ctrate_convert.deleting import trusted
from ctrate_convert.errors import CtrateError
from ctrate_convert.running.pool import Message, StopFlag
from ctrate_convert.running.worker import Order, ShardFailed
from tests.promises.crash.conftest import Recorded
from tests.promises.crash.disk import Disk, Fsync, NameChange, states_of
from tests.promises.crash.scenario import orders_here


@dataclass(frozen=True)
class Allowed:
    """Files as they were before the first intent, and the consent that is about to be used."""

    recorded: Recorded
    disk: Disk
    name: str


@pytest.fixture
def allowed(recorded: Recorded) -> Iterator[Allowed]:
    """A run that was stopped where its first worker is about to note its intents."""
    disk = recorded.start.copy()
    for entry in recorded.log:
        if isinstance(entry, Fsync) and entry.site.endswith("entries.write_intents"):
            break
        disk.take(entry)
    recorded.scenario.put(disk.now().tree)
    for journal in recorded.scenario.out.glob(".run/deletions/*"):
        journal.unlink()  # it is there, and empty
    (consent,) = recorded.scenario.out.glob(".run/consents/*.json")
    yield Allowed(recorded, disk, consent.stem)


def release(allowed: Allowed) -> list[Message]:
    """A worker, told to let go by a consent that its command has seen."""
    said: list[Message] = []
    order = Order(allowed.recorded.scenario.out, 0, "test", allowed.name, releasing=True)
    with mock.patch.object(trusted, "_memory", lambda folder: None):
        orders_here([order], 1, StopFlag(), said.append, lambda order: True)
    return said


def removed(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def of_another_shard(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "shards": [[1, 1]]}))


def renamed(path: Path) -> None:
    path.write_text(path.read_text().replace(path.stem, "another"))


DAMAGE = (removed, emptied, cut_short, zeros, of_another_shard, renamed)


def test_with_the_consent_they_go(allowed: Allowed) -> None:
    """The order that the tests below give without it deletes the sources of its shard."""
    release(allowed)
    scenario = allowed.recorded.scenario
    assert [bool(scenario.names(key)) for key in scenario.made.keys] == [False, False, True, True]
    assert scenario.lost() is None


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_without_the_consent_nothing_goes(allowed: Allowed, damage: Callable[[Path], None]) -> None:
    """A consent that is gone, damaged or another one allows nothing; no intent is written."""
    scenario = allowed.recorded.scenario
    consent = scenario.out / ".run" / "consents" / f"{allowed.name}.json"
    before = consent.read_bytes()
    damage(consent)
    assert not consent.exists() or consent.read_bytes() != before
    (said,) = release(allowed)
    assert isinstance(said, ShardFailed)
    assert isinstance(said.error, CtrateError)
    assert "consent" in f"{said.error} {said.error.one_line()}".lower()
    assert all(path.exists() for path in scenario.made.sources.values())
    assert not scenario.aside()
    assert not scenario.journal()


def test_a_consent_is_durable_before_the_first_intent(recorded: Recorded) -> None:
    """In every state that holds an intent, a name aside or a gap, the consent is there, whole."""
    intents = 0
    for _, state in states_of(recorded.start, recorded.log):
        recorded.scenario.put(state.tree)
        touched = recorded.scenario.journal() or recorded.scenario.aside()
        if touched:
            intents += 1
            assert recorded.scenario.lost() is None, state.label
            assert len([*recorded.scenario.out.glob(".run/consents/*.json")]) == 1
    assert intents > 100


def test_every_run_asks_again(recorded: Recorded) -> None:
    """A killed run's consent is not used by the next one: that has its own."""
    disk = recorded.start.copy()
    for entry in recorded.log:
        disk.take(entry)
        if isinstance(entry, NameChange) and entry.names[-1][0].endswith(".leaving"):
            break
    scenario = recorded.scenario
    scenario.put(disk.now().tree)
    (before,) = scenario.out.glob(".run/consents/*.json")
    assert scenario.restart() is None
    consents = {path.stem for path in scenario.out.glob(".run/consents/*.json")}
    assert len(consents) == 2
    used = {line["authorised_by"] for lines in scenario.journal().values() for line in lines[-1:]}
    (new,) = consents - {before.stem}
    assert used == {f"convert --yes (consent {new})"}
