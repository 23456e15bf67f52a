"""Processes that get in each other's way: nothing lost, nothing twice, nothing half done.

What changes a source while it is read is in ``test_hostile_input.py``. Nobody's hidden name
(``.NAME.npz.leaving``, ``.NAME.npz.equal``) is left in the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
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

import numpy as np
import pytest

import ctrate_convert
from ctrate_convert.deleting import compare as comparer
from ctrate_convert.deleting import gate, let_go
from ctrate_convert.deleting.gate import Release, release_sources
from ctrate_convert.errors import CtrateError, ExitCode
from ctrate_convert.running import worker
from ctrate_convert.running.worker import Order, ShardDone
from ctrate_convert.shards import shard as converter
from ctrate_convert.sources.source import Source
from ctrate_convert.store import fresh, merger
from ctrate_convert.store.durable import PartialFile
from ctrate_convert.store.journals import is_done, open_intents, read_journal
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import load_manifest
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.presence import ASIDE_SUFFIX, PROVEN_SUFFIX, aside_name, proven_name
from ctrate_convert.synthetic import Kind, SyntheticCtRate, write_synthetic_ctrate
from tests.consents import allow_deletion
from tests.support import (
    TIMEOUT_S,
    Array,
    Converted,
    assert_nothing_lost,
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
_PROCESSES.set_forkserver_preload(["tests.promises.races.test_races"])

MERGERS, READERS = 120, 80
PATIENCE_S = 240


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
    stack.enter_context(mock.patch.object(fcntl, "flock", lambda descriptor, how: None))
    return stack


def left_aside(made: SyntheticCtRate) -> list[Path]:
    """What bears a hidden name of a source that is being compared, or was found equal."""
    hidden = (ASIDE_SUFFIX, PROVEN_SUFFIX)
    return [path for suffix in hidden for path in made.data_folder.rglob(f"*{suffix}")]


def require_told(dataset: Dataset, keys: Any, shards: int) -> None:
    """The journals say of each key that its source went, and leave nothing open."""
    told = set()
    for shard in range(shards):
        lines = read_journal(dataset, shard)
        told |= {line.key for line in lines if is_done(line)}
        assert not open_intents(lines)
    assert told == set(keys)


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
            command("run", out, "--yes", "--num_workers", 2, "--json"),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = [json.loads(process.communicate(timeout=TIMEOUT_S)[0]) for process in runs]
    assert [process.returncode for process in runs] == [0, 0, 0], said
    assert sum(facts["converted"] for facts in said) == 12
    assert run_here("run", out, "--yes").code == ExitCode.DONE
    assert sources_left(made) == set()
    assert not left_aside(made)
    require_whole(made, out, originals)
    require_told(Dataset(out), made.keys, 6)
    for shard in range(6):
        done = [line.key for line in read_journal(Dataset(out), shard) if is_done(line)]
        assert sorted(done) == sorted(set(done))


# --- Two array tasks on one shard ---------------------------------------------------------------


class _Told:
    """Where a worker's messages go: the last one is how it ended."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self._ends = multiprocessing.Pipe()

    def send(self, message: object) -> None:
        self.messages.append(message)

    def fileno(self) -> int:
        """Of a connection whose other end is open: the command lives."""
        return self._ends[0].fileno()


def carry_out(order: Order) -> Any:
    """Convert the shard and, under a consent, let its sources go; returns how the last ended."""
    told = _Told()
    worker.main(order, told)  # type: ignore[arg-type]
    ended = told.messages[-1]
    then = order.then_release(ended) if isinstance(ended, ShardDone) else None
    return ended if then is None else carry_out(then)


def facts_of(order: Order) -> dict[str, Any]:
    """Carry it out, watching what the conversion says, too."""
    told = _Told()
    worker.main(order, told)  # type: ignore[arg-type]
    converted = told.messages[-1]
    then = order.then_release(converted) if isinstance(converted, ShardDone) else None
    ended = converted if then is None else carry_out(then)
    deletion = getattr(ended, "deletion", None)
    return {
        "kind": type(ended).__name__,
        "fresh": getattr(converted, "fresh", None),
        "failed": getattr(converted, "failed", None),
        "error": str(getattr(ended, "error", "")),
        "deleted": deletion.deleted_files if deletion else 0,
        "kept": [kept.reason for kept in deletion.kept] if deletion else [],
    }


