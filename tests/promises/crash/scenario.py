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
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self
from unittest import mock

import blosc2
import pytest

from ctrate_convert.deleting import trusted
from ctrate_convert.errors import ExitCode
from ctrate_convert.formats import tables
from ctrate_convert.running import run, worker
from ctrate_convert.running.pool import Message, StopFlag
from ctrate_convert.running.worker import ShardDone
from ctrate_convert.store import fresh
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.presence import ASIDE_SUFFIX, PROVEN_SUFFIX, hidden_names
from ctrate_convert.store.records.plan import Encoding
from ctrate_convert.synthetic import NPZ_KINDS, Kind, SyntheticCtRate, write_synthetic_ctrate
from tests.promises.crash.disk import Disk, State, Tree
from tests.promises.crash.recorder import Recorder
from tests.support import (
    DELETE,
    Array,
    Finished,
    Found,
    convert_words,
    expected_volume,
    load_originals,
    read_dataset,
    read_shard_file,
    run_here,
    same_voxels,
    strict_json,
)

_IN_MEMORY = Path("/dev/shm")

HIDDEN = (ASIDE_SUFFIX, PROVEN_SUFFIX)


@contextlib.contextmanager
def quick_folder(name: str) -> Iterator[Path]:
    """A folder for files that are put there thousands of times: in memory where possible."""
    where = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=where) as folder:
        yield Path(folder)


@contextlib.contextmanager
def disk_folder(name: str) -> Iterator[Path]:
    """A folder on storage, which deletions may rest on: for commands in processes of their own."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        reason = trusted.why_not_trusted(Dataset(Path(folder)))
        if reason and "memory" in reason:
            pytest.skip(f"the folder for temporary files cannot be used: {reason}")
        yield Path(folder)


class _Parent:
    """What a worker sends its messages through, without a process in between."""

    def __init__(self, always_there: int) -> None:
        self._always_there = always_there
        self.sent: list[Message] = []

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def fileno(self) -> int:
        """Where a worker looks for its command: an end of a pipe that nobody closes."""
        return self._always_there


def orders_here(
    orders: Sequence[worker.Order],
    num_workers: int,
    stop: StopFlag,
    on_message: Callable[[Message], None],
    may_start: Callable[[worker.Order], bool],
) -> None:
    """`run_orders` without processes: each order is carried out here, one after the other."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    waiting, ends = deque(orders), os.pipe()
    try:
        while waiting and not stop:
            if not may_start(waiting[0]):
                time.sleep(0.05)
                continue
            order, parent = waiting.popleft(), _Parent(ends[1])
            worker.main(order, parent)  # type: ignore[arg-type]
            for message in parent.sent:
                on_message(message)
                follow = isinstance(message, ShardDone) and order.then_release(message)
                if follow:
                    waiting.appendleft(follow)
    finally:
        for end in ends:
            os.close(end)
        for number, handler in before.items():
            signal.signal(number, handler)


_read_tables_once = functools.cache(tables.read_tables)
"""No power loss touches the tables, and reading them takes half the time of a run."""


@dataclass(frozen=True)
class Identity:
    """What a file keeps through a power loss, and a copy of it cannot have."""

    inode: int
    mtime_ns: int


_UNREADABLE = (ValueError, KeyError, OSError, RuntimeError, AssertionError, tarfile.TarError)
"""What records and shards raise that are not whole."""

_TELLS_NOTHING = ("intent", "kept", "undecided")
"""Events after which a source is where it was."""


