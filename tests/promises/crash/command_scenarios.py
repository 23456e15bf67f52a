"""The commands that come after a conversion: what they find, and what must hold of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctrate_convert.deleting.trash import last_lines
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.journals import read_journal
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.presence import ASIDE_SUFFIX
from tests.promises.crash.disk import Disk, NameChange
from tests.promises.crash.scenario import Ending, Identity, Scenario
from tests.promises.crash.trash_scenario import HomewardScenario
from tests.support import Finished, read_shard_file


@dataclass
class DeleteScenario(Scenario):
    """``delete`` of two shards' sources, converted and kept so far."""

    deleting = ()

    def prepare(self) -> Disk:
        """Convert; what is there then is durable. Older versions made no folder for consents."""
        assert super().run().code == ExitCode.DONE
        (self.out / ".run" / "consents").rmdir()
        return Disk.load(self.disk_folder)

    def run(self) -> Finished:
        return self.given("delete", self.out, "--yes", "--num_workers", 1)


@dataclass
class KeepScenario(DeleteScenario):
    """The same where one source is not what its shard holds, and stays."""

    ends_with = ExitCode.REFUSED

    @property
    def changed(self) -> str:
        """The key of that source."""
        return self.made.keys[1]

    def prepare(self) -> Disk:
        super().prepare()
        path = self.made.sources[self.changed]
        with np.load(path) as arrays:
            np.savez(path, **{name: array + 1 for name, array in arrays.items()})
        self.contents[self.changed] = path.read_bytes()
        status = path.stat()
        name = path.relative_to(self.disk_folder).as_posix()
        self.identities[name] = Identity(status.st_ino, status.st_mtime_ns)
        return Disk.load(self.disk_folder)

    def lost(self) -> str | None:
        return super().lost() if self.names(self.changed) else "what no shard holds is gone"

    def incomplete(self, expected: Ending) -> str | None:
        left = [key for key, path in self.made.sources.items() if path.exists()]
        if left != [self.changed]:
            return f"the sources of {', '.join(left)} are there"
        if self.aside() or self.unfinished():
            return f"{self.aside()} aside, {self.unfinished()} unfinished"
        told = [line["event"] for line in self.journal()[self.changed]]
        return self.lost() if told[-1] == "kept" else f"the journal says {told}"


DAMAGED = "shard-000001"


@dataclass
class RepairScenario(DeleteScenario):
    """``verify --full --repair`` of one damaged shard, whose sources are there."""

    def prepare(self) -> Disk:
        super().prepare()
        path = self.out / f"{DAMAGED}.tar"
        data = bytearray(path.read_bytes())
        data[1000] ^= 1
        path.write_bytes(data)
        return Disk.load(self.disk_folder)

    def run(self) -> Finished:
        words = ("verify", self.out, "--full", "--repair", "--num_workers", 1)
        done = self.given(*words)
        # Exit code 3 where a shard was found that a killed repair had no time to record.
        return self.given(*words) if done.code == ExitCode.DAMAGE else done

    def _proven_by(self, record: Path) -> set[str]:
        return set() if record.stem == DAMAGED else super()._proven_by(record)

    def lost(self) -> str | None:
        if gone := [key for key in self.made.sources if not self.names(key)]:
            return f"the sources of {', '.join(gone)} are gone"
        return super().lost()

    def incomplete(self, expected: Ending) -> str | None:
        if self.shards() != expected.shards or len(expected.shards) != 3:
            return "the shards have other bytes"
        again = [key for key, _ in read_shard_file(self.out / "shard-000002.tar")]
        if again != list(self.made.keys[2:]):
            return "the new shard holds others than the damaged one"
        if self.aside():
            return f"{self.aside()[0].name} was not put back"
        return "the manifest is another" if self.manifest() != expected.manifest else self.lost()


@dataclass
class RestoreScenario(HomewardScenario):
    """``restore`` of all sources; of one not even the folder is left."""

    def prepare(self) -> Disk:
        """Convert and move to the trash; what is there then is durable."""
        assert super().run().code == ExitCode.DONE
        empty = self.made.sources[self.made.keys[0]].parent
        empty.rmdir()
        empty.parent.rmdir()
        return Disk.load(self.disk_folder)

    def run(self) -> Finished:
        return self.given("restore", self.out)

    def incomplete(self, expected: Ending) -> str | None:
        for key, path in self.made.sources.items():
            if not path.exists() or path.read_bytes() != self.contents[key]:
                return f"the source of {key} is not back"
        if left := self.in_the_trash():
            return f"the sources of {', '.join(left)} are in the trash, too"
        dataset = Dataset(self.out)
        for shard in range(2):
            for key, line in last_lines(read_journal(dataset, shard)).items():
                if line.event != "restored":
                    return f"{key} is back, and the journal says {line.event}"
        return None if self.shards() == expected.shards else "the shards have other bytes"


@dataclass
class PutBackScenario(DeleteScenario):
    """``restore`` of a source that a killed ``delete`` left aside."""

    def prepare(self) -> Disk:
        """Delete up to the first name that goes aside; what is there then is durable."""
        start = super().prepare()
        for entry in self.record(start).log:
            start.take(entry)
            if isinstance(entry, NameChange) and entry.names[-1][0].endswith(ASIDE_SUFFIX):
                break
        self.put(start.now().tree)
        assert len(self.aside()) == 1
        self.deletes = False
        return Disk.load(self.disk_folder)

    deletes: bool = True

    def run(self) -> Finished:
        return super().run() if self.deletes else self.given("restore", self.out)

    def incomplete(self, expected: Ending) -> str | None:
        if self.aside():
            return f"{self.aside()[0].name} was not put back"
        gone = [key for key, path in self.made.sources.items() if not path.exists()]
        return f"the sources of {', '.join(gone)} are gone" if gone else self.lost()