def convert_one(
    barrier: Barrier, out: Path, consent: str, with_locks: bool, results: Path, number: int
) -> None:
    with contextlib.nullcontext() if with_locks else without_locks():
        barrier.wait(PATIENCE_S)
        facts = facts_of(Order(out, 0, f"attempt-{number}", consent, patience_s=30))
    (results / str(number)).write_text(json.dumps(facts))


@pytest.mark.parametrize("with_locks", [True, False], ids=["locks", "no locks"])
def test_array_tasks_on_one_shard(make_ctrate: Make, tmp_path: Path, with_locks: bool) -> None:
    """Of eight processes at one shard, with and without locks, one publishes; all are content."""
    made, out, results = make_ctrate(4), tmp_path / "out", tmp_path / "results"
    results.mkdir()
    originals = load_originals(made)
    assert run_here(*plan_words(made, out, "--probe", 0)).code == ExitCode.DONE
    consent = allow_deletion(Dataset(out)).name
    barrier = _PROCESSES.Barrier(8)
    end(start(8, convert_one, barrier, out, consent, with_locks, results))
    told = [json.loads(path.read_text()) for path in results.iterdir()]
    # Who lost to a process that deleted the sources first may have had nothing to convert.
    assert {facts["kind"] for facts in told} <= {"SourcesReleased", "ShardFailed"}
    assert sum(facts["fresh"] is True for facts in told) == 1, told
    assert sum(facts["deleted"] for facts in told) <= len(made.keys)
    if not with_locks:  # each may have hindered the other
        assert run_here("delete", out, "--yes").code == ExitCode.DONE
    assert sources_left(made) == set()
    assert not left_aside(made)
    require_told(Dataset(out), made.keys, 1)
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
    barrier: Barrier, out: Path, shards: int, consent: str | None, results: Path, number: int
) -> None:
    """Convert, or convert and delete, every shard, each process in another order, no locks."""
    told = []
    with without_locks():
        barrier.wait(PATIENCE_S)
        for step in range(shards):
            shard = (number + step) % shards
            facts = facts_of(Order(out, shard, f"attempt-{number}", consent))
            told.append((shard, facts))
    (results / f"{consent}-{number}").write_text(json.dumps(told))


def test_gate_against_converter(make_ctrate: Make, tmp_path: Path) -> None:
    """Converters and deleters at the same shards without any lock: only what is proven goes."""
    made, out, results = make_ctrate(8), tmp_path / "out", tmp_path / "results"
    results.mkdir()
    originals = load_originals(made)
    words = plan_words(made, out, "--samples_per_shard", 2, "--probe", 0)
    assert run_here(*words).code == ExitCode.DONE
    consent = allow_deletion(Dataset(out)).name
    barrier = _PROCESSES.Barrier(8)
    processes = start(4, work_on_all, barrier, out, 4, None, results)
    processes += start(4, work_on_all, barrier, out, 4, consent, results)
    end(processes)
    told = [json.loads(path.read_text()) for path in results.iterdir()]
    assert run_here("run", out).code == ExitCode.DONE, told
    require_whole(made, out, originals)
    assert run_here("delete", out, "--yes").code == ExitCode.DONE
    assert sources_left(made) == set()
    assert not left_aside(made)
    require_told(Dataset(out), made.keys, 4)


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
        for path in folder.rglob("*")
        if path.is_file()
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
    assert not left_aside(made)
    assert digests(outside) == before


# --- An array task that comes too late ----------------------------------------------------------


