"""A shard's sources go only where shard, record, plan and journal are as they should be."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st
from pydantic import ValidationError

from ctrate_convert.deleting import gate
from ctrate_convert.deleting.compare import Comparison, Pair, compare
from ctrate_convert.deleting.outcome import Deletion
from ctrate_convert.errors import DamageError, ExitCode, RefusedError
from ctrate_convert.shards.readback import FileIdentity, read_shard
from ctrate_convert.store.durable import open_beneath
from ctrate_convert.store.journals import read_journal
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.record import SourceFingerprint
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import (
    DELETE,
    Converted,
    assert_finished,
    convert_words,
    load_originals,
    read_dataset,
    run_here,
    sources_left,
)
from tests.unit.deleting.scenes import (
    Make,
    as_read_now,
    delete,
    events,
    forge,
    given,
    kept_by_gate,
    release,
    with_first,
    with_one_voxel_changed,
)


def nothing_went(converted: Converted, shard: int = 0) -> bool:
    journal = converted.dataset.journal(shard)
    return sources_left(converted.made) == set(converted.made.keys) and not (
        journal.exists() and journal.read_text()
    )


def test_sound_shard(converted: Converted) -> None:
    """A sound shard lets go each of its sources, and no other's."""
    sizes = [converted.made.sources[key].stat().st_size for key in converted.made.keys[:4]]
    done = release(converted, given(converted).name)
    assert (done.deleted_files, done.freed_bytes, done.kept) == (4, sum(sizes), [])
    assert sources_left(converted.made) == set(converted.made.keys[4:])


# --- What speaks against a shard --------------------------------------------------------------


def test_the_manifest_decides_nothing(converted: Converted) -> None:
    """The manifest is a cache: damaged, missing or of other shards, the sources go all the same."""
    converted.dataset.manifest.write_bytes(b"{}")
    assert release(converted, given(converted).name).deleted_files == 4
    converted.dataset.manifest.unlink()
    assert release(converted, given(converted, shards=((1, 1),)).name, 1).deleted_files == 4


def test_record_of_another_plan(converted: Converted) -> None:
    """A record of another plan lets nothing go."""
    record = converted.record().model_copy(update={"plan_id": "0" * 64})
    converted.dataset.record(0).write_bytes(record.to_json())
    done = delete(converted)
    assert done.code == ExitCode.DAMAGE
    assert "record belongs to another plan or shard" in done.text
    assert sources_left(converted.made) == set(converted.made.keys[:4])


def test_plan_that_was_changed(converted: Converted) -> None:
    """A plan whose content is not what its id says lets nothing go."""
    for name in ("plan.json", "plan.copy.json"):
        path = converted.dataset.plan(0) / name
        path.write_bytes(path.read_bytes().replace(b'"created": "', b'"created": "x'))
    assert delete(converted).code == ExitCode.DAMAGE
    assert nothing_went(converted)


@pytest.mark.parametrize("place", [2000, -1])
def test_shard_that_was_changed(converted: Converted, place: int) -> None:
    """One flipped byte in a shard, within a member or outside, keeps all of its sources."""
    path = converted.dataset.shard(0)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    says = "has changed" if place > 0 else "a recorded shard has changed outside every member"
    with pytest.raises(DamageError, match=says):
        release(converted, given(converted).name)
    assert nothing_went(converted)


@pytest.mark.parametrize("change", [os.unlink, os.mkfifo, os.mkdir])
def test_shard_that_is_none(converted: Converted, change: Callable[[Path], None]) -> None:
    """A shard that is missing, or no file, keeps all of its sources."""
    path = converted.dataset.shard(0)
    path.unlink()
    if change is not os.unlink:
        change(path)
    with pytest.raises(DamageError):
        release(converted, given(converted).name)
    assert nothing_went(converted)


def test_shard_behind_a_link(converted: Converted, tmp_path: Path) -> None:
    """A shard that is a link may lead anywhere tomorrow."""
    path = converted.dataset.shard(0)
    path.rename(tmp_path / "elsewhere.tar")
    path.symlink_to(tmp_path / "elsewhere.tar")
    done = release(converted, given(converted).name)
    assert {one.reason for one in done.kept} == {
        "its shard is not the file that was compared any more"
    }
    assert sources_left(converted.made) == set(converted.made.keys)


