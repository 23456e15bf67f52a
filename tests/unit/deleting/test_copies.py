"""With --copies a source goes only where further folders hold its shard too, read now."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ctrate_convert.deleting.consents import load_consents
from ctrate_convert.errors import ExitCode
from tests.support import Converted, run_here, sources_left
from tests.unit.deleting.scenes import as_root, bindfs, delete, in_namespace


@pytest.fixture
def copies(converted: Converted, tmp_path: Path) -> Path:
    """A second folder with both shards."""
    folder = tmp_path / "backup"
    folder.mkdir()
    for path in sorted(converted.out.glob("*.tar")):
        shutil.copy2(path, folder)
    return folder


def first(folder: Path) -> Path:
    return folder / "shard-000000.tar"


def test_good_copies(converted: Converted, copies: Path, tmp_path: Path) -> None:
    """Where each folder holds each shard, all sources go, and the consent names the folders."""
    second = Path(shutil.copytree(copies, tmp_path / "second"))
    done = delete(converted, "--copies", f"{copies},{second}")
    assert done.code == ExitCode.DONE
    assert not sources_left(converted.made)
    (consent,) = load_consents(converted.dataset)
    assert consent.copies == (str(copies), str(second))


def remove(path: Path, _: Path) -> None:
    path.unlink()


def flip(path: Path, _: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


def another_shard(path: Path, _: Path) -> None:
    shutil.copy(path.with_name("shard-000001.tar"), path)


def hard_link(path: Path, shard: Path) -> None:
    path.unlink()
    os.link(shard, path)


def symbolic_link(path: Path, shard: Path) -> None:
    path.unlink()
    path.symlink_to(shard)


def folder(path: Path, _: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path, _: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (remove, "cannot be read: No such file or directory"),
        (flip, "has SHA-256 "),
        (cut, "has SHA-256 "),
        (another_shard, "has SHA-256 "),
        (hard_link, "is the same file, not a copy"),
        (symbolic_link, "is the same file, not a copy"),
        (folder, "not a regular file"),
        (fifo, "not a regular file"),
    ],
)
def test_a_copy_that_is_none(
    converted: Converted, copies: Path, change: Callable[[Path, Path], None], reason: str
) -> None:
    """A shard without its copy keeps every source; another shard's go."""
    change(first(copies), converted.dataset.shard(0))
    done = delete(converted, "--copies", copies)
    assert done.code == ExitCode.REFUSED
    assert f"no second copy: {first(copies)} {reason}" in done.text
    assert sources_left(converted.made) == set(converted.made.keys[:4])


def test_every_folder_counts(converted: Converted, copies: Path, tmp_path: Path) -> None:
    """One folder of two without the shard keeps its sources."""
    second = Path(shutil.copytree(copies, tmp_path / "second"))
    first(second).unlink()
    assert delete(converted, "--copies", f"{copies},{second}").code == ExitCode.REFUSED
    assert sources_left(converted.made) == set(converted.made.keys[:4])


def test_the_output_through_a_bind_mount(converted: Converted, tmp_path: Path) -> None:
    """The same folder mounted elsewhere is no second copy."""
    mount = tmp_path / "mount"
    mount.mkdir()
    script = f"mount --bind '{converted.out}' '{mount}'"
    done = in_namespace(script, "delete", converted.out, "--yes", "--copies", mount)
    assert done.code != ExitCode.DONE
    assert "the dataset directory itself" in done.text or "is the same file" in done.text
    assert sources_left(converted.made) == set(converted.made.keys)


def test_a_shard_through_a_bind_mount(converted: Converted, copies: Path) -> None:
    """A single shard mounted over its copy is no second copy."""
    script = f"mount --bind '{converted.dataset.shard(0)}' '{first(copies)}'"
    done = in_namespace(script, "delete", converted.out, "--yes", "--copies", copies)
    assert done.code == ExitCode.REFUSED
    assert "is the same file, not a copy" in done.text
    assert sources_left(converted.made) == set(converted.made.keys[:4])


def test_the_output_through_another_file_system(converted: Converted, tmp_path: Path) -> None:
    """One file through two mounts, as NFS and FUSE show it, is no second copy."""
    with bindfs(converted.out, tmp_path / "mount") as mount:
        done = delete(converted, "--copies", mount)
    assert done.code == ExitCode.REFUSED
    assert "is the same file, not a copy" in done.text
    assert sources_left(converted.made) == set(converted.made.keys)


def test_copies_in_memory(converted: Converted, copies: Path, tmp_path: Path) -> None:
    """What is gone with the next restart is no second copy."""
    as_root("mount")
    mount = tmp_path / "mount"
    mount.mkdir()
    script = f"mount -t tmpfs tmpfs '{mount}'\ncp '{copies}'/* '{mount}'"
    done = in_namespace(script, "delete", converted.out, "--yes", "--copies", mount)
    assert done.code == ExitCode.REFUSED
    assert f"no second copy: {first(mount)} lies in memory" in done.text
    assert sources_left(converted.made) == set(converted.made.keys)


def test_no_folder(converted: Converted, tmp_path: Path) -> None:
    """A folder that is missing, or is the output itself, is refused before anything is done."""
    for name, says in (
        (tmp_path / "missing", "--copies names no folder"),
        (converted.out, "--copies names the dataset directory itself"),
        (converted.out / "..", ""),
    ):
        done = delete(converted, "--copies", name)
        assert done.code != ExitCode.DONE
        assert says in done.text
        assert sources_left(converted.made) == set(converted.made.keys)


def test_the_question_names_them(converted: Converted, copies: Path) -> None:
    """Without --yes and a terminal nothing is asked, and nothing goes."""
    done = run_here("delete", converted.out, "--copies", copies)
    assert done.code == ExitCode.REFUSED
    assert sources_left(converted.made) == set(converted.made.keys)