def hold_before(owner: Any, name: str, turn: int, reached: Event, go_on: Event) -> Any:
    """A patch: the ``turn``-th call of ``owner.name`` says that it is reached, and waits."""
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def held(*words: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == turn:
            reached.set()
            if not go_on.wait(PATIENCE_S):
                raise RuntimeError("nobody let this process go on")
        return real(*words, **more)

    return mock.patch.object(owner, name, held)


MOMENTS: dict[str, tuple[Any, str, int]] = {
    "before its first sample": (converter, "load_samples", 1),
    "between two samples": (converter, "convert_sample", 3),
    "before it publishes": (PartialFile, "publish", 1),
    "before its record": (converter, "create_once", 1),
}


def convert_late(
    moment: str, reached: Event, go_on: Event, out: Path, consent: str, results: Path, _: int
) -> None:
    with without_locks(), hold_before(*MOMENTS[moment], reached, go_on):
        facts = facts_of(Order(out, 0, "late", consent))
    (results / "late").write_text(json.dumps(facts))


def convert_promptly(out: Path, consent: str, results: Path, _: int) -> None:
    with without_locks():
        facts = facts_of(Order(out, 0, "prompt", consent))
    (results / "prompt").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    "moment",
    [
        "before its first sample",
        "between two samples",
        "before it publishes",
        "before its record",
    ],
)
def test_task_overtaken_by_one_that_deletes(make_ctrate: Make, tmp_path: Path, moment: str) -> None:
    """A task that another one overtakes, sources deleted and all, finds the shard finished."""
    made, out, results = make_ctrate(4), tmp_path / "out", tmp_path / "results"
    results.mkdir()
    originals = load_originals(made)
    assert run_here(*plan_words(made, out, "--probe", 0)).code == ExitCode.DONE
    dataset = Dataset(out)
    consent = allow_deletion(dataset).name
    reached, go_on = _PROCESSES.Event(), _PROCESSES.Event()
    late = start(1, convert_late, moment, reached, go_on, out, consent, results)
    assert reached.wait(PATIENCE_S)
    end(start(1, convert_promptly, out, consent, results))
    published = dataset.shard(0).read_bytes(), dataset.record(0).read_bytes()
    assert json.loads((results / "prompt").read_text())["deleted"] == 4
    assert sources_left(made) == set()
    go_on.set()
    end(late)

    assert (dataset.shard(0).read_bytes(), dataset.record(0).read_bytes()) == published
    require_whole(made, out, originals)
    events = Counter((e.event, e.key) for e in read_journal(dataset, 0) if is_done(e))
    assert events == {("deleted", key): 1 for key in made.keys}
    told = json.loads((results / "late").read_text())
    assert (told["kind"], told["deleted"]) == ("SourcesReleased", 0), told["error"]


LETTING_GO: dict[str, tuple[Any, str]] = {
    "before it looks at the source": (gate, "let_go"),
    "before it renames it": (let_go, "rename_if_free"),
    "before it opens it": (let_go, "_compare_and_take"),
    "before it compares it": (gate, "compare"),
    "before its last look": (let_go, "_take"),
    "before it unlinks it": (os, "unlink"),
}
"""The moments of one deletion, in their order."""


def delete_late(
    moment: str, reached: Event, go_on: Event, out: Path, consent: str, results: Path, _: int
) -> None:
    with without_locks(), hold_before(*LETTING_GO[moment], 1, reached, go_on):
        facts = facts_of(Order(out, 0, "late", consent, releasing=True))
    (results / "late").write_text(json.dumps(facts))


@pytest.mark.parametrize("moment", LETTING_GO)
def test_deletion_overtaken_by_another(converted: Converted, tmp_path: Path, moment: str) -> None:
    """Of two deletions at one shard without locks, only the one that deleted a file says so."""
    results = tmp_path / "results"
    results.mkdir()
    consent = allow_deletion(converted.dataset).name
    reached, go_on = _PROCESSES.Event(), _PROCESSES.Event()
    late = start(1, delete_late, moment, reached, go_on, converted.out, consent, results)
    assert reached.wait(PATIENCE_S)
    end(start(1, convert_promptly, converted.out, consent, results))
    go_on.set()
    end(late)
    keys = converted.made.keys[:4]
    assert sources_left(converted.made) == set(converted.made.keys[4:])
    assert not left_aside(converted.made)
    deleted = [e.key for e in read_journal(converted.dataset, 0) if e.event == "deleted"]
    assert sorted(deleted) == sorted(keys)
    assert json.loads((results / "late").read_text())["deleted"] == 0
    assert json.loads((results / "prompt").read_text())["deleted"] == 4
    assert run_here("delete", converted.out, "--yes").code == ExitCode.DONE
    require_told(converted.dataset, converted.made.keys, 2)


@pytest.mark.parametrize("moment", LETTING_GO)
def test_deletion_beside_one_that_is_held_up(
    converted: Converted, tmp_path: Path, moment: str
) -> None:
    """With the lock on the source alone, a second deletion leaves a source that the first has
    aside to it, and takes the others."""
    results = tmp_path / "results"
    results.mkdir()
    consent = allow_deletion(converted.dataset).name
    reached, go_on = _PROCESSES.Event(), _PROCESSES.Event()
    late = start(1, delete_held_up, moment, reached, go_on, converted.out, consent, results)
    assert reached.wait(PATIENCE_S)
    end(start(1, delete_promptly, converted.out, consent, results))
    go_on.set()
    end(late)
    facts = [json.loads((results / name).read_text()) for name in ("late", "prompt")]
    aside = moment in ("before it compares it", "before its last look", "before it unlinks it")
    assert [one["deleted"] for one in facts] == ([1, 3] if aside else [0, 4])
    assert sources_left(converted.made) == set(converted.made.keys[4:])
    assert not left_aside(converted.made)
    assert run_here("delete", converted.out, "--yes").code == ExitCode.DONE
    require_told(converted.dataset, converted.made.keys, 2)


