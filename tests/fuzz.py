"""Fuzz: damaged volumes, tables and files of the dataset directory. ``python -m tests.fuzz -h``.

Whatever is changed, and however: nothing is deleted that no shard holds, nothing outside the data
folder, no published shard is touched, and every command ends with a documented exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tarfile
import time
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import numpy as np

from ctrate_convert.errors import CtrateError, ExitCode, SampleError, SettingsError
from ctrate_convert.formats.npz import SourceVolume
from ctrate_convert.formats.tables import read_tables
from ctrate_convert.operations import run
from ctrate_convert.schemas.base import sha256_hex
from ctrate_convert.schemas.plan import Plan
from ctrate_convert.schemas.record import ShardRecord
from tests.crash.disk import Disk, NameChange, Tree
from tests.crash.scenario import Scenario, orders_here, quick_folder
from tests.support import (
    Array,
    expected_volume,
    load_original,
    read_shard_file,
    run_here,
    same_voxels,
)

HANG_S = 120
_UNEXPECTED = re.compile(r"unexpected [A-Z]\w+:|Traceback")
_DAMAGED = (
    tarfile.TarError, tokenize.TokenError, SyntaxError,
    AssertionError, ValueError, OSError, KeyError,
)  # fmt: skip
"""What ``tarfile`` and numpy raise for what they cannot read."""

CODES = frozenset(code for code in ExitCode if code != ExitCode.INTERRUPTED)


class Found(AssertionError):
    """What must never be was."""


# --- Mutations of bytes ----------------------------------------------------------------------


def flip(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 4, 30))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def zero(chance: random.Random, data: bytes) -> bytes:
    start = chance.randrange(len(data))
    size = min(chance.randrange(1, 200), len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def repeat(chance: random.Random, data: bytes) -> bytes:
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:end] + data[end:]


def put_number(chance: random.Random, data: bytes) -> bytes:
    """Some field of one, two, four or eight bytes gets a value at an edge."""
    size = chance.choice((1, 2, 4, 8))
    value = chance.choice((0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1))
    start = chance.randrange(max(1, len(data) - size))
    return data[:start] + value.to_bytes(size, "little") + data[start + size :]


def swap_lines(chance: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    one, other = (chance.randrange(len(lines)) for _ in range(2))
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def repeat_line(chance: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    lines.insert(chance.randrange(len(lines)), chance.choice(lines))
    return b"".join(lines)


BYTES = (flip, cut, zero, repeat, put_number)
LINES = (flip, cut, swap_lines, repeat_line)
Mutate = Callable[[random.Random, bytes], bytes]


# --- Mutations of JSON -----------------------------------------------------------------------


def nasty(chance: random.Random, outside: Path) -> Any:
    """A value that no honest program has written."""
    paths = (
        "../outside/precious.npz", str(outside / "precious.npz"), "link/precious.npz",
        "train_1/../../../outside/precious.npz", "./train_1", "a//b", "..", "/", "", "\0",
        "extra.npz", str(outside), "x" * 5000, "a\nb", "\ud800",
    )  # fmt: skip
    numbers = (0, -1, 1, 2**31, 2**63, 2**70, -(2**63), 0.5, 1e308, -0.0)
    others: tuple[Any, ...] = (None, True, [], {}, ["x"], {"a": 1})
    return chance.choice((chance.choice(paths), chance.choice(numbers), chance.choice(others)))


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with a key or place in it."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from leaves(inner)


def edit(chance: random.Random, value: Any, outside: Path) -> None:
    """Change one place in a JSON value."""
    places = list(leaves(value)) if isinstance(value, (dict, list)) else []
    if not places:
        return
    holder, key = chance.choice(places)
    how = chance.randrange(6)
    if how == 0 and isinstance(holder, dict):
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[f"{key}x"] = holder[key]
    elif how == 2:
        same = [(h, k) for h, k in places if type(h[k]) is type(holder[key])]
        other, at = chance.choice(same)
        holder[key] = json.loads(json.dumps(other[at]))
    elif how == 3 and isinstance(holder[key], int):
        holder[key] += chance.choice((-1, 1, 512, -512))
    else:
        holder[key] = nasty(chance, outside)


def edited_json(chance: random.Random, data: bytes, outside: Path) -> bytes:
    """One line, or the whole, with one value changed."""
    lines = data.splitlines(keepends=True)
    place = chance.randrange(len(lines))
    try:
        value = json.loads(data)
    except ValueError:
        value = json.loads(lines[place])
        edit(chance, value, outside)
        lines[place] = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        return b"".join(lines)
    edit(chance, value, outside)
    return json.dumps(value, separators=(",", ":")).encode()


# --- Volumes and tables ----------------------------------------------------------------------


def read_volume(path: Path) -> str:
    """Read all of a volume, as a conversion does."""
    try:
        with SourceVolume(path) as volume:
            for _ in volume.blocks(2**17):
                pass
    except SampleError:
        return "refused"
    return "read"


def fuzz_volume(chance: random.Random, stage: Stage) -> str:
    """A damaged NPZ is read whole or refused with a reason."""
    path = stage.folder / "volume.npz"
    data = stage.volumes[chance.choice(sorted(stage.volumes))]
    for _ in range(chance.choice((1, 1, 2, 5))):
        data = chance.choice(BYTES)(chance, data) or b"x"
    path.write_bytes(data)
    return read_volume(path)


def fuzz_table(chance: random.Random, stage: Stage) -> str:
    """A damaged table is read or refused with a reason; its cells are text."""
    tables = {name: stage.folder / name for name in stage.tables}
    for name, path in tables.items():
        path.write_bytes(stage.tables[name])
    name = chance.choice(sorted(tables))
    tables[name].write_bytes(chance.choice((*LINES, *BYTES))(chance, stage.tables[name]))
    try:
        found = read_tables(tables["reports"], tables["labels"], tables["metadata"])
    except SettingsError:
        return "refused"
    for table in found.by_setting.values():
        for key in table.rows:
            assert all(isinstance(cell, str) for cell in table.row(key).values())
    return "read"


# --- The dataset directory -------------------------------------------------------------------

COMMANDS = (
    ("run", "--num_workers", 1),
    ("delete", "--yes", "--num_workers", 1),
    ("merge",),
    ("verify", "--full", "--num_workers", 1),
    ("audit", "--num_workers", 1),
    ("delete",),
)


def fuzz_dataset(chance: random.Random, stage: Stage) -> str:
    """A tampered plan, record, journal, manifest or shard makes no command do harm."""
    label, tree = chance.choice(stage.trees)
    stage.put(tree)
    before = stage.sources_left()
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        tamper(chance, stage)
    shards = {path: path.read_bytes() for path in stage.out.glob("*.tar") if path.is_file()}
    told = []
    for words in chance.sample(COMMANDS, 2):
        with stage.scenario.same_files():
            done = run_here(words[0], stage.out, *words[1:])
        told.append(f"{words[0]} {done.code}")
        if done.code not in CODES or _UNEXPECTED.search(done.text):
            raise Found(f"after {label}: {' '.join(map(str, words))} ends with {done}")
    stage.check(before, shards)
    return told[0]


def tamper(chance: random.Random, stage: Stage) -> None:
    """Change one file of the dataset directory."""
    everything = sorted(stage.out.rglob("*"))
    files = [path for path in everything if path.is_file() and not path.is_symlink()]
    names = [path for path in files if path.suffix in (".json", ".jsonl", ".tar")]
    if not names:
        return
    path = chance.choice(names)
    how = chance.randrange(10)
    if how == 0:
        path.unlink()
        path.symlink_to(stage.outside / chance.choice(("precious.npz", "missing", "notes.jsonl")))
    elif how == 1:
        path.unlink()
        path.mkdir()
    elif how == 2:
        other = chance.choice(names)
        path.write_bytes(other.read_bytes())
    elif how == 3 and path.suffix != ".tar":
        tamper_consistently(chance, stage)
    elif how < 8 and path.suffix != ".tar" and path.read_bytes():
        with contextlib.suppress(ValueError):  # damaged by an earlier turn
            path.write_bytes(edited_json(chance, path.read_bytes(), stage.outside))
    elif data := path.read_bytes():
        path.write_bytes(chance.choice((*BYTES, *LINES))(chance, data))


def tamper_consistently(chance: random.Random, stage: Stage) -> None:
    """Change the plan or its samples, and put every hash right that can be put right."""
    folder = stage.out / ".run" / "plans" / "0000"
    if any(path.is_symlink() for path in stage.out.rglob("*")):
        return  # this is not to write through a link itself
    with contextlib.suppress(ValueError, OSError, LookupError, TypeError, AttributeError):
        plan = json.loads((folder / "plan.json").read_bytes())
        lines = (folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
        if chance.random() < 0.5:
            place = chance.randrange(len(lines))
            sample = json.loads(lines[place])
            sample["source"] = nasty(chance, stage.outside)
            lines[place] = json.dumps(sample, separators=(",", ":")).encode() + b"\n"
        elif chance.random() < 0.5:
            plan["settings"]["data_folder"] = chance.choice(
                (str(stage.outside), str(stage.out), "/", ".", str(stage.scenario.disk_folder))
            )
        else:
            edit(chance, plan, stage.outside)
        offset = 0
        everyone = list(lines)
        for shard in plan["shards"]:
            own = b"".join(lines[: shard["samples"]])
            lines = lines[shard["samples"] :]
            shard["lines_offset"], shard["lines_size_bytes"] = offset, len(own)
            shard["lines_sha256"] = sha256_hex(own)
            offset += len(own)
            with (folder / "samples.jsonl").open("r+b" if offset > len(own) else "wb") as stream:
                stream.seek(offset - len(own))
                stream.write(own)
        whole = Plan.model_validate_json(json.dumps(plan))
        plan_id = whole.content_id()
        (folder / "plan.json").write_bytes(whole.model_copy(update={"plan_id": plan_id}).to_json())
        manifest = json.loads((stage.out / "manifest.json").read_bytes())
        for path in (stage.out / ".run" / "records").glob("*.json"):
            facts = json.loads(path.read_bytes()) | {"plan_id": plan_id}
            if chance.random() < 0.5:
                sample = chance.choice(facts["samples"])
                sample["source"]["source"] = chance.choice(
                    [sample["source"]["source"], *(json.loads(line)["source"] for line in everyone)]
                )
            record = ShardRecord.model_validate_json(json.dumps(facts)).to_json()
            path.write_bytes(record)
            for entry in manifest["shards"]:
                if entry["name"] == f"{path.stem}.tar":
                    entry["record_sha256"] = sha256_hex(record)
        manifest["plans"] = [plan_id]
        (stage.out / "manifest.json").write_text(json.dumps(manifest))


@dataclass(frozen=True)
class Stage:
    """A dataset at several moments of its making, and around it what nobody may touch."""

    folder: Path
    scenario: Scenario
    trees: Sequence[tuple[str, Tree]]
    volumes: dict[str, bytes]
    tables: dict[str, bytes]
    outside_holds: dict[str, bytes]
    originals: dict[str, Array]

    @classmethod
    def make(cls, folder: Path) -> Stage:
        """Run once, and keep what the disk held at each moment that matters."""
        scenario = Scenario.make(folder)
        volumes = {key: path.read_bytes() for key, path in scenario.made.sources.items()}
        made = scenario.made
        tables = {
            "reports": made.reports_file.read_bytes(),
            "labels": made.labels_file.read_bytes(),
            "metadata": made.meta_file.read_bytes(),
        }
        holds = {"precious.npz": volumes[made.keys[0]], "notes.jsonl": b"{}\n"}
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
        self.scenario.put(tree)
        link.symlink_to(self.outside)

    def sources_left(self) -> set[str]:
        """The keys whose source is there, ``extra`` too, which no honest plan names."""
        data = self.scenario.disk_folder / "npz"
        return {path.stem for path in data.rglob("*.npz") if not path.is_symlink()}

    def check(self, before: set[str], shards: dict[Path, bytes]) -> None:
        """What must hold, however it was tampered with."""
        for name, data in self.outside_holds.items():
            path = self.outside / name
            if path.is_symlink() or not path.is_file() or path.read_bytes() != data:
                raise Found(f"{name} outside the data folder was changed")
        if sorted(os.listdir(self.outside)) != sorted(self.outside_holds):
            raise Found(f"outside the data folder there is now {os.listdir(self.outside)}")
        for path, data in shards.items():
            if not path.is_file() or path.read_bytes() != data:
                raise Found(f"{path.name} was changed after it was published")
        held = self._held()
        for key in before - self.sources_left():
            if not any(same_voxels(self.originals[key], volume) for volume in held):
                raise Found(f"the source of {key} is gone, and no shard holds its voxels")

    def _held(self) -> list[Array]:
        """All volumes in all shards, by ``tarfile`` and numpy alone."""
        held = []
        for path in self.out.glob("*.tar"):
            with contextlib.suppress(*_DAMAGED):
                for _, found in read_shard_file(path):
                    held.append(found.volume)
        return held


TARGETS: dict[str, Callable[[random.Random, Stage], str]] = {
    "volume": fuzz_volume,
    "table": fuzz_table,
    "dataset": fuzz_dataset,
}


def one_turn(target: str, seed: int, stage: Stage) -> str:
    """One turn with its own seed; what came of it, in a word.

    Raises:
        Found: something that must never be, or any exception that the program must not raise.
    """

    def hangs(number: int, frame: FrameType | None) -> None:
        raise Found(f"nothing happens for {HANG_S} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANG_S)
    try:
        with (
            mock.patch.object(run, "run_orders", orders_here),
            mock.patch.object(os, "fsync", lambda descriptor: None),
        ):
            return TARGETS[target](random.Random(seed), stage)
    except (Found, CtrateError, Exception) as error:
        raise Found(f"{target}, seed {seed}: {type(error).__name__}: {error}") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """Turn after turn until the time is up; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="the first turn's; each adds one")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    given = parser.parse_args()
    targets = given.target or list(TARGETS)
    came: Counter[str] = Counter()
    found: list[str] = []
    end = time.monotonic() + given.seconds
    seed = given.seed
    with quick_folder("fuzz") as folder:
        stage = Stage.make(folder)
        while time.monotonic() < end:
            target = targets[seed % len(targets)]
            try:
                came[f"{target}: {one_turn(target, seed, stage)}"] += 1
            except Found as error:
                found.append(str(error))
                sys.stderr.write(f"FOUND {error}\n")
            seed += 1
    for what, number in sorted(came.items()):
        sys.stdout.write(f"{number:8,}  {what}\n")
    sys.stdout.write(f"{seed - given.seed:8,}  turns, {len(found)} findings\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
