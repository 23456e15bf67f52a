"""Whatever is wrong with a dataset is found, named, and keeps the sources that it concerns."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert.checking.verify import verify
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import load_plans
from tests.support import (
    Converted,
    expected_volume,
    made_again,
    read_dataset,
    run_here,
    same_voxels,
    sources_left,
)

BAD, GOOD = "shard-000000.tar", "shard-000001.tar"

Damage = Callable[[Converted], None]


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ 0x01]))


def members(converted: Converted) -> list[tarfile.TarInfo]:
    with tarfile.open(converted.out / BAD) as archive:
        return archive.getmembers()


def member(converted: Converted, extension: str) -> tarfile.TarInfo:
    """The second sample's member of that kind."""
    found = [info for info in members(converted) if info.name.partition(".")[2] == extension]
    return found[1]


def record_path(converted: Converted, shard: int = 0) -> Path:
    return converted.dataset.record(shard)


def edit_record(converted: Converted, change: Callable[[dict[str, Any]], None]) -> None:
    path = record_path(converted)
    fields = json.loads(path.read_bytes())
    change(fields)
    path.write_text(json.dumps(fields, separators=(",", ":")))


# --- What can happen to a shard ---------------------------------------------------------------


def flip_in_array(converted: Converted) -> None:
    info = member(converted, "volume.npy")
    flip(converted.out / BAD, info.offset_data + info.size - 3)


def flip_in_array_header(converted: Converted) -> None:
    data = (converted.out / BAD).read_bytes()
    start = member(converted, "volume.npy").offset_data
    flip(converted.out / BAD, data.index(b"6, 5, 4" if b"6, 5, 4" in data else b"4, 6, 5", start))


def flip_in_json(converted: Converted) -> None:
    flip(converted.out / BAD, member(converted, "json").offset_data + 20)


def flip_in_labels(converted: Converted) -> None:
    info = member(converted, "labels.npy")
    flip(converted.out / BAD, info.offset_data + info.size - 1)


def flip_in_report(converted: Converted) -> None:
    flip(converted.out / BAD, member(converted, "report.txt").offset_data + 5)


def flip_in_name(converted: Converted) -> None:
    flip(converted.out / BAD, member(converted, "json").offset + 3)


def flip_in_padding(converted: Converted) -> None:
    info = member(converted, "report.txt")
    assert info.size % 512
    flip(converted.out / BAD, info.offset_data + info.size + 1)


def flip_after_the_end(converted: Converted) -> None:
    flip(converted.out / BAD, (converted.out / BAD).stat().st_size - 1)


def cut_at_a_member(converted: Converted) -> None:
    os.truncate(converted.out / BAD, member(converted, "volume.npy").offset)


def cut_within_a_member(converted: Converted) -> None:
    os.truncate(converted.out / BAD, member(converted, "json").offset_data + 100)


def cut_to_nothing(converted: Converted) -> None:
    os.truncate(converted.out / BAD, 0)


def zero_a_block(converted: Converted) -> None:
    with (converted.out / BAD).open("r+b") as stream:
        stream.seek(member(converted, "json").offset_data)
        stream.write(bytes(512))


def swap_two_shards(converted: Converted) -> None:
    one, other = converted.out / BAD, converted.out / GOOD
    aside = converted.out / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def swap_two_samples(converted: Converted) -> None:
    """The arrays of two samples of one type, exchanged: a well-formed tar of the same size."""
    path = converted.out / BAD
    arrays = [info for info in members(converted) if info.name.endswith("volume.npy")]
    one = arrays[0]
    other = next(info for info in arrays[1:] if info.size == one.size)
    data = bytearray(path.read_bytes())
    first = slice(one.offset_data, one.offset_data + one.size)
    second = slice(other.offset_data, other.offset_data + other.size)
    data[first], data[second] = data[second], data[first]
    path.write_bytes(data)


def add_a_member(converted: Converted) -> None:
    with tarfile.open(converted.out / BAD, "a", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("train_1_z_1.json"), io.BytesIO())


def remove_the_shard(converted: Converted) -> None:
    (converted.out / BAD).unlink()