def delete_held_up(
    moment: str, reached: Event, go_on: Event, out: Path, consent: str, results: Path, _: int
) -> None:
    with without_shard_locks(), hold_before(*LETTING_GO[moment], 1, reached, go_on):
        facts = facts_of(Order(out, 0, "late", consent, releasing=True))
    (results / "late").write_text(json.dumps(facts))


def delete_promptly(out: Path, consent: str, results: Path, _: int) -> None:
    with without_shard_locks():
        facts = facts_of(Order(out, 0, "prompt", consent, releasing=True))
    (results / "prompt").write_text(json.dumps(facts))


def without_shard_locks() -> Any:
    """Let two workers at one shard; the source that one of them has aside stays locked."""
    return mock.patch.object(worker, "locked", no_lock)


def delete_at_once(
    barrier: Barrier, out: Path, consent: str, with_locks: bool, results: Path, number: int
) -> None:
    with without_shard_locks() if with_locks else without_locks():
        barrier.wait(PATIENCE_S)
        facts = [facts_of(Order(out, shard, "x", consent, releasing=True)) for shard in (0, 1)]
    (results / str(number)).write_text(json.dumps(facts))


@pytest.mark.parametrize("with_locks", [True, False], ids=["locks", "no locks"])
def test_deletions_of_one_shard_at_once(
    converted: Converted, tmp_path: Path, with_locks: bool
) -> None:
    """Six deletions let go the sources of the same shards, with and without locks on the sources:
    each file is deleted once, and the same command finishes what they hindered."""
    results = tmp_path / "results"
    results.mkdir()
    consent = allow_deletion(converted.dataset).name
    barrier = _PROCESSES.Barrier(6)
    end(start(6, delete_at_once, barrier, converted.out, consent, with_locks, results))
    told = [one for path in results.iterdir() for one in json.loads(path.read_text())]
    assert {one["kind"] for one in told} <= {"SourcesReleased", "ShardFailed"}
    assert sum(one["deleted"] for one in told) <= 8
    assert run_here("delete", converted.out, "--yes").code == ExitCode.DONE
    assert sources_left(converted.made) == set()
    assert not left_aside(converted.made)
    require_told(converted.dataset, converted.made.keys, 2)
    require_whole(converted.made, converted.out, dict(converted.originals))


# --- A deletion beside whatever else ------------------------------------------------------------


def give_often(barrier: Barrier, done: Event, words: tuple[object, ...], _: int) -> None:
    """Give one command again and again; it must end as it may."""
    barrier.wait(PATIENCE_S)
    while not done.is_set():
        ended = run_here(*words)
        if ended.code not in (ExitCode.DONE, ExitCode.REFUSED):
            raise ValueError(f"{words}: {ended}")


def test_moving_and_bringing_back_at_once(make_ctrate: Make, tmp_path: Path) -> None:
    """`delete --trash`, `restore` and audits at once: each volume stays in one place, unchanged,
    and what a person brought back stays."""
    converted = convert_here(make_ctrate(12), tmp_path / "out", samples_per_shard=2)
    made, out, trash = converted.made, converted.out, tmp_path / "trash"
    contents = {path.name: path.read_bytes() for path in made.sources.values()}
    barrier, done = _PROCESSES.Barrier(4), _PROCESSES.Event()
    processes = []
    for words in (
        ("restore", out),
        ("restore", out),
        ("audit", out, "--against_sources", "--num_workers", 1),
    ):
        processes += start(1, give_often, barrier, done, words)
    barrier.wait(PATIENCE_S)
    try:
        for _ in range(6):
            moved = run_here("delete", out, "--yes", "--trash", trash, "--num_workers", 2)
            assert moved.code in (ExitCode.DONE, ExitCode.REFUSED), moved
    finally:
        done.set()
        end(processes)
    assert run_here("restore", out).code == ExitCode.DONE
    assert not left_aside(made)
    assert sources_left(made) == set(made.keys)
    assert {path.name: path.read_bytes() for path in made.sources.values()} == contents
    assert not [path for path in trash.rglob("*") if path.is_file()]
    require_whole(made, out, dict(converted.originals))


