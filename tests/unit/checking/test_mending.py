"""A damaged plan, record or list costs only what it describes, and is mended from what is sound."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert import DamagedShardWarning, Volumes, open_dataset
from ctrate_convert.checking.mending.rebuild import NOT_IN_THE_SHARD
from ctrate_convert.errors import ExitCode, RefusedError
from ctrate_convert.shards.shard import convert_shard
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.locks import Hold, locked
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.record import ShardRecord
from ctrate_convert.store.set_aside import records_set_aside, shards_set_aside
from ctrate_convert.synthetic import SyntheticCtRate
from tests.one_process import hidden
from tests.promises.faults.laid import finished
from tests.promises.test_corruption import BAD, flip
from tests.support import (
    Converted,
    Finished,
    assert_finished,
    convert_here,
    convert_words,
    load_originals,
    needs,
    plan_words,
    read_shard_file,
    run_here,
    same_voxels,
    sources_left,
)

RECORD = "shard-000000.json"
COPIES = ("plan.json", "plan.copy.json")
FLIPS = 40


def commands(out: Path) -> dict[str, list[object]]:
    """Every command that looks at all shards, and changes none."""
    return {
        "run": ["run", out],
        "status": ["status", out],
        "merge": ["merge", out],
        "report": ["report", out],
        "delete": ["delete", out, "--dry_run"],
        "verify": ["verify", out],
    }


def mend(out: Path) -> Finished:
    return run_here("verify", out, "--full", "--repair")


def broken(path: Path) -> None:
    """Cut the file where a crash of its disk might."""
    os.truncate(path, path.stat().st_size // 2)


# --- The plan -------------------------------------------------------------------------------------


def test_every_generation_is_published_with_two_equal_files(converted: Converted) -> None:
    """``plan.json`` and its copy are equal byte for byte, also of a repair's generation."""
    flip(converted.out / BAD, 700)
    assert mend(converted.out).code == ExitCode.DONE
    plans = load_plans(converted.dataset)
    assert len(plans) == 2
    for plan in plans:
        one, other = (converted.dataset.plan(plan.generation) / name for name in COPIES)
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("damage", [broken, Path.unlink], ids=["cut", "missing"])
def test_every_command_goes_on_with_the_sound_copy(
    converted: Converted, damage: Callable[[Path], None]
) -> None:
    """Without ``plan.json`` each command does its work, names the file and exits with 3."""
    path = converted.dataset.plan(0) / COPIES[0]
    whole = path.read_bytes()
    damage(path)
    assert load_plans(converted.dataset)[0].to_pretty_json() == whole
    for name, words in commands(converted.out).items():
        done = run_here(*words)
        assert done.code == ExitCode.DAMAGE, f"{name}: {done.text}"
        assert "plans/0000/plan.json: " in done.stdout, name
        assert "--full --repair" in done.stdout, name
    assert run_here("audit", converted.out).code == ExitCode.DONE


@pytest.mark.parametrize("name", COPIES)
def test_a_damaged_plan_file_is_restored_from_the_other(converted: Converted, name: str) -> None:
    """In both directions, byte for byte; then nothing is damaged."""
    path = converted.dataset.plan(0) / name
    whole = path.read_bytes()
    broken(path)
    assert run_here("verify", converted.out).code == ExitCode.DAMAGE
    done = mend(converted.out)
    assert done.code == ExitCode.DONE, done.text
    assert f"Restored from the other copy of the plan: plans/0000/{name}" in done.stdout
    assert path.read_bytes() == whole
    assert run_here("verify", converted.out).code == ExitCode.DONE


def test_two_damaged_copies_of_a_plan_are_refused(converted: Converted) -> None:
    """The message names both files; nothing is changed."""
    for name in COPIES:
        broken(converted.dataset.plan(0) / name)
    for words in commands(converted.out).values():
        done = run_here(*words)
        assert done.code == ExitCode.DAMAGE
        assert "both copies of the plan are damaged" in done.text
        assert "plan.copy.json" in done.text


