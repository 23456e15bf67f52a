"""One run, recorded once for all tests here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.disk import Disk, Entry
from tests.crash.recorder import named_by_order
from tests.crash.scenario import Ending, Scenario

_IN_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Recorded:
    """What a run started from, what it did, and where it ended."""

    scenario: Scenario
    start: Disk
    log: tuple[Entry, ...]
    ending: Ending


@pytest.fixture(scope="session")
def recorded() -> Iterator[Recorded]:
    """An undisturbed run; its files are in memory where that is possible, being put so often."""
    folder = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix="crash-states-", dir=folder) as place:
        scenario = Scenario.make(Path(place))
        start = Disk.load(scenario.disk_folder)
        log = named_by_order(scenario.record(start).log)
        ending = Ending(scenario.shards(), scenario.manifest())
        assert scenario.incomplete(ending) is None
        yield Recorded(scenario, start, tuple(log), ending)