def test_repairing_while_deleting(make_ctrate: Make, tmp_path: Path) -> None:
    """A damaged shard's samples come from their sources again, whatever a deletion does beside."""
    converted = convert_here(make_ctrate(12), tmp_path / "out", samples_per_shard=2)
    made, out = converted.made, converted.out
    for shard in (1, 4):
        damaged = bytearray(converted.dataset.shard(shard).read_bytes())
        array = converted.record(shard).converted[0].array
        damaged[array.offset + array.size_bytes // 2] ^= 1
        converted.dataset.shard(shard).write_bytes(damaged)
    deleting = [
        subprocess.Popen(command("delete", out, "--yes"), stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    repaired = run_here("verify", out, "--full", "--repair")
    codes = {process.wait(TIMEOUT_S) for process in deleting}
    assert codes <= {ExitCode.DONE, ExitCode.DAMAGE, ExitCode.REFUSED}
    assert repaired.code == ExitCode.DONE, repaired
    assert run_here("verify", out, "--full").code == ExitCode.DONE
    assert run_here("delete", out, "--yes").code == ExitCode.DONE
    assert sources_left(made) == set()
    assert not left_aside(made)
    for key, original in converted.originals.items():
        volume = ctrate_convert.Volumes(out, units="source")[key].array[:]
        assert np.array_equal(volume, expected_volume(original)), key


# --- A deletion beside a run --------------------------------------------------------------------


def recorded_keys(dataset: Dataset) -> set[str]:
    """What is in shards that have a record, as JSON and the file system alone tell."""
    keys = set()
    for path in dataset.records.glob("shard-*.json"):
        assert dataset.shard(int(path.stem.removeprefix("shard-"))).exists()
        keys |= {sample["key"] for sample in json.loads(path.read_bytes())["samples"]}
    return keys


def test_deletions_while_a_run_converts(make_ctrate: Make, tmp_path: Path) -> None:
    """`delete` again and again beside a `run`: what is gone is always in a recorded shard."""
    made, out = make_ctrate(24), tmp_path / "out"
    originals = load_originals(made)
    words = plan_words(made, out, "--samples_per_shard", 1, "--probe", 0)
    assert run_here(*words).code == ExitCode.DONE
    dataset = Dataset(out)
    dataset.prepare()
    codes: Counter[int] = Counter()
    freed_beside = 0
    with subprocess.Popen(
        command("run", out, "--num_workers", 1), stdout=subprocess.DEVNULL
    ) as converting:
        try:
            while converting.poll() is None:
                codes[run_here("delete", out, "--yes").code] += 1
                gone = set(made.keys) - sources_left(made)
                assert gone <= recorded_keys(dataset)
                freed_beside = len(gone) if converting.poll() is None else freed_beside
        finally:
            converting.kill()
    assert converting.returncode == ExitCode.DONE
    assert set(codes) <= {ExitCode.DONE, ExitCode.REFUSED}, codes
    assert freed_beside > 0, "no deletion took place while the run was at work"
    assert run_here("delete", out, "--yes").code == ExitCode.DONE
    assert sources_left(made) == set()
    require_whole(made, out, originals)
    for shard in range(24):
        done = [line.event for line in read_journal(dataset, shard) if is_done(line)]
        assert done == ["deleted"]
    assert not left_aside(made)


# --- Whatever changes before whichever call of a deletion -----------------------------------------

LOOKS: dict[str, tuple[Any, str, int]] = {
    "open": (os, "open", 0),
    "stat": (os, "stat", 0),
    "readlink": (os, "readlink", 0),
    "unlink": (os, "unlink", 0),
    "fsync": (os, "fsync", 0),
    "look": (fresh, "_look", 1),
    "rename": (let_go, "rename_if_free", 0),
}
"""The calls by which a deletion looks at files and takes them away, and where their name stands."""


@contextlib.contextmanager
def change_before_call(number: int, change: Callable[[], None]) -> Iterator[list[tuple[str, Any]]]:
    """Call ``change`` right before the ``number``-th of the `LOOKS`; yields all of them so far."""
    calls: list[tuple[str, Any]] = []
    changing = False

    def watched(kind: str, owner: Any, name: str, place: int) -> Callable[..., Any]:
        real = getattr(owner, name)

        def call(*words: Any, **more: Any) -> Any:
            nonlocal changing
            if not changing:
                if len(calls) == number:
                    changing = True
                    change()
                    changing = False
                calls.append((kind, words[place]))
            return real(*words, **more)

        return call

    with contextlib.ExitStack() as stack:
        for kind, (owner, name, place) in LOOKS.items():
            call = watched(kind, owner, name, place)
            stack.enter_context(mock.patch.object(owner, name, call))
        yield calls


@dataclasses.dataclass(frozen=True)
class Scene:
    """Two sources in one folder, and files of the same names and content outside."""

    folder: Path
    converted: Converted
    victim: Path
    outside: Path
    consent: str

    @property
    def aside(self) -> Path:
        """Where what is swapped out lies, within the data folder."""
        return self.converted.made.data_folder / "aside"

    @property
    def away(self) -> Path:
        """And out of it."""
        return self.folder / "away"

    @property
    def compared(self) -> Path:
        """The name that the victim bears while it is compared."""
        return self.victim.with_name(aside_name(self.victim.name))

    @property
    def proven(self) -> Path:
        """The name that the victim bears once it was found equal."""
        return self.victim.with_name(proven_name(self.victim.name))

    @property
    def now(self) -> Path:
        """The name that the victim bears."""
        names = (self.victim, self.compared, self.proven)
        return next(name for name in names if os.path.lexists(name))

    def delete(self) -> None:
        """What the worker does for a recorded shard."""
        converted = self.converted
        release_sources(
            Release(
                converted.dataset,
                converted.plan,
                converted.planned(),
                converted.record(),
                self.consent,
            )
        )


def set_scene(folder: Path) -> Scene:
    made = write_synthetic_ctrate(folder / "ctrate", samples=2, shape=(2, 2, 2))
    converted = convert_here(made, folder / "out")
    consent = allow_deletion(converted.dataset).name
    victim, outside = made.sources[made.keys[1]], folder / "outside"
    assert made.sources[made.keys[0]].parent == victim.parent
    shutil.copytree(victim.parent, outside)
    return Scene(folder, converted, victim, outside, consent)


def calls_of_a_deletion(folder: Path) -> tuple[Scene, list[tuple[str, Any]]]:
    """All calls where nothing changes."""
    scene = set_scene(folder)
    with change_before_call(-1, lambda: None) as calls:
        scene.delete()
    assert sources_left(scene.converted.made) == set()
    return scene, calls


def last_before_unlink(calls: list[tuple[str, Any]], call: tuple[str, Any], victim: Path) -> int:
    unlink = calls.index(("unlink", proven_name(victim.name)))
    return max(place for place in range(unlink) if calls[place] == call)


def link_to_others(scene: Scene) -> Path:
    scene.victim.parent.rename(scene.aside)
    scene.victim.parent.symlink_to(scene.outside)
    return scene.aside


def link_to_itself_elsewhere(scene: Scene) -> Path:
    """The very files, which no fingerprint tells apart, are out of the data folder now."""
    scene.victim.parent.rename(scene.away)
    scene.victim.parent.symlink_to(scene.away)
    return scene.away


@pytest.mark.parametrize("change", [link_to_others, link_to_itself_elsewhere])
def test_folder_becomes_a_link_before_every_call_of_a_deletion(
    tmp_path: Path, change: Callable[[Scene], Path]
) -> None:
    """Whichever call it precedes: nothing behind the link goes, but for what was opened before;
    with the folder back in its place the same command finishes."""
    untouched, calls = calls_of_a_deletion(tmp_path / "untouched")
    folder = untouched.victim.parent.name
    opened = last_before_unlink(calls, ("open", folder), untouched.victim)
    for number in range(len(calls)):
        scene = set_scene(tmp_path / str(number))
        before, made = digests(scene.outside), scene.converted.made
        real = scene.victim.parent
        moved: list[Path] = []
        with (
            change_before_call(number, lambda s=scene, m=moved: m.append(change(s))),  # type: ignore[misc]
            contextlib.suppress(CtrateError),
        ):
            scene.delete()
        assert digests(scene.outside) == before, number
        if number <= opened:
            assert (moved[0] / scene.victim.name).exists(), number
        real.unlink()
        moved[0].rename(real)
        assert_nothing_lost(made, scene.converted.originals, scene.converted.out)
        scene.delete()
        assert sources_left(made) == set()
        assert not left_aside(made)
        ended = {line.key for line in read_journal(scene.converted.dataset, 0) if is_done(line)}
        assert ended == set(made.keys)
        shutil.rmtree(scene.folder)


def test_folder_becomes_a_link_before_its_fsync(tmp_path: Path) -> None:
    """A folder that turned into a link after its files went does not stop a run."""
    scene = set_scene(tmp_path)
    sync_folders = gate._Releasing._sync_folders

    def turn_and_sync(releasing: Any) -> None:
        link_to_others(scene)
        sync_folders(releasing)

    with mock.patch.object(gate._Releasing, "_sync_folders", turn_and_sync):
        scene.delete()
    ended = {line.key for line in read_journal(scene.converted.dataset, 0) if is_done(line)}
    assert ended == set(scene.converted.made.keys)


def test_folder_is_away_for_a_moment(tmp_path: Path) -> None:
    """A file that was merely out of sight at its turn is not in the journal as deleted."""
    scene = set_scene(tmp_path)
    folder, turns = scene.victim.parent, 0
    real = let_go.let_go

    def move_and_let_go(*words: Any, **more: Any) -> Any:
        nonlocal turns
        turns += 1
        if turns == 2:
            folder.rename(scene.aside)
        return real(*words, **more)

    with mock.patch.object(gate, "let_go", move_and_let_go):
        scene.delete()
    scene.aside.rename(folder)
    assert scene.victim.exists()
    lines = read_journal(scene.converted.dataset, 0)
    assert scene.victim.stem not in {line.key for line in lines if is_done(line)}
    assert ("undecided", scene.victim.stem) in {(line.event, line.key) for line in lines}


def symbolic_link(scene: Scene) -> None:
    now = scene.now
    now.rename(scene.aside)
    now.symlink_to(scene.outside / scene.victim.name)


def hard_link(scene: Scene) -> None:
    now = scene.now
    now.rename(scene.aside)
    os.link(scene.outside / scene.victim.name, now)


def second_name(scene: Scene) -> None:
    os.link(scene.now, scene.aside)


def rewrite_unseen(path: Path) -> None:
    """Other bytes in place, size and mtime put back; ctime cannot be."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # it ticks with the kernel's clock
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def rewritten(scene: Scene) -> None:
    rewrite_unseen(scene.now)


@pytest.mark.parametrize("change", [symbolic_link, hard_link, second_name, rewritten])
def test_file_changes_before_every_call_of_a_deletion(
    tmp_path: Path, change: Callable[[Scene], None]
) -> None:
    """What changes before the last look at it stays, under its name, and is in no journal as
    deleted; no file outside is ever touched."""
    untouched, calls = calls_of_a_deletion(tmp_path / "untouched")
    # Its change time, by which alone a rewritten file is known, is looked at before it is renamed.
    at = untouched.compared if change is rewritten else untouched.proven
    looked = last_before_unlink(calls, ("look", at.name), untouched.victim)
    for number in range(calls.index(("unlink", untouched.proven.name)) + 1):
        scene = set_scene(tmp_path / str(number))
        before, data = digests(scene.outside), scene.victim.read_bytes()
        with change_before_call(number, lambda s=scene: change(s)):  # type: ignore[misc]
            scene.delete()
        assert digests(scene.outside) == before, number
        if change is not rewritten:
            assert scene.aside.read_bytes() == data
        if number <= looked:  # POSIX has no unlink that looks
            assert os.path.lexists(scene.victim), number
            assert not left_aside(scene.converted.made), number
            lines = read_journal(scene.converted.dataset, 0)
            assert scene.victim.stem not in {line.key for line in lines if is_done(line)}
        shutil.rmtree(scene.folder)


# --- A file that turns into a link ----------------------------------------------------------------


def swap_file_for_ever(
    barrier: Barrier, done: Event, source: Path, outside: Path, make_link: Any, _: int
) -> None:
    """A source is itself, a link of the same name to a file outside, itself, …"""
    aside = source.with_name("aside")
    barrier.wait(PATIENCE_S)
    while not done.is_set():
        try:
            source.rename(aside)
        except FileNotFoundError:  # it bears its hidden name, or is deleted
            continue
        with contextlib.suppress(FileExistsError):  # a link that was aside got this name back
            make_link(outside, source)
        with contextlib.suppress(FileNotFoundError):
            source.unlink()
        aside.rename(source)


@pytest.mark.parametrize("make_link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_file_that_turns_into_a_link_while_deleting(
    make_ctrate: Make, tmp_path: Path, make_link: Callable[..., None]
) -> None:
    """The file behind the link stays, and of the sources goes only what is in a shard."""
    converted = convert_here(make_ctrate(6), tmp_path / "out", samples_per_shard=2)
    made = converted.made
    outside = tmp_path / "precious.npz"
    source = made.sources[made.keys[2]]
    shutil.copy2(source, outside)
    data = outside.read_bytes()
    barrier, done = _PROCESSES.Barrier(2), _PROCESSES.Event()
    swapper = start(1, swap_file_for_ever, barrier, done, source, outside, make_link)
    barrier.wait(PATIENCE_S)
    try:
        codes = {run_here("delete", converted.out, "--yes").code for _ in range(6)}
    finally:
        done.set()
        end(swapper)
    assert codes <= {ExitCode.DONE, ExitCode.REFUSED}
    assert outside.read_bytes() == data
    assert sources_left(made) <= {made.keys[2]}
    # A link may have been taken aside, and found its name taken by the source that came back.
    assert all(left.samefile(outside) for left in left_aside(made))
    assert_nothing_lost(made, converted.originals, converted.out)
    require_whole(made, converted.out, dict(converted.originals))


# --- A source that is rewritten -------------------------------------------------------------------

READING: dict[str, tuple[Any, str]] = {
    "before a block": (Source, "read_into"),
    "before the fingerprint": (Source, "fingerprint"),
    "before the shard is read again": (converter, "read_shard"),
    "before the record": (converter, "create_once"),
    "before the merge": (worker, "merge_when_due"),
    "before the deletion": (worker, "release_sources"),
    "before a box is compared": (comparer._Elements, "take"),
    "before the end is compared": (comparer._Elements, "finish"),
    **LETTING_GO,
}


def convert_watched(
    where: str, turn: int, reached: Event, go_on: Event, out: Path, consent: str, results: Path,
    _: int,
) -> None:  # fmt: skip
    with hold_before(*READING[where], turn, reached, go_on):
        facts = facts_of(Order(out, 0, "watched", consent))
    (results / "told").write_text(json.dumps(facts))


def rewrite_when_told(ready: Event, reached: Event, go_on: Event, path: Path, _: int) -> None:
    """Rewrite a file through a descriptor from before, as a mapping would, whatever its name is."""
    descriptor = os.open(path, os.O_RDWR)
    ready.set()
    if not reached.wait(PATIENCE_S):
        raise RuntimeError("the converter did not come so far")
    rewrite_unseen(Path(f"/proc/self/fd/{descriptor}"))
    go_on.set()


@pytest.mark.parametrize("kind", ["data", "nii.gz"])
@pytest.mark.parametrize(
    ("where", "turn"),
    [
        ("before a block", 1),
        ("before a block", 2),
        ("before a block", 3),
        ("before the fingerprint", 1),
        ("before the shard is read again", 1),
        ("before the record", 1),
        ("before the merge", 1),
        ("before the deletion", 1),
        ("before it looks at the source", 1),
        ("before it renames it", 1),
        ("before it opens it", 1),
        ("before it compares it", 1),
        ("before a box is compared", 1),
        ("before a box is compared", 6),
        ("before the end is compared", 1),
        ("before its last look", 1),
    ],
)
def test_source_rewritten_by_another_process(
    make_ctrate: Make, tmp_path: Path, where: str, turn: int, kind: Kind
) -> None:
    """Rewritten in place with size and mtime put back, from the first block up to the last look
    before it goes: the sample fails, or holds what was there before; its source stays anyway."""
    # Two blocks each, and the call that finds no third.
    made = make_ctrate(2, shape=(128, 128, 80), kinds=(kind,))
    out, results = tmp_path / "out", tmp_path / "results"
    results.mkdir()
    originals = load_originals(made)
    assert run_here(*plan_words(made, out, "--probe", 0)).code == ExitCode.DONE
    consent = allow_deletion(Dataset(out)).name
    victim, other = made.keys
    ready, reached, go_on = (_PROCESSES.Event() for _ in range(3))
    processes = start(1, rewrite_when_told, ready, reached, go_on, made.sources[victim])
    assert ready.wait(PATIENCE_S)
    processes += start(1, convert_watched, where, turn, reached, go_on, out, consent, results)
    end(processes)

    told = json.loads((results / "told").read_text())
    assert told["kind"] == "SourcesReleased"
    assert sources_left(made) == {victim}
    assert not left_aside(made)
    assert not any(made.sources[victim].read_bytes())
    found = read_dataset(out)
    assert found.keys() == ({other} if told["failed"] else {victim, other})
    assert all(same_voxels(found[key].volume, originals[key]) for key in found)
    if told["failed"]:
        assert where == "before a block"
        assert [key for key, _ in told["failed"]] == [victim]
    else:
        assert len(told["kept"]) == 1
    run_here("delete", out, "--yes")
    assert sources_left(made) == {victim}
