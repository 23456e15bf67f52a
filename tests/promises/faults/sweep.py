"""One fault after another, each at another call: what must hold after it, and how it goes on."""

from __future__ import annotations

import contextlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from ctrate_convert.errors import ExitCode
from tests.promises.crash.scenario import disk_folder
from tests.promises.faults.scenes import SCENES, Scene
from tests.promises.faults.strace import CALLS, FAULTS, READS, Commands, Fault, Told, points

CODES = frozenset(ExitCode) - {ExitCode.USAGE}
KILLED = -9
_UNEXPECTED = re.compile(r"unexpected [A-Z]\w+:|Traceback|Exception ignored")


class Sweep:
    """All calls of one scene that may fail, and what comes of it."""

    def __init__(self, scene: Scene, commands: Commands) -> None:
        self.scene = scene
        self._commands = commands

    @classmethod
    @contextlib.contextmanager
    def of(cls, name: str) -> Iterator[Sweep]:
        """Of the scene with this name."""
        with disk_folder("faults") as folder, Commands(folder) as commands:
            yield cls(SCENES[name](folder, commands), commands)

    def points(self, call: str) -> list[tuple[str, int]]:
        """Where ``call`` is made on files of the dataset directory, the sources or the trash.

        Of reads, those of sources.
        """
        scenario, log = self.scene.scenario, self.scene.calm.log
        if call == "read":
            return points(log, READS, scenario.made.data_folder)
        return points(log, CALLS[call], scenario.disk_folder)

    def chosen(self, call: str, how: str, places: int, chance: random.Random) -> list[Fault]:
        """Of the first, a middle and the last such call, ``places`` many."""
        found = self.points(call)
        if not found:
            return []
        three = sorted({0, len(found) // 2, len(found) - 1})
        some = chance.sample(three, min(places, len(three)))
        return [Fault(*found[place], how) for place in some]

    def every(self) -> list[Fault]:
        """Every call with every fault."""
        return [
            Fault(*point, how)
            for call in (*CALLS, "read")
            for point in self.points(call)
            for how in FAULTS
        ]

    def turn(self, fault: Fault) -> str:
        """The command with the fault, then without; what came of it, in a word.

        Raises:
            AssertionError: something that must never be.
        """
        scene = self.scene
        scene.prepare()
        told = self._commands.disturb(scene.words, fault, worker_processes=scene.worker_processes)
        self._check(told, fault)
        harm = scene.harm(told)
        assert harm is None, f"{harm}, after: {told.text}"
        more = list(scene.go_on(told))
        met = told.met_below(scene.scenario.disk_folder)
        return ", ".join([f"exit code {told.code}" if met else "not met", *more])

    def _check(self, told: Told, fault: Fault) -> None:
        if fault.how == "KILL" and told.code == KILLED:
            return
        assert told.code in CODES, f"exit code {told.code}: {told.text}"
        assert not _UNEXPECTED.search(told.text), told.text
        if told.code == ExitCode.ENVIRONMENT and fault.how != "KILL":
            reasons = filter(None, (fault.reason, self.scene.own_reason))
            assert any(reason in told.text for reason in reasons), told.text


def take_turns(sweep: Sweep, faults: Iterable[Fault]) -> tuple[Counter[str], list[str]]:
    """A turn each; how often each outcome came, and what must never be, with its fault."""
    came: Counter[str] = Counter()
    found: list[str] = []
    for fault in faults:
        try:
            came[sweep.turn(fault)] += 1
        except AssertionError as error:
            found.append(f"{sweep.scene.name}, {fault}: {error}")
    return came, found