def test_sample_that_the_plan_does_not_name(converted: Converted) -> None:
    """A record cannot let go a file that the plan does not name for its sample."""
    record, other = converted.record(), converted.record(1).converted[0].source
    forge(converted, with_first(record, source=other))
    done = delete(converted, "--json")
    key = record.converted[0].key
    assert kept_by_gate(done)[key] == "the plan does not name this source for this sample"
    assert sources_left(converted.made) == {key}


def test_member_that_is_not_there(converted: Converted) -> None:
    """Every member that a record names has to be in the shard."""
    record = converted.record()
    members = record.converted[0].members
    unseen = members[0].model_copy(update={"name": "another.txt"})
    with pytest.raises(DamageError, match=r"member another\.txt is missing"):
        release(
            converted,
            given(converted).name,
            record=with_first(record, members=(*members, unseen)),
        )
    assert nothing_went(converted)


def test_what_was_read_cannot_be_made_up(converted: Converted) -> None:
    """Only reading a shard tells what it holds."""
    found = read_shard(converted.dataset.shard(0), converted.record().converted, "webdataset")
    with pytest.raises(ValueError, match="seal"):
        dataclasses.replace(found, damage=())  # type: ignore[call-arg]
    with pytest.raises(RefusedError, match="only be told by reading it"):
        dataclasses.replace(found, damage=(), seal=object())
    with pytest.raises(TypeError):
        found.digests["another.txt"] = "0" * 64  # type: ignore[index]


def test_a_copy_that_does_not_count(converted: Converted) -> None:
    """The copy that a repair has superseded lets no source go."""
    key = converted.made.keys[0]
    done = release(converted, given(converted).name, superseded=frozenset((key,)))
    assert done.deleted_files == 3
    assert sources_left(converted.made) == {key, *converted.made.keys[4:]}


def test_a_forged_record(make_ctrate: Make, tmp_path: Path) -> None:
    """A changed source stays, also where record and manifest were made to fit it."""
    made = make_ctrate(4, kinds=("data",))
    out = tmp_path / "out"
    assert run_here(*convert_words(made, out)).code == ExitCode.DONE
    converted = Converted(made, Dataset(out), {})
    with_one_voxel_changed(made.sources[made.keys[0]])
    forge(converted, as_read_now(converted.record(), made))
    done = delete(converted)
    assert done.code == ExitCode.REFUSED
    assert "its shard does not hold it: 1 of 120 voxels differ from the shard's" in done.text
    assert sources_left(made) == {made.keys[0]}


def test_a_shard_that_was_just_verified(converted: Converted) -> None:
    """What this run has read from storage is not read whole again, but only that very file."""
    path = converted.dataset.shard(0)
    verified = FileIdentity.of(path.stat())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamageError, match="has changed outside every member"):
        release(converted, given(converted).name, verified=verified)
    assert nothing_went(converted)


# --- While it compares ------------------------------------------------------------------------


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def replace_by_a_copy(path: Path) -> None:
    shutil.copy2(path, path.with_name("new"))
    path.with_name("new").rename(path)


