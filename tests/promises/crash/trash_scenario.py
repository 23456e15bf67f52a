"""The same run with a trash: no state may lack a source both at home and in the trash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrate_convert.deleting.trash import last_lines
from ctrate_convert.store.journals import read_journal
from ctrate_convert.store.layout import Dataset
from tests.promises.crash.scenario import Ending, Scenario
from tests.support import DELETE


@dataclass
class TrashScenario(Scenario):
    """Two shards of two samples, whose sources are moved."""

    @property
    def trash(self) -> Path:
        """It is missing at first."""
        return self.disk_folder / "trash"

    @property
    def deleting(self) -> tuple[object, ...]:
        return (*DELETE, "--trash", self.trash.resolve())

    def first_name(self, name: str) -> str:
        trash, _, rest = name.partition("/")
        return f"npz/{rest.partition('/')[2]}" if trash == "trash" else name

    def in_the_trash(self) -> set[str]:
        """The keys whose source lies there, byte for byte."""
        found = set()
        for key, source in self.made.sources.items():
            for path in self.trash.glob(f"*/{source.relative_to(self.made.data_folder)}"):
                if path.read_bytes() == self.contents[key]:
                    found.add(key)
        return found

    def twice(self) -> set[str]:
        """The keys whose volume has both names."""
        return {key for key in self.in_the_trash() if self.names(key)}

    def lost(self) -> str | None:
        trashed = self.in_the_trash()
        for key in self.made.sources:
            if key not in trashed and not self.names(key):
                return f"{key} is neither at home nor in the trash"
        return super().lost()

    def incomplete(self, expected: Ending) -> str | None:
        dataset = Dataset(self.out)
        for shard in range(2):
            for key, line in last_lines(read_journal(dataset, shard)).items():
                if line.event != "trashed":
                    return f"{key} is in the trash, and the journal says {line.event}"
        return super().incomplete(expected)


@dataclass
class HomewardScenario(TrashScenario):
    """The same, once sources are on their way back: the journal hears of it afterwards."""

    def _untrue(self, journal: Mapping[str, list[dict[str, Any]]]) -> str | None:
        for key, lines in journal.items():
            if lines[-1]["event"] == "restored" and not self.names(key):
                return f"the journal says restored of {key}, which is not there"
        return None