def replace_the_shard_by_a_folder(converted: Converted) -> None:
    (converted.out / BAD).unlink()
    (converted.out / BAD).mkdir()


OUTSIDE = "has changed outside every member"

SHARD_DAMAGE: list[tuple[Damage, str, str]] = [
    (flip_in_array, ".volume.npy has changed (bytes ", "has changed"),
    (flip_in_array_header, ".volume.npy ", ".volume.npy"),
    (flip_in_json, ".json has changed (bytes ", "has changed"),
    (flip_in_labels, ".labels.npy has changed (bytes ", "has changed"),
    (flip_in_report, ".report.txt has changed (bytes ", "has changed"),
    (flip_in_name, ".json is missing", "is missing"),
    (flip_in_padding, OUTSIDE, OUTSIDE),
    (flip_after_the_end, OUTSIDE, OUTSIDE),
    (cut_at_a_member, ".volume.npy is missing", "is missing"),
    (cut_within_a_member, "tar structure is damaged: unexpected end", "unexpected end of data"),
    (cut_to_nothing, "has 0 bytes, expected ", "damaged"),
    (zero_a_block, ".json has changed (bytes ", "has changed"),
    (swap_two_shards, "members that no record knows", "members that no record knows"),
    (swap_two_samples, ".volume.npy has changed (bytes ", ".volume.npy"),
    (add_a_member, "1 members that no record knows, first train_1_z_1.json", "no record knows"),
    (remove_the_shard, "cannot be seen: No such file or directory", "cannot be read"),
    (replace_the_shard_by_a_folder, BAD, BAD),
]


def name_of(value: object) -> str | None:
    return getattr(value, "__name__", None)


@pytest.mark.parametrize(("damage", "found", "refused"), SHARD_DAMAGE, ids=name_of)
def test_damaged_shard(converted: Converted, damage: Damage, found: str, refused: str) -> None:
    """A damaged shard is named with what is wrong, and none of its sources can be deleted."""
    damage(converted)
    seen = run_here("verify", converted.out, "--full")
    assert seen.code == ExitCode.DAMAGE
    assert "DAMAGE, " in seen.stdout
    assert f"  {BAD}" in seen.stdout
    assert found in seen.stdout

    deleted = run_here("delete", converted.out, "--yes")
    assert deleted.code == ExitCode.DAMAGE
    assert refused in deleted.text
    hit = {sample.key for sample in converted.record(0).samples}
    spared = {sample.key for sample in converted.record(1).samples}
    if damage is swap_two_shards:
        hit, spared = hit | spared, set()
    assert sources_left(converted.made) == hit


def test_undamaged_dataset(converted: Converted) -> None:
    """A sound dataset verifies clean, whole and in part, with and without its sources."""
    full = run_here("verify", converted.out, "--full")
    assert full.code == ExitCode.DONE
    assert "2 shards with 8 samples: all present and sized as recorded, 2 read whole" in full.stdout
    assert "Compared with their sources: 8; with the recorded digests alone: 0." in full.stdout
    assert "No damage found." in full.stdout

    precise = run_here("verify", converted.out, "--num_samples", 8, "--check_precision", "--json")
    assert precise.code == ExitCode.DONE
    for sample in precise.json()["precision"]:
        assert sample["max_abs_error"] == pytest.approx(sample["recorded_max_abs_error"])

    shutil.rmtree(converted.made.data_folder)
    alone = run_here("verify", converted.out, "--full")
    assert alone.code == ExitCode.DONE
    assert "Compared with their sources: 0; with the recorded digests alone: 8." in alone.stdout


@pytest.mark.parametrize(
    "damage", [flip_in_array, flip_in_json, flip_in_labels, flip_in_report], ids=name_of
)
def test_damage_that_samples_show(converted: Converted, damage: Damage) -> None:
    """Checking samples byte by byte finds a changed member without reading shards whole."""
    damage(converted)
    seen = run_here("verify", converted.out, "--num_samples", 100)
    assert seen.code == ExitCode.DAMAGE
    assert "has changed (bytes " in seen.stdout