def append_to(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


@pytest.mark.parametrize("change", [os.unlink, os.utime, append_to, replace_by_a_copy, rewrite])
def test_shard_changes_meanwhile(
    converted: Converted, change: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that is not the very file that was compared any more keeps its sources."""
    real = compare

    def changing(pair: Pair) -> Comparison:
        found = real(pair)
        change(converted.dataset.shard(0))
        return found

    monkeypatch.setattr(gate, "compare", changing)
    done = release(converted, given(converted).name)
    assert done.deleted_files == 0
    assert done.kept[0].reason.startswith("its shard ")
    assert sources_left(converted.made) == set(converted.made.keys)
    assert set(events(converted).values()) <= {"undecided", "kept"}


def test_source_changes_before_its_turn(converted: Converted) -> None:
    """In the middle of a shard's deletions each file is looked at by itself."""
    victim = converted.made.sources[converted.made.keys[2]]
    turn = iter(range(1000))

    def change_once() -> None:
        if next(turn) == 1:
            append_to(victim)

    done = release(converted, given(converted).name, check_stop=change_once)
    assert done.deleted_files == 3
    assert [entry.key for entry in done.kept] == [converted.made.keys[2]]
    assert victim.exists()
    expected = dict.fromkeys(converted.made.keys[:4], "deleted")
    assert events(converted) == {**expected, converted.made.keys[2]: "kept"}


# --- Paths ------------------------------------------------------------------------------------


def fingerprint_of(path: str) -> SourceFingerprint:
    return SourceFingerprint(source=path, size_bytes=0, mtime_ns=0, ctime_ns=0, inode=0)


def test_folder_turned_into_a_link(make_ctrate: Make, tmp_path: Path) -> None:
    """No link below the data folder is followed, not even to the file that was read."""
    made = make_ctrate(4, layout="nested")
    out = tmp_path / "out"
    assert run_here(*convert_words(made, out)).code == ExitCode.DONE
    folder = made.sources[made.keys[0]].parent
    elsewhere = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(elsewhere)
    there = sorted(elsewhere.iterdir())
    done = delete(Converted(made, Dataset(out), {}))
    assert done.code == ExitCode.REFUSED
    assert "the folder that it is in cannot be seen now" in done.text
    assert sorted(elsewhere.iterdir()) == there


@pytest.mark.parametrize(
    "path",
    ["../tables.csv", "a/../../b", "/etc/passwd", "a//b", "./a", "a/.", "..", "", "a\n/../b"],
)
def test_path_that_leads_elsewhere(path: str) -> None:
    """A path that leads out of the data folder is no valid record."""
    with pytest.raises(ValidationError):
        fingerprint_of(path)


@hypothesis_given(st.text("./a\n\\ ", min_size=1, max_size=12))
def test_no_path_leads_out_of_the_folder(path: str) -> None:
    """A path that a record may hold stays beneath its folder; any other opens nothing."""
    try:
        fingerprint_of(path)
    except ValidationError:
        with pytest.raises((ValueError, OSError)), open_beneath(Path("/nowhere"), path):
            pass
        return
    assert os.path.normpath(path) == path
    assert not path.startswith(("/", "../"))


def test_data_folder_within_the_dataset(make_ctrate: Make) -> None:
    """Sources that lie in the dataset directory are converted and never deleted."""
    made = make_ctrate(4)
    out = made.data_folder.parent
    done = run_here(*convert_words(made, out, *DELETE))
    assert done.code == ExitCode.REFUSED
    assert "it lies in the dataset directory" in done.text
    assert "4 files were NOT deleted." in done.text
    assert sources_left(made) == set(made.keys)
    assert len(read_dataset(out)) == 4


def test_dataset_within_the_data_folder(make_ctrate: Make) -> None:
    """The dataset directory may lie in the data folder; its own files are no sources."""
    made = make_ctrate(4)
    originals = load_originals(made)
    out = made.data_folder / "shards"
    assert run_here(*convert_words(made, out, *DELETE)).code == ExitCode.DONE
    assert not sources_left(made)
    assert_finished(made, originals, out)


def moved_to(made: SyntheticCtRate, folder: Path) -> SyntheticCtRate:
    folder.mkdir()
    moved = {key: path.rename(folder / path.name) for key, path in made.sources.items()}
    return dataclasses.replace(made, sources=moved)


@pytest.mark.parametrize("name", ['it\'s "odd"\n$(here) ünïcode', "x" * 255, "-rf", "a.leaving"])
def test_odd_folder_names(make_ctrate: Make, tmp_path: Path, name: str) -> None:
    """Blanks, quotes, line ends and length in a folder's name do no harm."""
    made = make_ctrate(4)
    originals = load_originals(made)
    made = moved_to(made, made.data_folder / name)
    assert run_here(*convert_words(made, tmp_path / "out", *DELETE)).code == ExitCode.DONE
    assert not sources_left(made)
    assert_finished(made, originals, tmp_path / "out")


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("when", [0, 1, 2, 3])
def test_a_gate_within_a_gate(
    converted: Converted, when: int, locks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a second gate comes in, with and without locks, no source goes twice or unseen."""
    name = given(converted).name
    turn = iter(range(1000))
    inner: list[Deletion] = []

    def second() -> None:
        if next(turn) == when:
            inner.append(release(converted, name))

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if not locks:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    done = release(converted, name, check_stop=second)
    again = release(converted, name)
    assert sources_left(converted.made) == set(converted.made.keys[4:])
    assert not [path for path in converted.made.data_folder.iterdir() if path.name[0] == "."]
    ended = [e.key for e in read_journal(converted.dataset, 0) if e.event == "deleted"]
    assert sorted(ended) == sorted(converted.made.keys[:4])
    assert sum(one.deleted_files for one in (done, *inner, again)) == 4
