"""One real run in this process, its files put back into any state, and what must hold of them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import signal
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import blosc2
from typing_extensions import Self

from ctrate_convert.conversion import worker
from ctrate_convert.conversion.planning import make_plan
from ctrate_convert.errors import CtrateError, ExitCode
from ctrate_convert.formats import tables
from ctrate_convert.operations import run
from ctrate_convert.operations.pool import Message, StopFlag
from ctrate_convert.operations.run import run_pending
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.plan import Encoding, PlanSettings
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from tests.crash.disk import Disk, State, Tree
from tests.crash.recorder import Recorder
from tests.support import (
    Array,
    Found,
    expected_volume,
    load_originals,
    read_dataset,
    read_shard_file,
    same_voxels,
    settings_for,
    strict_json,
)

_IN_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def quick_folder(name: str) -> Iterator[Path]:
    """A folder for files that are put there thousands of times: in memory where possible."""
    where = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=where) as folder:
        yield Path(folder)


class _Parent:
    """What a worker sends its messages through, without a process in between."""

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        self.send = on_message


def orders_here(
    orders: Sequence[worker.Order],
    num_workers: int,
    stop: StopFlag,
    on_message: Callable[[Message], None],
    may_start: Callable[[worker.Order], bool],
) -> None:
    """`run_orders` without processes: each order is carried out here, one after the other."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for order in orders:
            while not stop and not may_start(order):
                time.sleep(0.05)
            if not stop:
                worker.main(order, _Parent(on_message))  # type: ignore[arg-type]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_read_tables_once = functools.cache(tables.read_tables)
"""No power loss touches the tables, and reading them takes half the time of a run."""


@dataclass(frozen=True)
class Identity:
    """What a file keeps through a power loss, and a copy of it cannot have."""

    inode: int
    mtime_ns: int
    ctime_ns: int


