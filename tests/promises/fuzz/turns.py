"""One turn: something is changed, the program meets it, and what must hold is looked at."""

from __future__ import annotations

import contextlib
import functools
import gzip
import os
import random
import re
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from unittest import mock

from ctrate_convert.errors import CtrateError, ExitCode, SampleError, SettingsError
from ctrate_convert.formats.tables import read_tables
from ctrate_convert.sources.kinds import open_source
from tests.promises.crash.scenario import quick_folder
from tests.promises.crash.trash_scenario import TrashScenario
from tests.promises.fuzz.mutations import BYTES, LINES
from tests.promises.fuzz.stage import Found, Stage
from tests.promises.fuzz.tamper import plant, tamper

HANG_S = 120
_UNEXPECTED = re.compile(r"unexpected [A-Z]\w+:|Traceback")

CODES = frozenset(code for code in ExitCode if code != ExitCode.INTERRUPTED)

TRASH, AGAIN = "TRASH", "AGAIN"
"""Stand for the folders where this scenario's trash is, and where sources are exported to."""

COMMANDS = (
    ("run", "--yes", "--num_workers", 1),
    ("run", "--keep_source_files", "--num_workers", 1),
    ("delete", "--yes", "--num_workers", 1),
    ("merge",),
    ("verify", "--full", "--num_workers", 1),
    ("verify", "--full", "--repair", "--num_workers", 1),
    ("audit", "--num_workers", 1),
    ("audit", "--against_sources", "--num_workers", 1),
    ("restore",),
    ("delete", "--dry_run"),
    ("delete", "--yes", "--num_workers", 1, "--trash", TRASH),
    ("status",),
    ("history",),
    ("report",),
    ("export", AGAIN, "--all"),
    ("export", AGAIN, "--all", "--as", "npz"),
)


def fuzz_dataset(chance: random.Random, stage: Stage) -> str:
    """A tampered plan, record, journal, consent, manifest or shard, and what others put among the
    sources, makes no command do harm."""
    label, tree = chance.choice(stage.trees)
    stage.put(tree)
    before = stage.sources_left()
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        tamper(chance, stage)
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        plant(chance, stage)
    planted = stage.foreign()
    shards = {path: path.read_bytes() for path in stage.out.glob("*.tar") if path.is_file()}
    told = []
    for words in chance.sample(COMMANDS, 2):
        folders = {name: stage.scenario.disk_folder / name.lower() for name in (TRASH, AGAIN)}
        given = [folders.get(str(one), one) for one in words]
        with stage.scenario.same_files():
            done = stage.scenario.given(given[0], stage.out, *given[1:])
        told.append(f"{words[0]} {done.code}")
        if done.code not in CODES or _UNEXPECTED.search(done.text):
            raise Found(f"after {label}: {' '.join(map(str, words))} ends with {done}")
    stage.check(before, shards, planted)
    return told[0]


def read_volume(path: Path) -> bytes | None:
    """Read all of a volume, as a conversion does; None if it is refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            with open_source(path) as volume:
                return b"".join(block.tobytes() for block in volume.blocks(2**17))
    except SampleError:
        return None


@functools.cache
def undamaged(path: Path, data: bytes) -> bytes | None:
    """The elements of the volume in ``data``, which ``path`` may hold for it."""
    path.write_bytes(data)
    return read_volume(path)


def fuzz_volume(chance: random.Random, stage: Stage) -> str:
    """A damaged NPZ or NIfTI is read whole or refused with a reason.

    Where a digest covers the elements, they are those that were written. NIfTI is also damaged
    before it is compressed, so that the digests are right and its header is not.
    """
    name = chance.choice(sorted(stage.volumes))
    path, data = stage.folder / name, stage.volumes[name]
    inside = name.endswith(".gz") and chance.random() < 0.5
    damaged = gzip.decompress(data) if inside else data
    for _ in range(chance.choice((1, 1, 2, 5))):
        damaged = chance.choice(BYTES)(chance, damaged) or b"x"
    expected = None if inside or name.endswith(".nii") else undamaged(path, data)
    path.write_bytes(gzip.compress(damaged, 1) if inside else damaged)
    found = read_volume(path)
    if expected is not None and found not in (None, expected):
        raise Found(f"{name} gives other elements than were written")
    return "refused" if found is None else "read"


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


TARGETS: dict[str, Callable[[random.Random, Stage], str]] = {
    "volume": fuzz_volume,
    "table": fuzz_table,
    "dataset": fuzz_dataset,
    "trash": fuzz_dataset,
}


@contextlib.contextmanager
def stages() -> Iterator[dict[str, Stage]]:
    """For each target what it is tried on."""
    with quick_folder("fuzz") as folder, quick_folder("fuzz") as other:
        stage, with_trash = Stage.make(folder), Stage.make(other, TrashScenario)
        yield {target: with_trash if target == "trash" else stage for target in TARGETS}


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
        with mock.patch.object(os, "fsync", lambda descriptor: None):
            return TARGETS[target](random.Random(seed), stage)
    except (Found, CtrateError, Exception) as error:
        raise Found(f"{target}, seed {seed}: {type(error).__name__}: {error}") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
