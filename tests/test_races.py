"""Processes that get in each other's way: nothing lost, nothing twice, nothing half done.

What changes a source while it is read is in ``test_hostile_input.py``, two deletions at once in
``test_gate.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from ctrate_convert.conversion import deletion, worker
from ctrate_convert.conversion import manifest as merger
from ctrate_convert.conversion import shard as converter
from ctrate_convert.conversion.deletion import delete_sources, is_done, read_journal
from ctrate_convert.conversion.gate import settle_unlinks, unlink_source
from ctrate_convert.conversion.manifest import load_manifest, merge
from ctrate_convert.conversion.plans import load_plans
from ctrate_convert.conversion.readback import read_shard
from ctrate_convert.conversion.worker import Order, ShardDone
from ctrate_convert.durable import PartialFile
from ctrate_convert.errors import EnvironmentProblem, ExitCode
from ctrate_convert.paths import Dataset
from ctrate_convert.sources.npz import SourceVolume
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from tests.support import (
    TIMEOUT_S,
    Array,
    Converted,
    assert_nothing_lost,
    command,
    convert_here,
    expected_volume,
    load_originals,
    made_again,
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
    assert dataset.manifest.read_bytes() == made_again(expected)
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
    moment: str, reached: Event, go_on: Event, out: Path, results: Path, _: int
) -> None:
    with without_locks(), hold_before(*MOMENTS[moment], reached, go_on):
        ended = carry_out(Order(out, 0, "late", "the late one"))
    facts: dict[str, Any] = {
        "kind": type(ended).__name__,
        "error": str(getattr(ended, "error", "")),
    }
    facts["deleted"] = getattr(getattr(ended, "deletion", None), "deleted_files", 0)
    (results / "late").write_text(json.dumps(facts))


def convert_promptly(out: Path, results: Path, _: int) -> None:
    with without_locks():
        ended = carry_out(Order(out, 0, "prompt", "the prompt one"))
    (results / "prompt").write_text(type(ended).__name__)


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
    dataset.prepare()
    reached, go_on = _PROCESSES.Event(), _PROCESSES.Event()
    late = start(1, convert_late, moment, reached, go_on, out, results)
    assert reached.wait(PATIENCE_S)
    end(start(1, convert_promptly, out, results))
    published = dataset.shard(0).read_bytes(), dataset.record(0).read_bytes()
    assert (results / "prompt").read_text() == "ShardDone"
    assert sources_left(made) == set()
    go_on.set()
    end(late)

    assert (dataset.shard(0).read_bytes(), dataset.record(0).read_bytes()) == published
    require_whole(made, out, originals)
    events = Counter((e.event, e.key) for e in read_journal(dataset, 0) if is_done(e))
    assert events == {("deleted", key): 1 for key in made.keys}
    told = json.loads((results / "late").read_text())
    assert (told["kind"], told["deleted"]) == ("ShardDone", 0), told["error"]


def delete_late(reached: Event, go_on: Event, out: Path, results: Path, _: int) -> None:
    with without_locks(), hold_before(deletion, "unlink_source", 1, reached, go_on):
        ended = carry_out(Order(out, 0, "late", "the late one"))
    (results / "late").write_text(str(ended.deletion.deleted_files))  # type: ignore[attr-defined]


def test_deletion_overtaken_by_another(converted: Converted, tmp_path: Path) -> None:
    """Of two deletions at one shard without locks, only the one that deleted a file says so."""
    results = tmp_path / "results"
    results.mkdir()
    converted.dataset.prepare()
    reached, go_on = _PROCESSES.Event(), _PROCESSES.Event()
    late = start(1, delete_late, reached, go_on, converted.out, results)
    assert reached.wait(PATIENCE_S)
    end(start(1, convert_promptly, converted.out, results))
    go_on.set()
    end(late)
    keys = converted.made.keys[:4]
    assert sources_left(converted.made) == set(converted.made.keys[4:])
    deleted = [e.key for e in read_journal(converted.dataset, 0) if e.event == "deleted"]
    assert sorted(deleted) == sorted(keys)
    assert (results / "late").read_text() == "0"


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


# --- Whatever changes before whichever call of a deletion -----------------------------------------

LOOKS = ("open", "stat", "readlink", "unlink", "fsync")
"""The calls by which a deletion looks at files and takes them away."""


@contextlib.contextmanager
def change_before_call(number: int, change: Callable[[], None]) -> Iterator[list[tuple[str, Any]]]:
    """Call ``change`` right before the ``number``-th of the `LOOKS`; yields all of them so far."""
    calls: list[tuple[str, Any]] = []
    changing = False

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*words: Any, **more: Any) -> Any:
            nonlocal changing
            if not changing:
                if len(calls) == number:
                    changing = True
                    change()
                    changing = False
                calls.append((name, words[0]))
            return real(*words, **more)

        return call

    with contextlib.ExitStack() as stack:
        for name in LOOKS:
            stack.enter_context(mock.patch.object(os, name, watched(name)))
        yield calls


@dataclasses.dataclass(frozen=True)
class Scene:
    """Two sources in one folder, and files of the same names and content outside."""

    folder: Path
    converted: Converted
    victim: Path
    outside: Path

    @property
    def aside(self) -> Path:
        """Where what is swapped out lies, within the data folder."""
        return self.converted.made.data_folder / "aside"

    @property
    def away(self) -> Path:
        """And out of it."""
        return self.folder / "away"

    def delete(self) -> None:
        """What the worker does for a recorded shard."""
        converted, manifest = self.converted, load_manifest(self.converted.dataset)
        assert manifest is not None
        record = converted.record()
        read_back = read_shard(converted.dataset.shard(0), record.converted, "webdataset")
        delete_sources(
            converted.dataset,
            converted.plan,
            converted.planned(),
            record,
            read_back,
            manifest,
            "the race",
        )


def set_scene(folder: Path) -> Scene:
    made = write_synthetic_ctrate(folder / "ctrate", samples=2, shape=(2, 2, 2))
    converted = convert_here(made, folder / "out")
    converted.dataset.prepare()
    victim, outside = made.sources[made.keys[1]], folder / "outside"
    assert made.sources[made.keys[0]].parent == victim.parent
    shutil.copytree(victim.parent, outside)
    return Scene(folder, converted, victim, outside)


def calls_of_a_deletion(folder: Path) -> tuple[Scene, list[tuple[str, Any]]]:
    """All calls where nothing changes."""
    scene = set_scene(folder)
    with change_before_call(-1, lambda: None) as calls:
        scene.delete()
    assert sources_left(scene.converted.made) == set()
    return scene, calls


def last_before_unlink(calls: list[tuple[str, Any]], call: tuple[str, Any], victim: Path) -> int:
    unlink = calls.index(("unlink", victim.name))
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
            contextlib.suppress(EnvironmentProblem),
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
        ended = {line.key for line in read_journal(scene.converted.dataset, 0) if is_done(line)}
        assert ended == set(made.keys)
        shutil.rmtree(scene.folder)


def test_folder_becomes_a_link_before_its_fsync(tmp_path: Path) -> None:
    """A folder that turned into a link after its files went does not stop a run."""
    scene = set_scene(tmp_path)

    def turn_and_settle(proofs: Any) -> None:
        link_to_others(scene)
        settle_unlinks(proofs)

    with mock.patch.object(deletion, "settle_unlinks", turn_and_settle):
        scene.delete()
    ended = {line.key for line in read_journal(scene.converted.dataset, 0) if is_done(line)}
    assert ended == set(scene.converted.made.keys)


def test_folder_is_away_for_a_moment(tmp_path: Path) -> None:
    """A file that was merely out of sight at its turn is not in the journal as deleted."""
    scene = set_scene(tmp_path)
    folder, turns = scene.victim.parent, 0

    def move_and_unlink(*words: Any) -> str | None:
        nonlocal turns
        turns += 1
        if turns == 2:
            folder.rename(scene.aside)
        return unlink_source(*words)

    with mock.patch.object(deletion, "unlink_source", move_and_unlink):
        scene.delete()
    scene.aside.rename(folder)
    assert scene.victim.exists()
    lines = read_journal(scene.converted.dataset, 0)
    assert ("deleted", scene.victim.stem) not in {(line.event, line.key) for line in lines}


def symbolic_link(scene: Scene) -> None:
    scene.victim.rename(scene.aside)
    scene.victim.symlink_to(scene.outside / scene.victim.name)


def hard_link(scene: Scene) -> None:
    scene.victim.rename(scene.aside)
    os.link(scene.outside / scene.victim.name, scene.victim)


def second_name(scene: Scene) -> None:
    os.link(scene.victim, scene.aside)


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
    rewrite_unseen(scene.victim)


@pytest.mark.parametrize("change", [symbolic_link, hard_link, second_name, rewritten])
def test_file_changes_before_every_call_of_a_deletion(
    tmp_path: Path, change: Callable[[Scene], None]
) -> None:
    """What changes before the last look at it stays and is in no journal as deleted; no file
    outside is ever touched."""
    untouched, calls = calls_of_a_deletion(tmp_path / "untouched")
    victim = untouched.victim
    looked = last_before_unlink(calls, ("stat", victim.name), victim)
    for number in range(calls.index(("unlink", victim.name)) + 1):
        scene = set_scene(tmp_path / str(number))
        before, data = digests(scene.outside), scene.victim.read_bytes()
        with change_before_call(number, lambda s=scene: change(s)):  # type: ignore[misc]
            scene.delete()
        assert digests(scene.outside) == before, number
        if change is not rewritten:
            assert scene.aside.read_bytes() == data
        if number <= looked:  # POSIX has no unlink that looks
            assert os.path.lexists(scene.victim), number
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
    with contextlib.suppress(FileNotFoundError):  # once it is deleted there is none to swap
        while not done.is_set():
            source.rename(aside)
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
    assert_nothing_lost(made, converted.originals, converted.out)
    require_whole(made, converted.out, dict(converted.originals))


# --- A source that is rewritten -------------------------------------------------------------------

READING: dict[str, tuple[Any, str]] = {
    "before a block": (SourceVolume, "read_into"),
    "before the fingerprint": (SourceVolume, "fingerprint"),
    "before the shard is read again": (converter, "read_shard"),
    "before the record": (converter, "create_once"),
    "before the merge": (worker, "merge"),
    "before the deletion": (worker, "delete_sources"),
}


def convert_watched(
    where: str, turn: int, reached: Event, go_on: Event, out: Path, results: Path, _: int
) -> None:
    with hold_before(*READING[where], turn, reached, go_on):
        ended = carry_out(Order(out, 0, "watched", "the race"))
    facts = {"kind": type(ended).__name__, "failed": getattr(ended, "failed", None)}
    facts["kept"] = [kept.reason for kept in ended.deletion.kept]  # type: ignore[attr-defined]
    (results / "told").write_text(json.dumps(facts))


def rewrite_when_told(reached: Event, go_on: Event, path: Path, _: int) -> None:
    if not reached.wait(PATIENCE_S):
        raise RuntimeError("the converter did not come so far")
    rewrite_unseen(path)
    go_on.set()


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
    ],
)
def test_source_rewritten_by_another_process(
    make_ctrate: Make, tmp_path: Path, where: str, turn: int
) -> None:
    """Rewritten in place with size and mtime put back, from the first block up to the deletion:
    the sample fails, or holds what was there before; its source stays either way."""
    # Two blocks each, and the call that finds no third.
    made = make_ctrate(2, shape=(128, 128, 80), kinds=("data",))
    out, results = tmp_path / "out", tmp_path / "results"
    results.mkdir()
    originals = load_originals(made)
    assert run_here(*plan_words(made, out, "--probe", 0)).code == ExitCode.DONE
    Dataset(out).prepare()
    victim, other = made.keys
    reached, go_on = _PROCESSES.Event(), _PROCESSES.Event()
    processes = start(1, convert_watched, where, turn, reached, go_on, out, results)
    processes += start(1, rewrite_when_told, reached, go_on, made.sources[victim])
    end(processes)

    told = json.loads((results / "told").read_text())
    assert told["kind"] == "ShardDone"
    assert sources_left(made) == {victim}
    assert not any(made.sources[victim].read_bytes())
    found = read_dataset(out)
    assert found.keys() == ({other} if told["failed"] else {victim, other})
    assert all(same_voxels(found[key].volume, originals[key]) for key in found)
    if told["failed"]:
        assert where == "before a block"
        assert [key for key, _ in told["failed"]] == [victim]
    else:
        assert len(told["kept"]) == 1
        assert "it is not the file that was read any more (ctime_ns " in told["kept"][0]
    run_here("delete", out, "--yes")
    assert sources_left(made) == {victim}
