"""What the tests share: the real command line, and a reader that knows nothing of the program."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import io
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import tarfile
import termios
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from ctrate_convert.cli import main
from ctrate_convert.planning.make import load_plans, make_plan
from ctrate_convert.shards.shard import convert_shard
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import load_record
from ctrate_convert.store.merger import merge
from ctrate_convert.store.records.plan import Plan, PlannedShard, PlanSettings
from ctrate_convert.store.records.record import ShardRecord
from ctrate_convert.synthetic import SyntheticCtRate

Array = NDArray[Any]
Members = dict[str, bytes]

TIMEOUT_S = 300
DELETE = ("--delete_source_files", "--yes")


@dataclass(frozen=True)
class Finished:
    """How a command ended and what it said."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    def json(self) -> Any:
        return json.loads(self.stdout)


def command(*words: object) -> list[str]:
    """The real command line, as a list for `subprocess`."""
    return [sys.executable, "-m", "ctrate_convert", *map(str, words)]


def run_cli(*words: object, before: Sequence[str] = (), **options: Any) -> Finished:
    """Run the real command line without a terminal; ``before`` is what runs it, such as strace."""
    done = subprocess.run(
        [*before, *command(*words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        **options,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def run_here(*words: object) -> Finished:
    """The same in this process, where a test needs many commands; its workers stay processes."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["ctrate-convert", *map(str, words)]),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        pytest.raises(SystemExit) as left,
    ):
        main()
    assert isinstance(left.value.code, int)
    return Finished(left.value.code, stdout.getvalue(), stderr.getvalue())


def run_at_terminal(answer: str, *words: object) -> Finished:
    """Run the real command line with a terminal to ask at, where ``answer`` is typed."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            command(*words),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            os.write(ours, answer.encode())
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        return Finished(process.returncode, stdout, stderr)
    finally:
        os.close(ours)
        os.close(theirs)


def input_words(made: SyntheticCtRate, out: Path) -> list[object]:
    """The options that name where everything is."""
    return [
        "--data_folder", made.data_folder,
        "--reports_file", made.reports_file,
        "--meta_file", made.meta_file,
        "--labels_file", made.labels_file,
        "--output_dir", out,
    ]  # fmt: skip


def plan_words(made: SyntheticCtRate, out: Path, *more: object) -> list[object]:
    """The first half of it."""
    return ["plan", *input_words(made, out), *more]


def convert_words(made: SyntheticCtRate, out: Path, *more: object) -> list[object]:
    """The original's one command."""
    return ["convert", *input_words(made, out), "--num_workers", 2, *more]


def settings_for(made: SyntheticCtRate, **more: Any) -> PlanSettings:
    return PlanSettings(
        data_folder=str(made.data_folder),
        reports_file=str(made.reports_file),
        meta_file=str(made.meta_file),
        labels_file=str(made.labels_file),
        **{"probe": 0, **more},
    )


@dataclass(frozen=True)
class Converted:
    """A converted dataset, made without a single extra process."""

    made: SyntheticCtRate
    dataset: Dataset
    originals: Mapping[str, Array]

    @property
    def out(self) -> Path:
        return self.dataset.out

    @property
    def plan(self) -> Plan:
        return load_plans(self.dataset)[0]

    def planned(self, shard: int = 0) -> PlannedShard:
        return self.plan.shards[shard]

    def record(self, shard: int = 0) -> ShardRecord:
        return load_record(self.dataset, self.plan, shard)


def convert_here(made: SyntheticCtRate, out: Path, **settings: Any) -> Converted:
    """Plan, convert and merge in this process: the same code as the command, without its cost."""
    dataset = Dataset(out)
    originals = load_originals(made)
    make_plan(dataset, settings_for(made, **settings))
    plans = load_plans(dataset)
    records = [
        convert_shard(dataset, plan, shard, "test", lambda size, samples: None).record
        for plan in plans
        for shard in plan.shards
    ]
    merge(dataset, plans, anew=records)
    return Converted(made, dataset, originals)


def made_again(manifest: bytes) -> bytes:
    """The same manifest, merged from the records by another process than the converter."""
    return manifest.replace(b'"by_converter": true', b'"by_converter": false')


def needs(program: str, *check: str) -> None:
    """Skip, saying why, where ``program`` is missing or may not do what the test needs."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    if check and subprocess.run(check, capture_output=True, check=False).returncode:
        pytest.skip(f"{program} is not permitted here")


# --- What NPZ files and shards hold, as numpy and tarfile alone see it -----------------------


def load_original(path: Path) -> Array:
    """The one 3-D array in an NPZ; the elements of a NIfTI file, with the axes (z, y, x)."""
    if ".nii" in path.name:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        stored: Array = np.asanyarray(nibabel.Nifti1Image.from_bytes(data).dataobj)
        return stored.T
    with np.load(path) as arrays:
        entries = [arrays[name] for name in arrays.files]
    found: list[Array] = [one for one in entries if np.ndim(one) == 3 and np.size(one)]
    assert len(found) == 1
    return found[0]


def load_originals(made: SyntheticCtRate) -> dict[str, Array]:
    return {
        key: load_original(path)
        for key, path in made.sources.items()
        if made.faults.get(key) != "corrupt"
    }


@dataclass(frozen=True)
class Found:
    """One sample as a shard holds it: its members by extension."""

    shard: str
    members: Members

    @property
    def volume(self) -> Array:
        array: Array = np.load(io.BytesIO(self.members["volume.npy"]))
        return array

    @property
    def description(self) -> dict[str, Any]:
        fields: dict[str, Any] = strict_json(self.members["json"])
        return fields


def strict_json(data: bytes) -> Any:
    """Parse JSON as its standard has it: no NaN, no infinities."""

    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(data, parse_constant=refuse)


def read_shard_file(path: Path) -> list[tuple[str, Found]]:
    """The samples of one tar in order; its members are whole and grouped."""
    samples: list[tuple[str, Found]] = []
    with tarfile.open(path) as archive:
        for info in archive:
            key, _, extension = info.name.partition(".")
            stream = archive.extractfile(info)
            assert stream is not None
            data = stream.read()
            assert len(data) == info.size
            if not samples or samples[-1][0] != key:
                samples.append((key, Found(path.name, {})))
            assert extension not in samples[-1][1].members
            samples[-1][1].members[extension] = data
    return samples


def read_dataset(out: Path) -> dict[str, Found]:
    """All samples of all shards by key; no key stands twice."""
    everything = [entry for path in sorted(out.glob("*.tar")) for entry in read_shard_file(path)]
    twice = [key for key, n in Counter(key for key, _ in everything).items() if n > 1]
    assert not twice, f"in more than one place: {twice}"
    return dict(everything)


def expected_volume(original: Array) -> Array:
    """What ``--dtype auto`` promises: integers stay, floats become float16."""
    return original.astype(np.float16) if original.dtype.kind == "f" else original


def same_voxels(one: Array, other: Array) -> bool:
    """Equal shape, type (but for its byte order) and bits."""
    if one.shape != other.shape or one.dtype.newbyteorder("=") != other.dtype.newbyteorder("="):
        return False
    return (
        np.ascontiguousarray(one).astype(one.dtype.newbyteorder("<")).tobytes()
        == np.ascontiguousarray(other).astype(other.dtype.newbyteorder("<")).tobytes()
    )


def assert_nothing_lost(made: SyntheticCtRate, originals: Mapping[str, Array], out: Path) -> None:
    """Each volume is in one shard, equal to what its source held, or its source is untouched."""
    found = read_dataset(out)
    assert found.keys() <= originals.keys()
    lost = []
    for key, original in originals.items():
        if key in found:
            assert same_voxels(found[key].volume, expected_volume(original)), key
        elif not made.sources[key].is_file():
            lost.append(key)
        if made.sources[key].is_file():
            assert same_voxels(load_original(made.sources[key]), original), key
    assert not lost, f"neither in a shard nor in its source: {lost}"


def assert_finished(made: SyntheticCtRate, originals: Mapping[str, Array], out: Path) -> None:
    """Every volume is in one shard, and the manifest's states add up to it."""
    assert_nothing_lost(made, originals, out)
    assert read_dataset(out).keys() == originals.keys()
    states = json.loads((out / "manifest.json").read_text())["samples"]
    assert states["converted"] == len(originals)
    assert states["pending"] == 0
    assert states["total"] == sum(states[s] for s in states if s != "total")


def at_terminal_of(width: int, *words: object, env: dict[str, str]) -> str:
    """What a command prints at a terminal ``width`` columns wide."""
    env = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    with subprocess.Popen(command(*words), stdin=theirs, stdout=theirs, stderr=theirs, env=env):
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 4096):
                seen += piece
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    return seen.decode()


def sources_left(made: SyntheticCtRate) -> set[str]:
    """The keys whose NPZ is still there."""
    return {key for key, path in made.sources.items() if path.exists()}


def partials(out: Path) -> list[Path]:
    """Hidden work in progress that was left behind."""
    return [path for path in out.glob(".*") if path.name.endswith(".partial")]


def text_of(lines: Iterable[object]) -> str:
    return "\n".join(map(str, lines))


def repair_without_a_source(converted: Converted) -> None:
    """Damage the first shard, and have all its samples made again but one without a source."""
    victim, *_, last = converted.record().converted
    shard = converted.dataset.shard(0)
    data = bytearray(shard.read_bytes())
    data[victim.array.offset + victim.array.size_bytes - 3] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(data)
    converted.made.sources[last.key].unlink()
    run_here("verify", converted.out, "--full", "--repair")
