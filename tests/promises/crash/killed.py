"""Kills, and a power loss during the run that goes on: what of the first was never synced."""

from __future__ import annotations

from collections.abc import Iterator

from tests.promises.crash.conftest import Recorded
from tests.promises.crash.disk import Change, Disk, Entry, Fsync, NameChange, State
from tests.promises.crash.recorder import named_by_order


def after_a_kill(recorded: Recorded, without: str | None = None) -> Iterator[State]:
    """States in which the power loss drops what the killed process left, and only that.

    ``without`` is the site of an fsync that neither run makes.
    """
    disk = recorded.start.copy()
    for entry in recorded.log:
        if isinstance(entry, Fsync) and entry.site == without:
            continue
        disk.take(entry)
        if _is_worth_a_kill(entry):
            yield from _goes_on(recorded, disk, without)


def next_log(recorded: Recorded, disk: Disk) -> list[Entry]:
    """What the run does that finds what ``disk`` holds after a kill."""
    recorded.scenario.put(disk.now().tree)
    return named_by_order(recorded.scenario.record(disk).log)


def _goes_on(recorded: Recorded, killed: Disk, without: str | None) -> Iterator[State]:
    left = [change for change in killed.pending if isinstance(change, NameChange)]
    disk = killed.copy()
    for entry in next_log(recorded, disk):
        if isinstance(entry, Fsync) and entry.site == without:
            continue
        disk.take(entry)
        if isinstance(entry, NameChange) and entry.what == "unlink" and not _hidden(entry):
            yield from _without(disk, left)
    yield from _without(disk, left)


def _without(disk: Disk, left: list[NameChange]) -> Iterator[State]:
    still = [change for change in disk.pending if any(change is one for one in left)]
    for lost in ([change] for change in still if not _hidden(change)):
        yield _dropping(disk, lost)
    yield _dropping(disk, still)


def _dropping(disk: Disk, lost: list[Change]) -> State:
    label = "killed, then lost: " + ", ".join(_name(change) for change in lost)
    return disk.state(label, lambda change: not any(change is one for one in lost))


def _is_worth_a_kill(entry: Entry) -> bool:
    """A name that readers see has just changed, and nothing was fsynced since."""
    return isinstance(entry, NameChange) and not _hidden(entry)


def _hidden(change: Change) -> bool:
    name = _name(change)
    return name.endswith((".partial", ".lock")) or name == "progress.json"


def _name(change: Change) -> str:
    return change.names[-1][0] if isinstance(change, NameChange) else "data"