def test_an_old_generation_gets_its_missing_copy(converted: Converted) -> None:
    """A plan without a copy is no damage; verifying notes it, and a repair makes the copy."""
    first, second = (converted.dataset.plan(0) / name for name in COPIES)
    second.unlink()
    seen = run_here("verify", converted.out)
    assert seen.code == ExitCode.DONE, seen.text
    assert "Note: plans/0000: no second copy of the plan" in seen.stdout
    assert mend(converted.out).code == ExitCode.DONE
    assert second.read_bytes() == first.read_bytes()
    assert "no second copy" not in run_here("verify", converted.out).stdout


def test_two_different_plans_are_never_made_equal(converted: Converted, tmp_path: Path) -> None:
    """Where both files are sound and differ, ``plan.json`` counts and a person has to choose."""
    other = convert_here(converted.made, tmp_path / "other", samples_per_shard=8)
    copy = converted.dataset.plan(0) / COPIES[1]
    shutil.copy(other.dataset.plan(0) / COPIES[0], copy)
    forged = copy.read_bytes()
    assert "holds another plan than plan.json" in run_here("verify", converted.out).stdout
    assert mend(converted.out).code == ExitCode.DAMAGE
    assert copy.read_bytes() == forged


def test_damaged_lines_cost_their_shard_alone(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """Of two pending shards the sound one is converted; every command names the other."""
    out = tmp_path / "out"
    assert run_here(*plan_words(ctrate, out, "--samples_per_shard", 4, "--probe", 0)).code == 0
    plan = load_plans(Dataset(out))[0]
    flip(Dataset(out).plan(0) / "samples.jsonl", plan.shards[0].lines_size_bytes // 2)
    done = run_here("run", out)
    assert done.code == ExitCode.DAMAGE, done.text
    assert "Converted 4 samples" in done.stdout
    for name, words in commands(out).items():
        done = run_here(*words)
        assert done.code == ExitCode.DAMAGE, f"{name}: {done.text}"
        assert f"the lines of {BAD}" in done.stdout, name
    assert "4 converted + 0 failed + 4 pending" in run_here("merge", out).stdout
    assert len(Volumes(out)) == 4


def test_a_damaged_list_of_exclusions_stops_nothing(converted: Converted) -> None:
    """What is left out is not known any more; all else goes on and the list is named."""
    (converted.dataset.plan(0) / "excluded.jsonl").write_bytes(b"{}\n")
    for name, words in commands(converted.out).items():
        done = run_here(*words)
        assert done.code == ExitCode.DAMAGE, f"{name}: {done.text}"
        assert "plans/0000/excluded.jsonl: " in done.stdout, name
    assert "deletable" in run_here("delete", converted.out, "--dry_run").stdout


# --- Records --------------------------------------------------------------------------------------


def test_a_damaged_record_costs_its_shard_alone(converted: Converted) -> None:
    """Every command goes on with the other shard, names the damaged record, and exits with 3."""
    broken(converted.dataset.record(0))
    hit = {sample.key for sample in converted.record(1).converted}
    for name, words in commands(converted.out).items():
        done = run_here(*words)
        assert done.code == ExitCode.DAMAGE, f"{name}: {done.text}"
        assert RECORD in done.stdout, name
        assert "--full --repair" in done.stdout, name
    audit = run_here("audit", converted.out)
    assert audit.code == ExitCode.DAMAGE
    assert RECORD in audit.stdout
    with pytest.warns(DamagedShardWarning, match=BAD):
        volumes = Volumes(converted.out)
    assert set(volumes) == hit
    assert volumes.damaged.keys() == {BAD}
    report = run_here("report", converted.out, "--json").json()
    assert [shard["shard"] for shard in report["shards"]] == [1]
    status = run_here("status", converted.out, "--json").json()
    assert [task["state"] for task in status["tasks"]] == ["unknown", "done"]
    states = ("converted", "failed", "pending", "excluded")
    assert [status["samples"][state] for state in states] == [4, 0, 4, 1]


def test_deletion_goes_on_with_the_other_shards(converted: Converted) -> None:
    """The sources of the sound shard go; those of the damaged record stay, with the reason."""
    keys = {sample.key for sample in converted.record(0).converted}
    broken(converted.dataset.record(0))
    done = run_here("delete", converted.out, "--yes")
    assert done.code == ExitCode.DAMAGE, done.text
    assert sources_left(converted.made) == keys
    assert done.stdout.count(f"the record of {BAD} is damaged") == len(keys)


@pytest.mark.parametrize("which", ["record", "plan"])
def test_a_flip_anywhere_stops_nothing(converted: Converted, which: str) -> None:
    """Wherever a byte of a record or of ``plan.json`` changes, the rest is done and read."""
    is_record = which == "record"
    path = converted.dataset.record(0) if is_record else converted.dataset.plan(0) / COPIES[0]
    others = {sample.key for sample in converted.record(1).converted}
    words = commands(converted.out)
    size_bytes = path.stat().st_size
    for place in range(0, size_bytes, -(-size_bytes // FLIPS)):
        flip(path, place)
        for name in ("run", "status", "verify", "delete"):
            done = run_here(*words[name])
            assert done.code == ExitCode.DAMAGE, f"{name}, byte {place}: {done.text}"
            assert path.name in done.stdout, f"{name}, byte {place}: {done.text}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DamagedShardWarning)
            volumes = Volumes(converted.out)
        assert others <= set(volumes)
        assert list(volumes.damaged) == ([BAD] if is_record else [])
        flip(path, place)
    assert run_here("verify", converted.out).code == ExitCode.DONE


def fields_of(record: ShardRecord) -> dict[str, Any]:
    """What a rebuilt record and the first one must have in common."""
    fields = json.loads(record.to_json())
    for name in ("worker", "started", "elapsed_s", "cpu_s"):
        del fields[name]
    for sample in fields["samples"]:
        if sample["state"] == "converted":
            sample["source"].update(ctime_ns=0, inode=0)
    return dict(fields)


@pytest.mark.parametrize(
    "settings",
    [
        {"encoding": "npy"},
        {"encoding": "npy.gz"},
        {"encoding": "b2nd"},
        {"layout": "ctclip"},
        {"dtype": "int16", "step": 0.001},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
@pytest.mark.parametrize("damage", [broken, Path.unlink], ids=["cut", "missing"])
def test_a_record_is_rebuilt_from_its_shard(
    ctrate: SyntheticCtRate,
    tmp_path: Path,
    settings: dict[str, Any],
    damage: Callable[[Path], None],
) -> None:
    """It says what the first one said, but for what only the source's own inode knew."""
    converted = convert_here(ctrate, tmp_path / "out", samples_per_shard=4, **settings)
    before = converted.record(0)
    damage(converted.dataset.record(0))
    done = mend(converted.out)
    assert done.code == ExitCode.DONE, done.text
    assert f"Rebuilt from its shard: {RECORD}" in done.stdout
    after = converted.record(0)
    assert fields_of(after) == fields_of(before)
    assert after.worker.pid == os.getpid()
    asides = records_set_aside(converted.dataset)
    assert len(asides) == (damage is broken)
    seen = run_here("verify", converted.out, "--full")
    assert seen.code == ExitCode.DONE, seen.text
    assert len(asides) == seen.stdout.count("a damaged record that was rebuilt from its shard")
    volumes = Volumes(converted.out)
    assert set(volumes) == set(converted.originals)
    assert len(list(open_dataset(converted.out))) == len(volumes)


def test_a_rebuilt_record_fails_what_the_shard_does_not_hold(
    make_ctrate: Callable[..., SyntheticCtRate], tmp_path: Path
) -> None:
    """A planned sample without members is failed, with a reason of its own."""
    made = make_ctrate(4, faults=("corrupt",))
    converted = convert_here(made, tmp_path / "out", samples_per_shard=4)
    before = converted.record(0)
    assert len(before.failed) == 1
    broken(converted.dataset.record(0))
    done = mend(converted.out)
    assert done.code == ExitCode.DONE, done.text
    after = converted.record(0)
    assert [one.key for one in after.failed] == [one.key for one in before.failed]
    assert after.failed[0].reason == NOT_IN_THE_SHARD
    assert [one.key for one in after.converted] == [one.key for one in before.converted]


def test_a_record_with_other_facts_is_rebuilt(converted: Converted) -> None:
    """The manifest tells that a valid record was changed; the shard tells what it said before."""
    before = converted.record(0)
    path = converted.dataset.record(0)
    path.write_bytes(path.read_bytes().replace(b'"nan_count":0', b'"nan_count":7', 1))
    assert run_here("verify", converted.out).code == ExitCode.DAMAGE
    assert mend(converted.out).code == ExitCode.DONE
    assert fields_of(converted.record(0)) == fields_of(before)
    assert run_here("verify", converted.out, "--full").code == ExitCode.DONE


@pytest.mark.parametrize("place", [700, -1], ids=["in a member", "behind the last"])
def test_no_record_is_rebuilt_from_a_damaged_shard(converted: Converted, place: int) -> None:
    """A shard that is not the manifest's has no record made for it; both stay as they are."""
    path = converted.dataset.record(0)
    broken(path)
    cut = path.read_bytes()
    shard = converted.out / BAD
    flip(shard, place % shard.stat().st_size)
    done = mend(converted.out)
    assert done.code == ExitCode.DAMAGE
    assert f"NOT rebuilt: {RECORD}: " in done.stdout
    assert path.read_bytes() == cut


def test_without_a_manifest_the_shard_is_taken_as_it_is(converted: Converted) -> None:
    """That is said; what the tar's own structure shows still keeps its record from being made."""
    path = converted.dataset.record(0)
    broken(path)
    converted.dataset.manifest.unlink()
    last = (converted.out / BAD).stat().st_size - 1
    flip(converted.out / BAD, last)
    assert mend(converted.out).code == ExitCode.DAMAGE
    flip(converted.out / BAD, last)
    converted.dataset.manifest.unlink()
    done = mend(converted.out)
    assert done.code == ExitCode.DONE
    assert f"its bytes were taken as they are: {RECORD}" in done.stdout


def test_a_stranger_is_not_taken_for_the_shard(converted: Converted, tmp_path: Path) -> None:
    """Without a manifest too, a tar with other samples than the planned ones gets no record."""
    shutil.copy(converted.out / "shard-000001.tar", converted.out / "copy")
    os.replace(converted.out / "copy", converted.out / BAD)
    converted.dataset.record(0).unlink()
    converted.dataset.manifest.unlink()
    done = mend(converted.out)
    assert done.code == ExitCode.DAMAGE
    assert "the shard holds other samples than were planned into it" in done.stdout
    assert not converted.dataset.record(0).exists()


def test_a_rebuilt_record_lets_its_sources_go_or_keeps_them(converted: Converted) -> None:
    """Whatever is deleted under a rebuilt record, no volume is lost."""
    broken(converted.dataset.record(0))
    assert mend(converted.out).code == ExitCode.DONE
    run_here("delete", converted.out, "--yes")
    volumes = Volumes(converted.out)
    assert set(volumes) == set(converted.originals)
    assert run_here("verify", converted.out, "--full").code == ExitCode.DONE


def test_an_interrupted_rebuild_goes_on(converted: Converted) -> None:
    """Killed after the damaged record went aside, or before the merge, the same command ends it."""
    before = converted.record(0)
    path = converted.dataset.record(0)
    broken(path)
    path.rename(path.with_name(".shard-000000.set-aside.00000000"))
    assert mend(converted.out).code == ExitCode.DONE
    path.write_bytes(path.read_bytes().replace(b'"cpu_s":', b'"cpu_s":1'))  # not merged yet
    assert run_here("verify", converted.out).code == ExitCode.DAMAGE
    assert mend(converted.out).code == ExitCode.DONE
    assert fields_of(converted.record(0)) == fields_of(before)
    assert run_here("verify", converted.out, "--full").code == ExitCode.DONE


def test_a_damaged_record_of_a_repair_brings_no_sample_twice(converted: Converted) -> None:
    """The manifest tells which copies a repair has made; the others are read as before."""
    flip(converted.out / BAD, 700)
    assert mend(converted.out).code == ExitCode.DONE
    path = converted.dataset.record(2)
    broken(path)
    for name, words in commands(converted.out).items():
        assert run_here(*words).code == ExitCode.DAMAGE, name
    with pytest.warns(DamagedShardWarning, match=r"shard-000002\.tar"):
        assert len(Volumes(converted.out)) == 4
    done = mend(converted.out)
    assert f"Rebuilt from its shard: {path.name}" in done.stdout
    assert set(Volumes(converted.out)) == set(converted.originals)


# --- A shard without a record ---------------------------------------------------------------------


def kill_between_link_and_record(made: SyntheticCtRate, out: Path, folder: Path) -> None:
    """A real SIGKILL where the first record would get its name; its shard has its name already."""
    needs("strace", "strace", "-o", "/dev/null", "-P", "/", "true")
    partial = out / ".run" / "records" / hidden(RECORD)
    words = convert_words(made, out, "--samples_per_shard", 4, "--probe", 0)
    strace = ["strace", "-f", "-o", folder / "strace.txt", "-P", partial, "-e", "trace=linkat"]
    kill = ["-e", "inject=linkat:signal=KILL:when=1"]
    python = [sys.executable, "-m", "tests.one_process"]
    finished([str(word) for word in (*strace, *kill, *python, *words)])
    assert "killed by SIGKILL" in (folder / "strace.txt").read_text()
    assert (out / BAD).exists() and not Dataset(out).record(0).exists()


def correct_a_source(made: SyntheticCtRate, out: Path) -> str:
    """Write other voxels into a source of the shard that has no record; returns its key."""
    key = read_shard_file(out / BAD)[0][0]
    path = made.sources[key]
    with np.load(path) as arrays:
        changed = {name: arrays[name] for name in arrays.files}
    name = next(name for name, array in changed.items() if array.ndim == 3)
    changed[name] = changed[name][::-1].copy()
    np.savez(path, **changed)
    return key


def test_a_corrected_source_after_a_kill_needs_no_hand(
    ctrate: SyntheticCtRate, tmp_path: Path
) -> None:
    """The shard without a record goes aside, kept and named, and a new one takes its name."""
    out = tmp_path / "out"
    kill_between_link_and_record(ctrate, out, tmp_path)
    left = (out / BAD).read_bytes()
    key = correct_a_source(ctrate, out)
    originals = load_originals(ctrate)
    done = run_here("run", out)
    assert done.code == ExitCode.DONE, done.text
    asides = shards_set_aside(Dataset(out))
    assert [path.read_bytes() for path in asides] == [left]
    assert all(path.name.startswith(".") and path.suffix != ".tar" for path in asides)
    assert f"Note: {asides[0].name}: a shard that an interrupted run left" in done.stdout
    assert_finished(ctrate, originals, out)
    assert same_voxels(Volumes(out)[key].array[:], originals[key])
    verified = run_here("verify", out, "--full")
    assert verified.code == ExitCode.DONE, verified.text
    assert f"Note: {asides[0].name}" in verified.stdout
    assert run_here("run", out).code == ExitCode.DONE
    assert shards_set_aside(Dataset(out)) == asides


@pytest.mark.parametrize("doubt", ["journal", "source", "lock", "link"])
def test_a_shard_that_may_be_all_there_is_keeps_its_name(
    ctrate: SyntheticCtRate, tmp_path: Path, doubt: str
) -> None:
    """A journal's line, a source that fails, no lock, or a link: refused."""
    out = tmp_path / "out"
    kill_between_link_and_record(ctrate, out, tmp_path)
    key = correct_a_source(ctrate, out)
    dataset = Dataset(out)
    if doubt == "journal":
        dataset.journal(0).write_text("something\n")
    elif doubt == "source":
        ctrate.sources[key].write_bytes(b"no NPZ")
    elif doubt == "link":
        (out / BAD).rename(tmp_path / "elsewhere.tar")
        (out / BAD).symlink_to(tmp_path / "elsewhere.tar")
    left = (out / BAD).read_bytes()
    if doubt == "lock":
        plan = load_plans(dataset)[0]
        with pytest.raises(RefusedError, match="another file has this shard's name"):
            convert_shard(dataset, plan, plan.shards[0], "test", lambda size, samples: None)
    else:
        done = run_here("run", out)
        assert done.code == ExitCode.REFUSED, done.text
        assert "another file has this shard's name, and no record tells what it is" in done.text
    assert (out / BAD).read_bytes() == left
    assert shards_set_aside(dataset) == []
    assert not dataset.record(0).exists()


def test_a_lock_tells_whether_it_keeps_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held, busy, no service, and a service that lets everybody in are told apart."""
    path = tmp_path / "lock"
    with locked(path) as mine:
        assert mine is Hold.HELD
        with locked(path, timeout_s=0) as second:
            assert second is Hold.BUSY
            assert not second
    monkeypatch.setattr("fcntl.flock", lambda descriptor, how: None)
    with locked(path) as mine:
        assert mine is Hold.NO_SERVICE
        assert mine
    with locked(path / "in no folder") as mine:
        assert mine is Hold.NO_SERVICE