@dataclass
class Scenario:
    """Two shards of two samples, whose sources go: everything of it lies below ``disk_folder``."""

    encoding: ClassVar[Encoding] = "npy"
    authorised_by: ClassVar[str | None] = "the crash tests"

    disk_folder: Path
    made: SyntheticCtRate
    originals: dict[str, Array]
    contents: dict[str, bytes]
    identities: dict[str, Identity]
    _stands_for: dict[int, Identity] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Write the volumes. The tables are not part of what can be lost."""
        made = write_synthetic_ctrate(folder / "tables", samples=4, shape=(6, 5, 4))
        disk = folder / "disk"
        disk.mkdir()
        shutil.move(made.data_folder, disk / "npz")
        moved = {
            key: disk / "npz" / path.relative_to(made.data_folder)
            for key, path in made.sources.items()
        }
        made = replace(made, data_folder=disk / "npz", sources=moved)
        identities = {}
        for path in moved.values():
            status = path.stat()
            identities[os.fspath(path.relative_to(disk))] = Identity(
                status.st_ino, status.st_mtime_ns, status.st_ctime_ns
            )
        contents = {key: path.read_bytes() for key, path in moved.items()}
        return cls(disk, made, load_originals(made), contents, identities)

    def at(self, folder: Path) -> Scenario:
        """The same files, looked for in another place."""
        sources = {
            key: folder / path.relative_to(self.disk_folder)
            for key, path in self.made.sources.items()
        }
        made = replace(self.made, data_folder=folder / "npz", sources=sources)
        return replace(self, disk_folder=folder, made=made)

    @property
    def out(self) -> Path:
        """Where the dataset goes; its parent is missing at first."""
        return self.disk_folder / "results" / "out"

    # --- the run ------------------------------------------------------------------------------

    def run(self) -> ExitCode:
        """Plan, convert, record, merge and delete: what the command does, in this process."""
        dataset = Dataset(self.out)
        with (
            mock.patch.object(run, "run_orders", orders_here),
            mock.patch.object(tables, "read_tables", _read_tables_once),
        ):
            make_plan(dataset, self.settings())
            result, _ = run_pending(dataset, num_workers=1, authorised_by=self.authorised_by)
        for failure in result.failed_shards.values():
            raise failure.error
        return result.exit_code

    def settings(self) -> PlanSettings:
        """Of the plan."""
        return settings_for(
            self.made,
            samples_per_shard=2,
            delete_source_files=True,
            probe=0,
            encoding=self.encoding,
        )

    def record(self, disk: Disk) -> Recorder:
        """What `run` does, from ``disk`` on, which the folder must hold."""
        with self.same_files(), Recorder(self.disk_folder, disk) as recorder:
            assert self.run() == ExitCode.DONE
        return recorder

    # --- states -------------------------------------------------------------------------------

    def put(self, tree: Tree) -> None:
        """Make the folder hold ``tree`` and nothing else."""
        for path in sorted(self.disk_folder.rglob("*"), reverse=True):  # what is deeper first
            if not path.is_dir():
                path.unlink()
            elif path.relative_to(self.disk_folder).as_posix() not in tree:
                path.rmdir()
        self._stands_for.clear()
        for name, data in tree.items():
            path = self.disk_folder / name
            if data is None:
                path.mkdir(exist_ok=True)
                continue
            path.write_bytes(data)
            identity = self.identities.get(self.first_name(name))
            if identity is not None:
                os.utime(path, ns=(identity.mtime_ns, identity.mtime_ns))
                self._stands_for[path.stat().st_ino] = identity

    def first_name(self, name: str) -> str:
        """What a file was called at first."""
        return name

    @contextlib.contextmanager
    def same_files(self) -> Iterator[None]:
        """Sources have the inode and change time that they had before the power loss.

        A power loss changes neither, but this test puts copies of them into place.
        """

        def as_before(function: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
            def stand_in(*words: Any, **more: Any) -> os.stat_result:
                status = function(*words, **more)
                identity = self._stands_for.get(status.st_ino)
                return status if identity is None else _with(status, identity)

            return stand_in

        with contextlib.ExitStack() as stack:
            for name in ("stat", "lstat", "fstat"):
                stack.enter_context(mock.patch.object(os, name, as_before(getattr(os, name))))
            yield

    def restart(self) -> str | None:
        """The same command again, to its end; what is wrong with how it ended, if anything."""
        with self.same_files(), mock.patch.object(os, "fsync", lambda descriptor: None):
            try:
                code = self.run()
            except (CtrateError, OSError) as error:
                return f"the same command again fails: {error}"
        return None if code == ExitCode.DONE else f"the same command again ends with {code}"

    # --- what must hold -----------------------------------------------------------------------

    def lost(self) -> str | None:
        """What is lost, or not proven any more, in the state that the folder holds."""
        proven: set[str] = set()
        for path in sorted(self.out.glob(".run/records/*.json")):
            try:
                proven |= self._proven_by(path)
            except (ValueError, KeyError, OSError, AssertionError, tarfile.TarError) as error:
                return f"{path.name} is a record of nothing: {type(error).__name__} {error}"
        journal = self._journal()
        for key, source in self.made.sources.items():
            if source.exists():
                continue
            if key not in proven:
                return f"{key} is gone, and no recorded shard holds it"
            if key not in journal:
                return f"{key} is gone, and no journal tells by whom"
        return None

    def _proven_by(self, record: Path) -> set[str]:
        """The samples that a record names, each read from its shard and compared."""
        facts = strict_json(record.read_bytes())
        shard = self.out / f"{record.stem}.tar"
        assert hashlib.sha256(shard.read_bytes()).hexdigest() == facts["tar"]["sha256"]
        keys = set()
        for key, found in read_shard_file(shard):
            assert same_voxels(_volume(found), expected_volume(self.originals[key]))
            keys.add(key)
        assert keys == {
            sample["key"] for sample in facts["samples"] if sample["state"] == "converted"
        }
        return keys

    def _journal(self) -> set[str]:
        keys = set()
        for path in self.out.glob(".run/deletions/*.jsonl"):
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    keys.add(json.loads(line)["key"])
        return keys

    def incomplete(self, expected: Ending) -> str | None:
        """What is missing from the end that an undisturbed run comes to."""
        if self.shards() != expected.shards:
            return "the shards have other bytes"
        if read_dataset(self.out).keys() != self.originals.keys():
            return "not every sample is in one shard"
        if left := [key for key, source in self.made.sources.items() if source.exists()]:
            return f"the sources of {', '.join(left)} are still there"
        if self.manifest() != expected.manifest:
            return "the manifest is another"
        for folder in (self.out, self.out / ".run" / "plans", self.out / ".run" / "records"):
            if hidden := [path.name for path in folder.glob(".*.partial")]:
                return f"{hidden[0]} stays behind"
        return self.lost()

    def shards(self) -> dict[str, bytes]:
        """All shards with their bytes."""
        return {path.name: path.read_bytes() for path in self.out.glob("*.tar")}

    def manifest(self) -> dict[str, Any]:
        """The manifest without what depends on the time of day, and on who merged it."""
        facts: dict[str, Any] = strict_json((self.out / "manifest.json").read_bytes())
        for shard in facts["shards"]:
            del shard["record_sha256"], shard["by_converter"]
        del facts["plans"]
        return facts

    def wrong_with(self, state: State, expected: Ending) -> str | None:
        """Everything above for one state: put it there, look, run again, look again."""
        self.put(state.tree)
        return self.lost() or self.restart() or self.incomplete(expected)


@dataclass
class Blosc2Scenario(Scenario):
    """The same with compressed arrays."""

    encoding = "b2nd"


@dataclass(frozen=True)
class Ending:
    """Where an undisturbed run ends."""

    shards: dict[str, bytes]
    manifest: dict[str, Any]


def _volume(found: Found) -> Array:
    if "volume.b2nd" not in found.members:
        return found.volume
    array: Array = blosc2.ndarray_from_cframe(found.members["volume.b2nd"])[...]
    return array


def _with(status: os.stat_result, identity: Identity) -> os.stat_result:
    fields = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
    fields |= {"st_mtime_ns": identity.mtime_ns, "st_ctime_ns": identity.ctime_ns}
    plain = list(status)
    plain[1] = identity.inode
    return os.stat_result(plain, fields)