@pytest.mark.parametrize("damage", [flip_in_array_header, flip_in_name], ids=name_of)
def test_damage_to_headers_that_samples_show(converted: Converted, damage: Damage) -> None:
    """So is a changed header in front of a member."""
    damage(converted)
    seen = run_here("verify", converted.out, "--num_samples", 100)
    assert seen.code == ExitCode.DAMAGE
    assert re.search(r"member \S+ has a damaged (tar|npy) header", seen.stdout)


def damage_found(converted: Converted, *, whole: bool = True) -> list[str]:
    """What a full verification in this process finds."""
    report = verify(
        converted.dataset, num_samples=0, check_precision=False, full=whole, num_workers=1
    )
    return [f"{damage.shard} {damage.what}" for damage in report.damage]


def test_cut_at_every_512_bytes(converted: Converted) -> None:
    """Wherever a shard is cut, its size and what is missing are reported."""
    path = converted.out / BAD
    whole = path.read_bytes()
    for size in range(0, len(whole), 512):
        path.write_bytes(whole[:size])
        assert any(f"has {size} bytes, expected {len(whole)}" in d for d in damage_found(converted))
    path.write_bytes(whole)
    assert damage_found(converted) == []


def test_flip_anywhere(converted: Converted) -> None:
    """Wherever a byte of a shard changes, it is found."""
    path = converted.out / BAD
    size = path.stat().st_size
    places = [*range(0, 1536), *range(1536, size, 211), size - 1]
    for place in places[:: 1 + len(places) // 300]:
        flip(path, place)
        assert damage_found(converted), f"byte {place}"
        flip(path, place)
    assert damage_found(converted) == []


# --- What can happen to records ---------------------------------------------------------------


def drop_a_record(converted: Converted) -> None:
    record_path(converted).unlink()


def cut_a_record(converted: Converted) -> None:
    os.truncate(record_path(converted), 400)


def edit_a_digest(converted: Converted) -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["samples"][1]["array"]["blake3"] = "0" * 64

    edit_record(converted, change)


def edit_a_fingerprint(converted: Converted) -> None:
    """As one would who wants another file to be deleted."""

    def change(fields: dict[str, Any]) -> None:
        fields["samples"][1]["source"]["inode"] += 1

    edit_record(converted, change)


def edit_a_measured_error(converted: Converted) -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["samples"][1]["array"]["max_abs_error"] = 0.125

    edit_record(converted, change)


def lead_out_of_the_folder(converted: Converted) -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["samples"][1]["source"]["source"] = "../tables.csv"

    edit_record(converted, change)


def record_of_another_plan(converted: Converted) -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["plan_id"] = "0" * 64

    edit_record(converted, change)


def record_of_another_shard(converted: Converted) -> None:
    shutil.copy(record_path(converted, 1), record_path(converted, 0))


def record_that_no_plan_knows(converted: Converted) -> None:
    shutil.copy(record_path(converted, 0), record_path(converted, 9))


def stray_shard(converted: Converted) -> None:
    shutil.copy(converted.out / BAD, converted.out / "shard-000099.tar")


def shard_without_a_number(converted: Converted) -> None:
    shutil.copy(converted.out / BAD, converted.out / "shard-copy.tar")


def edit_the_plan(converted: Converted) -> None:
    path = converted.dataset.plan(0) / "plan.json"
    path.write_text(path.read_text().replace(str(converted.made.data_folder), "/elsewhere"))


def edit_both_copies_of_the_plan(converted: Converted) -> None:
    edit_the_plan(converted)
    path = converted.dataset.plan(0) / "plan.copy.json"
    path.write_text(path.read_text().replace(str(converted.made.data_folder), "/elsewhere"))


def edit_the_samples(converted: Converted) -> None:
    path = converted.dataset.plan(0) / "samples.jsonl"
    flip(path, converted.planned(0).lines_size_bytes // 2)


RECORD_DAMAGE: list[tuple[Damage, str]] = [
    (drop_a_record, f"{BAD}: a shard that no record knows"),
    (cut_a_record, "shard-000000.json: not a valid ShardRecord"),
    (edit_a_digest, ".volume.npy has changed (bytes "),
    (edit_a_fingerprint, "shard-000000.json: this record was changed after it was merged"),
    (edit_a_measured_error, "shard-000000.json: this record was changed after it was merged"),
    (lead_out_of_the_folder, "shard-000000.json: not a valid ShardRecord"),
    (record_of_another_plan, "shard-000000.json: record belongs to another plan or shard"),
    (record_of_another_shard, "shard-000000.json: record belongs to another plan or shard"),
    (record_that_no_plan_knows, "shard-000009.json: a record that no plan knows"),
    (stray_shard, "shard-000099.tar: a shard that no record knows"),
    (shard_without_a_number, "shard-copy.tar: a shard that no record knows"),
    (edit_the_plan, "plans/0000/plan.json: the plan was changed after it was written"),
    (edit_both_copies_of_the_plan, "both copies of the plan are damaged"),
]


@pytest.mark.parametrize(("damage", "found"), RECORD_DAMAGE, ids=name_of)
def test_damaged_record(converted: Converted, damage: Damage, found: str) -> None:
    """What does not fit plan, records and shards together is named."""
    damage(converted)
    seen = run_here("verify", converted.out, "--full")
    assert seen.code == ExitCode.DAMAGE
    assert found in seen.text


@pytest.mark.parametrize(
    "damage",
    [
        drop_a_record,
        cut_a_record,
        edit_a_digest,
        lead_out_of_the_folder,
        record_of_another_plan,
        record_of_another_shard,
        edit_both_copies_of_the_plan,
        edit_the_samples,
    ],
    ids=name_of,
)
def test_nothing_is_deleted_on_a_damaged_record(converted: Converted, damage: Damage) -> None:
    """A record or a plan that was touched lets none of its sources go."""
    hit = {sample.key for sample in converted.record(0).samples}
    damage(converted)
    deleted = run_here("delete", converted.out, "--yes")
    assert hit <= sources_left(converted.made)
    if damage is not drop_a_record:
        assert deleted.code in (ExitCode.DAMAGE, ExitCode.REFUSED)
        assert "error: " in deleted.text or "kept" in deleted.text


@pytest.mark.parametrize("damage", [edit_a_fingerprint, edit_a_measured_error], ids=name_of)
def test_edited_notes_decide_nothing(converted: Converted, damage: Damage) -> None:
    """What a record notes of a source neither lets it go nor keeps it: its voxels decide."""
    changed = converted.made.keys[2]
    other_voxels(converted.made.sources[changed])
    damage(converted)
    deleted = run_here("delete", converted.out, "--yes")
    assert deleted.code == ExitCode.DAMAGE
    assert "was changed after it was merged" in deleted.text
    assert "its shard does not hold it: " in deleted.text
    assert sources_left(converted.made) == {changed}
    found = read_dataset(converted.out)
    for key, original in converted.originals.items():
        assert same_voxels(found[key].volume, expected_volume(original))


def test_a_lost_record_is_made_again(converted: Converted) -> None:
    """With the sources still there, a run finds that the shard is what it would write itself."""
    whole = (converted.out / BAD).read_bytes()
    drop_a_record(converted)
    again = run_here("run", converted.out)
    assert again.code == ExitCode.DONE
    assert (converted.out / BAD).read_bytes() == whole
    assert read_dataset(converted.out).keys() == converted.originals.keys()
    assert run_here("verify", converted.out, "--full").code == ExitCode.DONE


@pytest.mark.parametrize("gone", ["all", "one"])
def test_a_lost_record_of_deleted_sources(converted: Converted, gone: str) -> None:
    """Where record and sources are gone, the shard may be all there is, and is never given up."""
    whole = (converted.out / BAD).read_bytes()
    sources = [converted.made.sources[sample.key] for sample in converted.record(0).samples]
    for path in sources if gone == "all" else sources[:1]:
        path.unlink()
    drop_a_record(converted)
    again = run_here("run", converted.out)
    assert again.code == ExitCode.REFUSED
    assert "another file has this shard's name, and no record tells what it is" in again.text
    assert (converted.out / BAD).read_bytes() == whole
    assert not record_path(converted).exists()
    seen = run_here("verify", converted.out, "--full")
    assert seen.code == ExitCode.DAMAGE
    assert f"{BAD}: a shard that no record knows" in seen.stdout


@pytest.mark.parametrize("damage", ["removed", "cut short", "not JSON", "of another dataset"])
def test_damaged_manifest(converted: Converted, damage: str) -> None:
    """The manifest is a cache: whatever happened to it, merging brings it back as it was."""
    path = converted.dataset.manifest
    before = path.read_bytes()
    if damage == "removed":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(before[: len(before) // 2])
    elif damage == "not JSON":
        path.write_bytes(b"\0" * 99)
    else:
        path.write_bytes(before.replace(b"converted", b"conserved"))
    merge(converted.dataset, load_plans(converted.dataset))
    can_be_read = damage == "of another dataset"
    assert path.read_bytes() == (before if can_be_read else made_again(before))


# --- What can happen to sources ---------------------------------------------------------------


def other_voxels(path: Path) -> None:
    """Another volume under the same name, as honest a file as the first."""
    with np.load(path) as archive:
        arrays = dict(archive)
    name = max(arrays, key=lambda one: arrays[one].ndim)
    arrays[name] = arrays[name] + arrays[name].std() + 1
    np.savez_compressed(path, **arrays)


def touch(path: Path) -> None:
    os.utime(path)


def replace_by_a_copy(path: Path) -> None:
    new = path.with_name("new")
    shutil.copyfile(path, new)
    new.rename(path)


def replace_keeping_size_and_mtime(path: Path) -> None:
    status = path.stat()
    new = path.with_name("new")
    new.write_bytes(bytes(status.st_size))
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(path)


def rewrite_keeping_size_and_mtime(path: Path) -> None:
    status = path.stat()
    time.sleep(0.02)  # ctime ticks with the kernel's clock
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


@pytest.mark.parametrize(
    ("change", "why", "note"),
    [
        (replace_keeping_size_and_mtime, "not a zip file", "its source cannot be compared"),
        (rewrite_keeping_size_and_mtime, "not a zip file", "its source cannot be compared"),
        (append, "its shard does not hold all of it: bytes-after (4 bytes", None),
        (other_voxels, "its shard does not hold it: ", "its source was changed after it was"),
    ],
    ids=name_of,
)
def test_changed_source(
    converted: Converted, change: Callable[[Path], None], why: str, note: str | None
) -> None:
    """A source that holds anything else than its shard is kept, and the difference named."""
    key = converted.made.keys[1]
    change(converted.made.sources[key])
    content = converted.made.sources[key].read_bytes()
    seen = run_here("verify", converted.out, "--full")
    assert seen.code == ExitCode.DONE  # the shard is as it should be
    if note:
        assert f"{key}: {note}" in seen.stdout

    deleted = run_here("delete", converted.out, "--yes")
    assert deleted.code == ExitCode.REFUSED
    assert f"kept: {converted.made.sources[key].name} — " in deleted.text
    assert why in deleted.text
    assert sources_left(converted.made) == {key}
    assert converted.made.sources[key].read_bytes() == content


@pytest.mark.parametrize("change", [touch, replace_by_a_copy], ids=name_of)
def test_touched_source(converted: Converted, change: Callable[[Path], None]) -> None:
    """Times and inode keep no source whose content is in its shard."""
    change(converted.made.sources[converted.made.keys[1]])
    assert run_here("delete", converted.out, "--yes").code == ExitCode.DONE
    assert not sources_left(converted.made)
    found = read_dataset(converted.out)
    for key, original in converted.originals.items():
        assert same_voxels(found[key].volume, expected_volume(original))


def test_source_with_other_voxels(converted: Converted, tmp_path: Path) -> None:
    """A source that converts to something else by now is noted, and kept."""
    one, other = converted.made.keys[0], converted.made.keys[4]
    shutil.copyfile(converted.made.sources[other], converted.made.sources[one])
    seen = run_here("verify", converted.out, "--full")
    assert seen.code == ExitCode.DONE
    assert f"{one}: its source was changed after it was converted" in seen.stdout
    assert run_here("delete", converted.out, "--yes").code == ExitCode.REFUSED
    assert sources_left(converted.made) == {one}
