"""Processes that get in each other's way: nothing lost, nothing twice, nothing half done.

What changes a source while it is read is in ``test_hostile_input.py``, two deletions at once in
``test_gate.py``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import ctrate_convert
from ctrate_convert.conversion import manifest as merger
from ctrate_convert.conversion import worker
from ctrate_convert.conversion.deletion import is_done, read_journal
from ctrate_convert.conversion.manifest import load_manifest, merge
from ctrate_convert.conversion.plans import load_plans
from ctrate_convert.conversion.worker import Order, ShardDone
from ctrate_convert.errors import ExitCode
from ctrate_convert.paths import Dataset
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import (
    TIMEOUT_S,
    Array,
    command,
    convert_here,
    expected_volume,
    load_originals,
    plan_words,
    read_dataset,
    run_here,
    same_voxels,
    sources_left,
)

Make = Callable[..., SyntheticCtRate]

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.test_races"])

MERGERS, READERS = 120, 80
PATIENCE_S = 60


def start(count: int, function: Callable[..., None], *words: Any) -> list[Any]:
    """So many processes of ``function``, which gets ``words`` and its number."""
    started = [
        _PROCESSES.Process(target=function, args=(*words, number)) for number in range(count)
    ]
    for process in started:
        process.start()
    return started


def end(processes: list[Any]) -> None:
    """Wait for all; each must have ended well."""
    for process in processes:
        process.join(PATIENCE_S)
    codes = {process.exitcode for process in processes}
    for process in processes:
        process.kill()
    assert codes == {0}


@contextlib.contextmanager
def no_lock(*_: object, **__: object) -> Iterator[bool]:
    """A lock as on a mount whose flock excludes nobody: everyone gets it."""
    yield True


def without_locks() -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    for module in (worker, merger):
        stack.enter_context(mock.patch.object(module, "locked", no_lock))
    return stack


def require_whole(made: SyntheticCtRate, out: Path, originals: dict[str, Array]) -> None:
    """Every sample once, as its source was; nothing hidden stays behind; verified whole."""
    found = read_dataset(out)
    assert found.keys() == originals.keys()
    assert all(same_voxels(found[key].volume, expected_volume(originals[key])) for key in found)
    for folder in (out, Dataset(out).records, Dataset(out).plans):
        assert not list(folder.glob(".*.partial"))
    assert run_here("verify", out, "--full").code == ExitCode.DONE


# --- Two runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("round_", range(3))
def test_three_runs_at_once(make_ctrate: Make, tmp_path: Path, round_: int) -> None:
    """Three `run` in the same directory share the work; each source is deleted once."""
    made, out = make_ctrate(12), tmp_path / "out"
    originals = load_originals(made)
    words = plan_words(made, out, "--delete_source_files", "--samples_per_shard", 2, "--probe", 0)
    assert run_here(*words).code == ExitCode.DONE
    runs = [
        subprocess.Popen(
            command("run", out, "--num_workers", 2, "--json"), stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = [json.loads(process.communicate(timeout=TIMEOUT_S)[0]) for process in runs]
    assert [process.returncode for process in runs] == [0, 0, 0], said
    assert sum(facts["converted"] for facts in said) == 12
    assert run_here("run", out).code == ExitCode.DONE
    assert sources_left(made) == set()
    require_whole(made, out, originals)
    for shard in range(6):
        done = [line.key for line in read_journal(Dataset(out), shard) if is_done(line)]
        assert sorted(done) == sorted(set(done))


# --- Two array tasks on one shard ---------------------------------------------------------------


class _Told:
    """Where a worker's messages go: the last one is how it ended."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def send(self, message: object) -> None:
        self.messages.append(message)


def carry_out(order: Order) -> object:
    told = _Told()
    worker.main(order, told)  # type: ignore[arg-type]
    return told.messages[-1]


