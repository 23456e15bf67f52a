"""The commands that faults are tried on: files before, what must hold after, where each ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from ctrate_convert.errors import ExitCode
from tests.promises.crash.disk import Disk
from tests.promises.crash.scenario import Blosc2Scenario, Ending, Scenario
from tests.promises.crash.trash_scenario import HomewardScenario, TrashScenario
from tests.promises.faults.strace import Commands, Told
from tests.support import (
    DELETE,
    convert_words,
    read_dataset,
    read_shard_file,
)

Words = list[object]


class Scene:
    """``convert`` with deletion, in one process. The others say what they do differently."""

    name = "convert"
    scenario_class: type[Scenario] = Scenario
    worker_processes = False
    own_reason: str | None = None
    """What the program may say instead of the system's words for a fault."""

    def __init__(self, folder: Path, commands: Commands) -> None:
        self.scenario = self.scenario_class.make(folder)
        self._commands = commands
        self._start = Disk.load(self.scenario.disk_folder).now().tree
        self.prepare()
        self.calm = commands.watch(self.words, worker_processes=self.worker_processes)
        assert self.calm.code == ExitCode.DONE, self.calm.text
        self.ending = Ending(self.scenario.shards(), self.scenario.manifest())
        assert self.incomplete() is None

    @property
    def out(self) -> Path:
        """The dataset directory."""
        return self.scenario.out

    @property
    def words(self) -> Words:
        """The command line that is disturbed, and given again."""
        return [*self.convert_words, *DELETE]

    @property
    def convert_words(self) -> Words:
        """The command that converts, and deletes nothing."""
        more = ("--samples_per_shard", 2, "--probe", 0, "--encoding", self.scenario.encoding)
        return convert_words(self.scenario.made, self.out, *more)

    def prepare(self) -> None:
        """Put the files there that the command is to meet."""
        self.scenario.put(self._start)

    def give(self, words: Words) -> Told:
        """One undisturbed command."""
        return self._commands.run(words, worker_processes=self.worker_processes)

    def harm(self, told: Told | None = None) -> str | None:
        """What a fault has done that nothing may do, if anything; ``told`` is how that ended."""
        whole = told is None or not _lacks_samples(told)
        return self.scenario.lost() or self._half_a_shard(whole=whole)

    def _half_a_shard(self, *, whole: bool = True) -> str | None:
        for path in self.out.glob("*.tar"):
            samples = read_shard_file(path)
            if whole and path.read_bytes() != self.ending.shards.get(path.name):
                return f"{path.name} is not the shard that an undisturbed run makes"
            if whole and len(samples) != 2:
                return f"{path.name} has not its two samples"
        return None

    def incomplete(self) -> str | None:
        """What the end lacks that an undisturbed command comes to."""
        return self.scenario.incomplete(self.ending)

    def go_on(self, told: Told) -> Iterator[str]:
        """Give the command again until all is done; yields each step that took more than that."""
        again = self.give(self.words)
        if again.code == ExitCode.SAMPLES_FAILED:  # it is taken up once its file has changed
            yield "sample failed"
            for path in self._sources_left():
                os.utime(path)
            again = self.give(self.words)
        assert again.code == ExitCode.DONE, again.text
        assert not self._sources_left(), again.text
        if not _lacks_samples(told):
            assert (wrong := self.incomplete()) is None, wrong
            return
        yield "in a further shard"
        assert not self.scenario.aside()
        assert read_dataset(self.out).keys() == self.scenario.originals.keys()
        assert not self._sources_left()
        assert (wrong := self.harm(told)) is None, wrong

    def _sources_left(self) -> list[Path]:
        return [path for key in self.scenario.made.keys for path in self.scenario.names(key)]


def _lacks_samples(told: Told) -> bool:
    """Whether a fault met a source, so that its shard is published without it, and that is told."""
    words = ("failed, source kept", "could not be looked at")
    return told.code == ExitCode.SAMPLES_FAILED or any(word in told.text for word in words)