@dataclass
class Scenario:
    """Two shards of two samples, whose sources go: everything of it lies below ``disk_folder``."""

    encoding: ClassVar[Encoding] = "npy"
    ends_with: ClassVar[ExitCode] = ExitCode.DONE
    kinds: ClassVar[Sequence[Kind]] = NPZ_KINDS

    disk_folder: Path
    made: SyntheticCtRate
    originals: dict[str, Array]
    contents: dict[str, bytes]
    identities: dict[str, Identity]
    _stands_for: dict[int, Identity] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Write the volumes. The tables are not part of what can be lost."""
        made = write_synthetic_ctrate(
            folder / "tables", samples=4, shape=(6, 5, 4), kinds=cls.kinds
        )
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
                status.st_ino, status.st_mtime_ns
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

    @property
    def words(self) -> list[object]:
        """Plan, convert, record, merge, consent and delete."""
        more = ("--samples_per_shard", 2, "--probe", 0, "--encoding", self.encoding)
        return convert_words(self.made, self.out, *more, *self.deleting)

    @property
    def deleting(self) -> tuple[object, ...]:
        """The options that let sources go."""
        return DELETE

    def run(self) -> Finished:
        """The command."""
        return self.given(*self.words)

    def given(self, *words: object) -> Finished:
        """The real command line in this process; the folder stands for a disk, wherever it is."""
        with (
            mock.patch.object(run, "run_orders", orders_here),
            mock.patch.object(tables, "read_tables", _read_tables_once),
            mock.patch.object(trusted, "_memory", lambda folder: None),
        ):
            return run_here(*words)

    def record(self, disk: Disk) -> Recorder:
        """What `run` does, from ``disk`` on, which the folder must hold."""
        with self.same_files(), Recorder(self.disk_folder, disk) as recorder:
            done = self.run()
        assert done.code == self.ends_with, done.text
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
        put: dict[tuple[str, bytes], Path] = {}
        for name, data in tree.items():
            path = self.disk_folder / name
            if data is None:
                path.mkdir(exist_ok=True)
                continue
            own_name = _own_name(self.first_name(name))
            identity = self.identities.get(own_name)
            if identity is not None and (own_name, data) in put:
                os.link(put[own_name, data], path)  # a rename of which the old name came back
                continue
            put[own_name, data] = path
            path.write_bytes(data)
            if identity is not None:
                os.utime(path, ns=(identity.mtime_ns, identity.mtime_ns))
                self._stands_for[path.stat().st_ino] = identity

    def first_name(self, name: str) -> str:
        """What a file was called at first."""
        return name

    @contextlib.contextmanager
    def same_files(self) -> Iterator[None]:
        """Sources have the inode that they had before the power loss.

        A power loss does not change it, but this test puts copies of them into place.
        """

        look = fresh._look

        def as_before(directory: int, name: str, flags: int) -> fresh.FreshStatus:
            status = look(directory, name, flags)
            identity = self._stands_for.get(status.st_ino)
            return status if identity is None else status._replace(st_ino=identity.inode)

        with mock.patch.object(fresh, "_look", as_before):
            yield

    def restart(self, code: ExitCode | None = None) -> str | None:
        """The same command again, to its end; what is wrong with how it ended, if anything."""
        expected = self.ends_with if code is None else code
        with self.same_files(), mock.patch.object(os, "fsync", lambda descriptor: None):
            done = self.run()
        if done.code == expected:
            return None
        return f"the same command again ends with {done.code}: {done.text}"

    # --- what must hold -----------------------------------------------------------------------

    def lost(self) -> str | None:
        """What is lost, not proven, or told and not so, in the state that the folder holds."""
        proven: set[str] = set()
        for path in sorted(self.out.glob(".run/records/*.json")):
            try:
                proven |= self._proven_by(path)
            except _UNREADABLE as error:
                return f"{path.name} is a record of nothing: {type(error).__name__} {error}"
        journal = self.journal()
        for key in self.made.sources:
            names = self.names(key)
            if not names and key not in proven:
                return f"{key} is gone, and no recorded shard holds it"
            if not names and not journal.get(key):
                return f"{key} is gone, and no journal tells by whom"
            if (names and key not in proven) and journal.get(key):
                return f"{key} was to be deleted, and no recorded shard holds it"
            if any(path.read_bytes() != self.contents[key] for path in names):
                return f"the source of {key} has changed"
        return self._untrue(journal) or self._not_allowed(journal)

    def names(self, key: str) -> list[Path]:
        """Where the source lies: under its name, or under one of those that it leaves by."""
        path = self.made.sources[key]
        hidden = (path.with_name(name) for name in hidden_names(path.name))
        return [one for one in (path, *hidden) if one.exists()]

    def aside(self) -> list[Path]:
        """Files that a command has taken aside and not put back."""
        return [one for one in self.made.data_folder.rglob(".*") if one.suffix in HIDDEN]

    def _untrue(self, journal: Mapping[str, list[dict[str, Any]]]) -> str | None:
        """What a journal tells that has not happened."""
        for key, lines in journal.items():
            told = [line["event"] for line in lines if line["event"] not in _TELLS_NOTHING]
            if told and (told[-1] != "restored") == bool(self.names(key)):
                where = "there" if self.names(key) else "not there"
                return f"the journal says {told[-1]} of {key}, which is {where}"
            if lines[-1]["event"] == "kept" and self.made.sources[key] not in self.names(key):
                return f"the journal says kept of {key}, which has not its name"
        return None

    def _not_allowed(self, journal: Mapping[str, list[dict[str, Any]]]) -> str | None:
        """Which line of a journal no durable consent stands behind."""
        for lines in journal.values():
            for line in lines:
                name = line["authorised_by"].rpartition("(consent ")[2].removesuffix(")")
                if line["event"] != "restored" and not self._consents_to(name, line["shard"]):
                    return f"{line['event']} of {line['key']}, and no consent is there to allow it"
        return None

    def _consents_to(self, name: str, shard: int) -> bool:
        try:
            facts = strict_json((self.out / ".run" / "consents" / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return False
        return facts["name"] == name and any(a <= shard <= z for a, z in facts["shards"])

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

    def journal(self) -> dict[str, list[dict[str, Any]]]:
        """The whole lines of all journals, by key, each with its shard."""
        found: dict[str, list[dict[str, Any]]] = {}
        for path in sorted(self.out.glob(".run/deletions/*.jsonl")):
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    fields = json.loads(line)
                    fields["shard"] = int(path.stem.rpartition("-")[2])
                    found.setdefault(fields["key"], []).append(fields)
        return found

    def unfinished(self) -> list[str]:
        """Keys whose last line in a journal is an intent."""
        return [key for key, lines in self.journal().items() if lines[-1]["event"] == "intent"]

    def incomplete(self, expected: Ending) -> str | None:
        """What is missing from the end that an undisturbed run comes to."""
        if self.shards() != expected.shards:
            return "the shards have other bytes"
        if read_dataset(self.out).keys() != self.originals.keys():
            return "not every sample is in one shard"
        if left := [key for key, source in self.made.sources.items() if source.exists()]:
            return f"the sources of {', '.join(left)} are still there"
        if self.aside():
            return f"{self.aside()[0].name} was not put back"
        if self.unfinished():
            return f"the journal does not say what became of {', '.join(self.unfinished())}"
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
            del shard["record_sha256"]
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


def _own_name(path: str) -> str:
    """The name of a source that may lie aside."""
    folder, _, name = path.rpartition("/")
    for suffix in HIDDEN:
        if name.endswith(suffix):
            name = name.removesuffix(suffix).removeprefix(".")
    return f"{folder}/{name}"


def _volume(found: Found) -> Array:
    if "volume.b2nd" not in found.members:
        return found.volume
    array: Array = blosc2.ndarray_from_cframe(found.members["volume.b2nd"])[...]
    return array
