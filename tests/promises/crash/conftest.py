"""One run, recorded once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ctrate_convert.synthetic import NIFTI_KINDS
from tests.promises.crash.disk import Disk, Entry
from tests.promises.crash.recorder import named_by_order
from tests.promises.crash.scenario import Ending, Scenario, quick_folder


@dataclass(frozen=True)
class Recorded:
    """What a run started from, what it did, and where it ended."""

    scenario: Scenario
    start: Disk
    log: tuple[Entry, ...]
    ending: Ending


class NiftiScenario(Scenario):
    """As a scenario of NPZ, but for the files that go."""

    kinds = NIFTI_KINDS


@pytest.fixture(scope="session", params=[Scenario, NiftiScenario], ids=["npz", "nifti"])
def recorded(request: pytest.FixtureRequest) -> Iterator[Recorded]:
    """An undisturbed run."""
    with quick_folder("crash-states") as place:
        scenario: Scenario = request.param.make(place)
        start = Disk.load(scenario.disk_folder)
        log = named_by_order(scenario.record(start).log)
        ending = Ending(scenario.shards(), scenario.manifest())
        assert scenario.incomplete(ending) is None
        yield Recorded(scenario, start, tuple(log), ending)