class WithWorkers(Scene):
    """The same with worker processes: parent and workers are hit."""

    name = "workers"
    worker_processes = True


class Blosc2(Scene):
    """The same with compressed arrays."""

    name = "b2nd"
    scenario_class = Blosc2Scenario
    own_reason = os.strerror(errno.EIO)  # Blosc2 does not tell why it could not write


class Deletes(Scene):
    """``delete`` of what is converted."""

    name = "delete"

    @property
    def words(self) -> Words:
        return ["delete", self.out, "--yes", "--num_workers", 1]

    def prepare(self) -> None:
        super().prepare()
        assert self.give(self.convert_words).code == ExitCode.DONE


class MovesToTrash(Deletes):
    """``delete --trash``."""

    name = "trash"
    scenario_class = TrashScenario
    scenario: TrashScenario

    @property
    def words(self) -> Words:
        return [*super().words, "--trash", self.scenario.trash]

    def go_on(self, told: Told) -> Iterator[str]:
        yield from ()
        again = self.give(self.words)
        assert again.code == ExitCode.DONE, again.text
        assert (wrong := self.incomplete()) is None, wrong


class Restores(MovesToTrash):
    """``restore`` of what is in the trash."""

    name = "restore"
    scenario_class = HomewardScenario

    @property
    def words(self) -> Words:
        return ["restore", self.out]

    def prepare(self) -> None:
        super().prepare()
        assert self.give(super().words).code == ExitCode.DONE

    def incomplete(self) -> str | None:
        for key, path in self.scenario.made.sources.items():
            if not path.exists():
                return f"the source of {key} is not back"
        if any(path.is_file() for path in self.scenario.trash.rglob("*")):
            return "something is left in the trash"
        if self.scenario.aside():
            return f"{self.scenario.aside()[0].name} was not put back"
        return self.harm() if self.scenario.shards() == self.ending.shards else "other shards"


class Repairs(Deletes):
    """``verify --full --repair`` of a damaged shard whose sources are there."""

    name = "repair"
    _damaged = "shard-000001.tar"

    @property
    def words(self) -> Words:
        return ["verify", self.out, "--full", "--repair", "--num_workers", 1]

    def prepare(self) -> None:
        super().prepare()
        path = self.out / self._damaged
        data = bytearray(path.read_bytes())
        data[1000] ^= 1
        path.write_bytes(data)

    def harm(self, told: Told | None = None) -> str | None:
        if any(not self.scenario.names(key) for key in self.scenario.made.keys):
            return "a source is gone"
        return self._half_a_shard(whole=told is None or not self._met_a_file(told))

    def _met_a_file(self, told: Told) -> bool:
        """Whether a fault met a source, or a sound shard, which then was repaired too."""
        return "Failed: " in told.text or "cannot be read" in told.text

    def incomplete(self) -> str | None:
        if self.scenario.aside() or len(self._sources_left()) != len(self.scenario.made.keys):
            return "not every source has its name"
        if self.scenario.shards() != self.ending.shards or len(self.ending.shards) != 3:
            return "the shards have other bytes"
        if self.scenario.manifest() != self.ending.manifest:
            return "the manifest is another"
        return self.harm()

    def go_on(self, told: Told) -> Iterator[str]:
        again = self.give(self.words)
        assert again.code == ExitCode.DONE, again.text
        if not self._met_a_file(told):
            assert (wrong := self.incomplete()) is None, wrong
            return
        yield "in a further shard"
        verified = self.give(["verify", self.out, "--full", "--num_workers", 1])
        assert verified.code == ExitCode.DONE, verified.text
        assert (wrong := self.harm(told)) is None, wrong


SCENES: dict[str, type[Scene]] = {
    scene.name: scene
    for scene in (Scene, WithWorkers, Blosc2, Deletes, MovesToTrash, Restores, Repairs)
}
