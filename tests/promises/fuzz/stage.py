"""A dataset at several moments of its making, and what must hold however it is tampered with."""

from __future__ import annotations

import contextlib
import shutil
import tarfile
import tokenize
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.set_aside import shards_set_aside
from tests.promises.crash.disk import Disk, NameChange, Tree
from tests.promises.crash.scenario import Scenario
from tests.promises.crash.trash_scenario import TrashScenario
from tests.promises.fuzz.names import HIDDEN, PLANTED, foreign_below, own_stem, sources_below
from tests.support import Array, expected_volume, load_original, read_shard_file, same_voxels
from tests.unit.sources.made_nifti import MADE

_DAMAGED = (
    tarfile.TarError, tokenize.TokenError, SyntaxError,
    AssertionError, ValueError, OSError, KeyError,
)  # fmt: skip
"""What ``tarfile`` and numpy raise for what they cannot read."""


class Found(AssertionError):
    """What must never be was."""


NIFTI = ("i2", "three members", "an extension", "NIfTI-2 big-endian", "not compressed")
"""Of `MADE`: what is damaged beside NPZ."""


@dataclass(frozen=True)
class Stage:
    """A dataset at several moments of its making, and around it what nobody may touch."""

    folder: Path
    scenario: Scenario
    trees: Sequence[tuple[str, Tree]]
    volumes: dict[str, bytes]
    """By the name of their file."""
    tables: dict[str, bytes]
    outside_holds: dict[str, bytes]
    originals: dict[str, Array]

    @classmethod
    def make(cls, folder: Path, scenario_class: type[Scenario] = Scenario) -> Stage:
        """Run once, and keep what the disk held at each moment that matters."""
        scenario = scenario_class.make(folder)
        made = scenario.made
        volumes = {path.name: path.read_bytes() for path in made.sources.values()}
        tables = {
            "reports": made.reports_file.read_bytes(),
            "labels": made.labels_file.read_bytes(),
            "metadata": made.meta_file.read_bytes(),
        }
        holds = {"precious.npz": made.sources[made.keys[0]].read_bytes(), "notes.jsonl": b"{}\n"}
        volumes |= {
            f"nifti-{number}{MADE[name].suffix}": MADE[name].file()
            for number, name in enumerate(NIFTI)
        }
        extra = scenario.disk_folder / "npz" / "extra.npz"
        np.savez(extra, data=np.arange(120, dtype=np.int16).reshape(6, 5, 4))
        disk = Disk.load(scenario.disk_folder)
        trees = []
        for entry in scenario.record(disk).log:
            disk.take(entry)
            if isinstance(entry, NameChange) and not entry.names[-1][0].endswith(
                (".partial", ".lock")
            ):
                name = f"{entry.what} {entry.names[-1][0]}"
                trees.append((name, disk.now().tree))
        originals = {**scenario.originals, "extra": load_original(extra)}
        volumes_as_stored = {key: expected_volume(array) for key, array in originals.items()}
        return cls(folder, scenario, trees, volumes, tables, holds, volumes_as_stored)

    @property
    def out(self) -> Path:
        """The dataset directory."""
        return self.scenario.out

    @property
    def outside(self) -> Path:
        """A folder that is none of the program's business."""
        return self.folder / "outside"

    def put(self, tree: Tree) -> None:
        """Everything as it was at one moment, and a link in the data folder that leads out."""
        shutil.rmtree(self.outside, ignore_errors=True)
        self.outside.mkdir()
        for name, data in self.outside_holds.items():
            (self.outside / name).write_bytes(data)
        shutil.rmtree(self.out, ignore_errors=True)
        link = self.scenario.disk_folder / "npz" / "link"
        link.unlink(missing_ok=True)
        for path in (self.scenario.disk_folder / "npz").rglob("*"):
            if path.is_dir() and path.name.endswith(HIDDEN):
                path.rmdir()
        self.scenario.put(tree)
        link.symlink_to(self.outside)

    def sources_left(self) -> set[str]:
        """The keys whose source is there, or in the trash; ``extra`` too, which no plan names."""
        disk = self.scenario.disk_folder
        folders = (disk / "npz", disk / "trash")
        return {own_stem(path) for folder in folders for path in sources_below(folder)}

    def check(
        self, before: set[str], shards: dict[Path, bytes], planted: Counter[str] | None = None
    ) -> None:
        """What must hold, however it was tampered with.

        ``planted`` is what others put among the sources, as `foreign` finds it: none may go.
        """
        if missing := (planted or Counter()) - self.foreign():
            raise Found(f"of what others put beside the sources there is no more {missing}")
        restored: list[Path] = []
        if isinstance(self.scenario, TrashScenario):
            # Of a plan that is forged as a whole, what is in the trash may have its home elsewhere.
            restored = [path for path in self.outside.rglob("*.npz") if path.parent != self.outside]
        again = self.scenario.disk_folder / "again"  # exported, and rounded where shards are
        for path in [*sources_below(self.scenario.disk_folder), *restored]:
            if again in path.parents:
                continue
            if not (planted and path.read_bytes() == PLANTED) and not self._is_original(path):
                raise Found(f"the source {path.name} was changed")
        for name, data in self.outside_holds.items():
            path = self.outside / name
            if path.is_symlink() or not path.is_file() or path.read_bytes() != data:
                raise Found(f"{name} outside the data folder was changed")
        known = {*restored, *(folder for path in restored for folder in path.parents)}
        known |= {self.outside / name for name in self.outside_holds}
        if new := set(self.outside.rglob("*")) - known:
            raise Found(f"outside the data folder there is now {new}")
        aside = [path.read_bytes() for path in shards_set_aside(Dataset(self.out))]
        for path, data in shards.items():
            is_kept = path.is_file() and path.read_bytes() == data
            if not is_kept and data not in aside:  # one without a record may go aside, whole
                raise Found(f"{path.name} was changed after it was published")
        held = self._held() + [expected_volume(load_original(path)) for path in restored]
        for key in before - self.sources_left():
            if not any(same_voxels(self.originals[key], volume) for volume in held):
                raise Found(f"the source of {key} is gone, and no shard holds its voxels")

    def foreign(self) -> Counter[str]:
        """What others put among the sources, by its kind."""
        return foreign_below(self.scenario.disk_folder / "npz")

    def _is_original(self, path: Path) -> bool:
        original = self.originals.get(own_stem(path))
        with contextlib.suppress(*_DAMAGED):
            now = expected_volume(load_original(path))
            return original is not None and same_voxels(original, now)
        return False

    def _held(self) -> list[Array]:
        """All volumes in all shards, by ``tarfile`` and numpy alone."""
        held = []
        for path in filter(Path.is_file, self.out.glob("*.tar")):
            with contextlib.suppress(*_DAMAGED):
                for _, found in read_shard_file(path):
                    held.append(found.volume)
        return held
