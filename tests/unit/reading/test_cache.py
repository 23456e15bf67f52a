"""Shards are copied to a folder of this machine once, and only what is whole and ours is used."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert import DamageError, SettingsError, Volumes, open_dataset
from ctrate_convert.reading import cache as reading_cache
from ctrate_convert.reading import shard_file
from ctrate_convert.reading.index import Shard
from ctrate_convert.store.durable import PARTIAL_SUFFIX
from tests.support import Converted, convert_here, same_voxels

pytestmark = pytest.mark.usefixtures("nothing_closed")


@pytest.fixture
def nothing_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins as a process does."""
    monkeypatch.setattr(reading_cache, "_closed", set())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "local disk" / "cache"


def copies(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def arrays(out: Path, **more: Any) -> dict[str, Any]:
    return {sample["__key__"]: sample["array"] for sample in open_dataset(out, **more)}


def read_without_the_shards(way: Converted, folder: Path) -> dict[str, Any]:
    """Read after the shards are gone: what comes can only come from the copies."""
    before = arrays(way.out)
    arrays(way.out, cache=folder)
    for shard in way.out.glob("*.tar"):
        shard.rename(shard.with_suffix(".away"))
    after = arrays(way.out, cache=folder)
    assert before.keys() == after.keys()
    assert all(same_voxels(before[key], after[key]) for key in before)
    return after


@pytest.mark.parametrize("encoding", ["npy", "npy.gz", "b2nd"])
def test_every_encoding_is_read_from_the_copies(
    converted: Converted, tmp_path: Path, folder: Path, encoding: str
) -> None:
    way = convert_here(converted.made, tmp_path / "other", encoding=encoding, samples_per_shard=3)
    read_without_the_shards(way, folder)
    assert [path.read_bytes() for path in copies(folder)] == [
        path.read_bytes() for path in sorted(way.out.glob("*.away"))
    ]


def test_volumes_read_from_the_copies(converted: Converted, folder: Path) -> None:
    """Only the shard of what was read is copied; another sample of it comes from there too."""
    volumes = Volumes(converted.out, cache=folder)
    assert folder.is_dir() and not copies(folder)
    first, second, *_, last = volumes
    expected = np.asarray(Volumes(converted.out)[second].array)
    np.asarray(volumes[first].array)
    assert len(copies(folder)) == 1
    (converted.out / "shard-000000.tar").unlink()
    assert same_voxels(np.asarray(volumes[second].array), expected)
    assert volumes[1]["__key__"] == second and volumes[second].report
    assert volumes[second].shard == str(converted.out / "shard-000000.tar")
    np.asarray(volumes[last].array)
    assert len(copies(folder)) == 2


def test_copies_are_private(converted: Converted, folder: Path) -> None:
    """Whatever the umask, and however readable the shards are."""
    os.umask(0)
    for shard in converted.out.glob("*.tar"):
        shard.chmod(0o644)
    arrays(converted.out, cache=folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.glob(".*.lock"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert not list(folder.glob(f".*{PARTIAL_SUFFIX}"))


def test_a_shard_is_copied_once(
    converted: Converted, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    real = reading_cache._make

    def counted(copy: Path, shard: Shard) -> None:
        made.append(copy)
        real(copy, shard)

    monkeypatch.setattr(reading_cache, "_make", counted)
    for _ in range(3):
        arrays(converted.out, cache=folder, shuffle=True)
    assert sorted(made) == copies(folder)


def _read_in_turn(out: str, folder: str, start: Any, made: Any) -> None:
    real = reading_cache._make

    def counted(copy: Path, shard: Shard) -> None:
        made.put(copy.name)
        real(copy, shard)

    reading_cache._make = counted
    start.wait()
    for _ in open_dataset(out, cache=folder):
        pass


def test_processes_that_start_together_copy_each_shard_once(
    converted: Converted, folder: Path
) -> None:
    context = multiprocessing.get_context("fork")
    start, made = context.Barrier(4), context.Queue()
    words = (str(converted.out), str(folder), start, made)
    processes = [context.Process(target=_read_in_turn, args=words) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    found = sorted(made.get(timeout=10) for _ in copies(folder))
    assert made.empty()
    assert found == [path.name for path in copies(folder)]


def test_a_copy_of_another_length_is_made_again(converted: Converted, folder: Path) -> None:
    expected = arrays(converted.out, cache=folder)
    for path in copies(folder):
        os.truncate(path, path.stat().st_size - 512)
    found = arrays(converted.out, cache=folder)
    assert all(same_voxels(expected[key], found[key]) for key in expected)
    assert {path.stat().st_size for path in copies(folder)} == {
        path.stat().st_size for path in converted.out.glob("*.tar")
    }


def test_another_record_has_another_copy(converted: Converted, folder: Path) -> None:
    """The name holds the digest of the record that the manifest knows."""
    arrays(converted.out, cache=folder)
    manifest = json.loads(converted.dataset.manifest.read_text())
    assert [path.name for path in copies(folder)] == [
        f"{Path(shard['name']).stem}.{shard['record_sha256']}.tar" for shard in manifest["shards"]
    ]


def test_two_datasets_share_a_folder(converted: Converted, tmp_path: Path, folder: Path) -> None:
    other = convert_here(converted.made, tmp_path / "other", encoding="b2nd", samples_per_shard=4)
    for way in (converted, other, converted):
        expected, found = arrays(way.out), arrays(way.out, cache=folder)
        assert all(same_voxels(expected[key], found[key]) for key in expected)
    assert len(copies(folder)) == 4


@pytest.mark.parametrize("planted", ["link", "writable"])
def test_what_others_could_have_written_is_not_used(
    converted: Converted, folder: Path, tmp_path: Path, planted: str
) -> None:
    expected = arrays(converted.out, cache=folder)
    elsewhere = tmp_path / "elsewhere"
    for path in copies(folder):
        changed = bytearray(path.read_bytes())
        changed[2000:] = bytes(len(changed) - 2000)
        elsewhere.write_bytes(changed)
        if planted == "link":
            path.unlink()
            path.symlink_to(elsewhere)
        else:
            path.write_bytes(changed)
            path.chmod(0o666)
    found = arrays(converted.out, cache=folder)
    assert all(same_voxels(expected[key], found[key]) for key in expected)
    assert not any(path.is_symlink() for path in copies(folder))
    assert elsewhere.read_bytes() == changed


def test_a_damaged_copy_says_what_to_remove(converted: Converted, folder: Path) -> None:
    arrays(converted.out, cache=folder)
    path = copies(folder)[0]
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DamageError) as damaged:
        arrays(converted.out, cache=folder)
    assert damaged.value.where == str(path)
    assert damaged.value.next_command == f"rm '{path}'"


def test_a_missing_shard_is_damage_as_without_a_cache(converted: Converted, folder: Path) -> None:
    (converted.out / "shard-000001.tar").unlink()
    with pytest.raises(DamageError, match="missing"):
        arrays(converted.out, cache=folder)
    assert not list(folder.glob(f".*{PARTIAL_SUFFIX}"))


def test_a_full_disk_costs_a_warning(converted: Converted, folder: Path) -> None:
    """The kernel refuses files of more than some bytes: one warning, and all samples."""
    expected = arrays(converted.out)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    open_dataset(converted.out, cache=folder)
    smallest = min(path.stat().st_size for path in converted.out.glob("*.tar"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (smallest - 1, limit[1]))
    try:
        with pytest.warns(UserWarning, match="takes no copy of a shard") as told:
            found = arrays(converted.out, cache=folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert len(told) == 1 and str(folder) in str(told[0].message)
    assert all(same_voxels(expected[key], found[key]) for key in expected)
    assert not copies(folder) and not list(folder.glob(f".*{PARTIAL_SUFFIX}"))


def test_copies_that_are_there_are_used_on_a_full_disk(converted: Converted, folder: Path) -> None:
    key, *_ = Volumes(converted.out)
    np.asarray(Volumes(converted.out, cache=folder)[key].array)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            arrays(converted.out, cache=folder, keys=[key])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_what_a_killed_process_left_is_removed(converted: Converted, folder: Path) -> None:
    arrays(converted.out, cache=folder)
    path, other = copies(folder)
    path.unlink()
    left = [folder / f".{one.stem}.0123456789ab{PARTIAL_SUFFIX}" for one in (path, other)]
    for one in left:
        one.write_bytes(b"half")
    arrays(converted.out, cache=folder)
    assert [one.exists() for one in left] == [False, True]


def test_a_copy_that_goes_while_it_is_opened_costs_nothing(
    converted: Converted, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody removes the folder between the look at a copy and its opening."""
    expected = arrays(converted.out, cache=folder)
    real = reading_cache._copy_of

    def removed(shard: Shard) -> Path | None:
        copy = real(shard)
        shutil.rmtree(folder)
        return copy

    monkeypatch.setattr(reading_cache, "_copy_of", removed)
    found = arrays(converted.out, cache=folder)
    assert all(same_voxels(expected[key], found[key]) for key in expected)


def test_a_removed_folder_is_made_again(converted: Converted, folder: Path) -> None:
    volumes = Volumes(converted.out, cache=folder)
    shutil.rmtree(folder)
    assert volumes[0]["array"].size
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and len(copies(folder)) == 1


def test_a_folder_of_others_is_refused(converted: Converted, tmp_path: Path) -> None:
    """In a folder that others may write to, they could put shards of their own."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    file = tmp_path / "file"
    file.touch()
    for place in (shared, link, file, file / "below"):
        for opened in (open_dataset, Volumes):
            with pytest.raises(SettingsError, match="the cache folder"):
                opened(converted.out, cache=place)
    open_dataset(converted.out, cache=shared / "mine")


@pytest.mark.parametrize("opened", [open_dataset, Volumes])
def test_what_is_no_folder_for_copies_is_refused(
    opened: Any, converted: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies in a dataset directory would be taken for its shards."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    (plan_only := tmp_path / "planned" / ".run").mkdir(parents=True)
    for place, seen in (
        (converted.out, "a dataset directory"), (plan_only.parent, "a dataset directory"),
        ("", "no name"), ("s3://bucket/cache", "s3://"), ("https://host/cache", "https://"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match="the cache folder") as refused:
            opened(converted.out, cache=place)
        assert str(refused.value.seen).startswith(seen)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, plan_only.parent, plan_only])


def test_whoever_writes_is_not_read_from_a_cache(
    converted: Converted, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `ShardFile` opens the shard itself: what is compared before a deletion is never a copy."""
    arrays(converted.out, cache=folder)
    sample = next(iter(Volumes(converted.out, cache=folder)._samples.values()))
    with shard_file.ShardFile(sample.shard) as file:
        assert file.shard.path == str(converted.out / "shard-000000.tar")


# --- Places that are no folders -----------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    ["s3://bucket/ct-rate", "https://host/ct-rate", "gs://b", "hf://datasets/a/b", "file:///tmp/x",
     Path("s3://bucket/ct-rate")],
)  # fmt: skip
def test_a_url_is_refused_with_what_to_do(place: Any) -> None:
    for opened in (open_dataset, Volumes):
        with pytest.raises(SettingsError, match="is not read") as refused:
            opened(place)
        assert "mount" in str(refused.value) and "decoder()" in str(refused.value)
        assert str(place).partition(":")[0] + "://" in str(refused.value)


def test_a_folder_may_have_a_colon(converted: Converted, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "s3:").mkdir()
    converted.out.rename(tmp_path / "s3:" / "out")
    monkeypatch.chdir(tmp_path)
    assert len(Volumes("s3:/out")) == 8