def convert_one(barrier: Barrier, out: Path, with_locks: bool, results: Path, number: int) -> None:
    with contextlib.nullcontext() if with_locks else without_locks():
        barrier.wait(PATIENCE_S)
        ended = carry_out(Order(out, 0, f"attempt-{number}", "the race", patience_s=30))
    facts = {"kind": type(ended).__name__, "fresh": getattr(ended, "fresh", None)}
    facts["error"] = str(getattr(ended, "error", ""))
    (results / str(number)).write_text(json.dumps(facts))


@pytest.mark.parametrize("with_locks", [True, False], ids=["locks", "no locks"])
def test_array_tasks_on_one_shard(make_ctrate: Make, tmp_path: Path, with_locks: bool) -> None:
    """Of eight processes at one shard, with and without locks, one publishes; all are content."""
    made, out, results = make_ctrate(4), tmp_path / "out", tmp_path / "results"
    results.mkdir()
    originals = load_originals(made)
    assert run_here(*plan_words(made, out, "--probe", 0)).code == ExitCode.DONE
    Dataset(out).prepare()
    barrier = _PROCESSES.Barrier(8)
    end(start(8, convert_one, barrier, out, with_locks, results))
    told = [json.loads(path.read_text()) for path in results.iterdir()]
    assert {facts["kind"] for facts in told} <= {"ShardDone", "ShardFailed"}
    # Who lost to a process that deleted the sources first may have had nothing to convert.
    assert sum(facts["fresh"] is True for facts in told) == 1, told
    assert sources_left(made) == set()
    require_whole(made, out, originals)


# --- Merger against merger against reader -------------------------------------------------------


def merge_often(barrier: Barrier, done: Event, out: Path, with_locks: bool, _: int) -> None:
    dataset = Dataset(out)
    plans = load_plans(dataset)
    with contextlib.nullcontext() if with_locks else without_locks():
        barrier.wait(PATIENCE_S)
        while not done.is_set():
            merge(dataset, plans)
        merge(dataset, plans)


def read_often(barrier: Barrier, done: Event, out: Path, with_locks: bool, _: int) -> None:
    """The manifest is whole at any moment, and what it lists is there and can be read."""
    path, most = Dataset(out).manifest, 0
    barrier.wait(PATIENCE_S)
    while True:
        last = done.is_set()
        facts = json.loads(path.read_bytes())
        total = facts["total_samples"]
        if total != sum(shard["samples"] for shard in facts["shards"]):
            raise ValueError("the manifest's sums do not fit its shards")
        if with_locks and total < most:
            raise ValueError(f"the manifest went back from {most} to {total} samples")
        most = max(most, total)
        for shard in facts["shards"]:
            if (out / shard["name"]).stat().st_size != shard["size_bytes"]:
                raise ValueError(f"{shard['name']} is not what the manifest lists")
        if last:
            return


@pytest.mark.parametrize("with_locks", [True, False], ids=["locks", "no locks"])
def test_mergers_and_readers(make_ctrate: Make, tmp_path: Path, with_locks: bool) -> None:
    """200 processes merge and read while shards come in: no reader sees a part, none is missed."""
    made = make_ctrate(16)
    converted = convert_here(made, tmp_path / "out", samples_per_shard=1)
    dataset, plans = converted.dataset, load_plans(converted.dataset)
    expected = dataset.manifest.read_bytes()
    held_back = tmp_path / "held_back"
    held_back.mkdir()
    records = sorted(dataset.records.glob("shard-*.json"))[1:]
    for record in records:
        record.rename(held_back / record.name)
    dataset.manifest.unlink()
    merge(dataset, plans)

    barrier, done = _PROCESSES.Barrier(MERGERS + READERS + 1), _PROCESSES.Event()
    processes = [
        *start(MERGERS, merge_often, barrier, done, dataset.out, with_locks),
        *start(READERS, read_often, barrier, done, dataset.out, with_locks),
    ]
    barrier.wait(PATIENCE_S)
    for record in records:
        (held_back / record.name).rename(record)
        load_manifest(dataset)
    done.set()
    end(processes)
    assert merge(dataset, plans).num_shards == 16
    assert dataset.manifest.read_bytes() == expected
    assert len(ctrate_convert.Volumes(dataset.out)) == 16


# --- Gate against converter ---------------------------------------------------------------------


def work_on_all(
    barrier: Barrier, out: Path, shards: int, deleting: bool, results: Path, number: int
) -> None:
    """Convert, or convert and delete, every shard, each process in another order, no locks."""
    told = []
    with without_locks():
        barrier.wait(PATIENCE_S)
        for step in range(shards):
            shard = (number + step) % shards
            authorised_by = "the race" if deleting else None
            ended = carry_out(Order(out, shard, f"attempt-{number}", authorised_by))
            told.append((shard, isinstance(ended, ShardDone), str(getattr(ended, "error", ""))))
    (results / f"{deleting}-{number}").write_text(json.dumps(told))


def test_gate_against_converter(make_ctrate: Make, tmp_path: Path) -> None:
    """Converters and deleters at the same shards without any lock: only what is proven goes."""
    made, out, results = make_ctrate(8), tmp_path / "out", tmp_path / "results"
    results.mkdir()
    originals = load_originals(made)
    words = plan_words(made, out, "--samples_per_shard", 2, "--probe", 0)
    assert run_here(*words).code == ExitCode.DONE
    Dataset(out).prepare()
    barrier = _PROCESSES.Barrier(8)
    processes = start(4, work_on_all, barrier, out, 4, False, results)
    processes += start(4, work_on_all, barrier, out, 4, True, results)
    end(processes)
    told = [json.loads(path.read_text()) for path in results.iterdir()]
    assert run_here("run", out).code == ExitCode.DONE, told
    require_whole(made, out, originals)
    assert run_here("delete", out, "--yes").code == ExitCode.DONE
    assert sources_left(made) == set()


# --- A folder that turns into a link ------------------------------------------------------------


def swap_for_ever(barrier: Barrier, done: Event, folder: Path, outside: Path, _: int) -> None:
    """A folder of the data folder is itself, a link to another folder, itself, …"""
    aside = folder.with_name(folder.name + "-aside")
    barrier.wait(PATIENCE_S)
    while not done.is_set():
        folder.rename(aside)
        folder.symlink_to(outside)
        folder.unlink()
        aside.rename(folder)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.npz")
    }


@pytest.mark.parametrize("round_", range(3))
def test_folder_that_turns_into_a_link_while_deleting(
    make_ctrate: Make, tmp_path: Path, round_: int
) -> None:
    """Files of the same names behind the link are never touched, whenever the folder turns."""
    made = make_ctrate(8, layout="nested")
    converted = convert_here(made, tmp_path / "out", samples_per_shard=2)
    folder = made.sources[made.keys[0]].parent
    while folder.parent != made.data_folder:
        folder = folder.parent
    outside = tmp_path / "outside"
    shutil.copytree(folder, outside)
    for path in outside.rglob("*.npz"):
        source = folder / path.relative_to(outside)
        os.utime(path, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    before = digests(outside)
    barrier, done = _PROCESSES.Barrier(2), _PROCESSES.Event()
    swapper = start(1, swap_for_ever, barrier, done, folder, outside)
    barrier.wait(PATIENCE_S)
    try:
        codes = Counter(run_here("delete", converted.out, "--yes").code for _ in range(4))
    finally:
        done.set()
        end(swapper)
    assert set(codes) <= {ExitCode.DONE, ExitCode.REFUSED}
    assert digests(outside) == before
    require_whole(made, converted.out, dict(converted.originals))
    assert run_here("delete", converted.out, "--yes").code == ExitCode.DONE
    assert sources_left(made) == set()
    assert digests(outside) == before
