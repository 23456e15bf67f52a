"""Deletion is refused where the output may be gone tomorrow, or others could have written it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrate_convert.deleting.trusted import mount_of, require_trusted, why_not_trusted
from ctrate_convert.errors import ExitCode, RefusedError
from ctrate_convert.store.layout import Dataset
from tests.support import (
    DELETE,
    Converted,
    convert_here,
    convert_words,
    run_cli,
    run_here,
    sources_left,
)
from tests.unit.deleting.scenes import Make, as_root, bindfs, delete, in_namespace, strace


@pytest.fixture
def shm() -> Iterator[Path]:
    """A folder of its own in memory."""
    folder = Path("/dev/shm", f"ctrate-{os.getpid()}")
    if not folder.parent.is_dir() or getattr(mount_of(folder.parent), "kind", "") != "tmpfs":
        pytest.skip("no tmpfs at /dev/shm")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def assert_refused(converted: Converted, done: object, *says: str) -> None:
    """Exit code 4, the reason, every source, and not a word in the journal."""
    assert getattr(done, "code", None) == ExitCode.REFUSED, done
    text = getattr(done, "text", "")
    assert "no source is deleted: " in text
    assert all(one in text for one in says), text
    assert sources_left(converted.made) == set(converted.made.keys)
    assert not converted.dataset.journal(0).exists() or not converted.dataset.journal(0).read_text()


def test_ordinary_storage(converted: Converted) -> None:
    """An ordinary output of this user's own can be trusted."""
    assert why_not_trusted(converted.dataset) is None
    assert delete(converted).code == ExitCode.DONE
    assert not sources_left(converted.made)


def test_a_group_writable_output(converted: Converted) -> None:
    """An output folder that a group may write to, as is usual on clusters, is no reason."""
    converted.out.chmod(0o2775)
    assert delete(converted).code == ExitCode.DONE


# --- Memory -------------------------------------------------------------------------------------


def test_shared_memory(make_ctrate: Make, shm: Path) -> None:
    """Shards in /dev/shm let nothing go: neither along the way, nor later."""
    made = make_ctrate(4)
    out = shm / "out"
    done = run_here(*convert_words(made, out, *DELETE))
    assert done.code == ExitCode.REFUSED
    assert "lies in memory (tmpfs on /dev/shm)" in done.text
    assert sources_left(made) == set(made.keys)
    assert run_here("run", out, "--keep_source_files").code == ExitCode.DONE if out.exists() else 1
    converted = Converted(made, Dataset(out), {})
    if not converted.dataset.manifest.exists():
        converted = convert_here(made, shm / "other")
    assert_refused(converted, delete(converted), "lies in memory")


def test_a_tmpfs(converted: Converted, tmp_path: Path) -> None:
    """A tmpfs anywhere is memory."""
    aside = converted.out.rename(tmp_path / "aside")
    converted.out.mkdir()
    script = f"mount -t tmpfs tmpfs '{converted.out}'\ncp -a '{aside}'/. '{converted.out}'"
    done = in_namespace(script, "delete", converted.out, "--yes")
    assert_refused(converted, done, f"lies in memory (tmpfs on {converted.out})")


@pytest.mark.parametrize("folder", ["", ".run", ".run/records"])
def test_a_part_in_memory(converted: Converted, tmp_path: Path, folder: str) -> None:
    """Records and journals in memory are as little to be relied on."""
    mount = converted.out / folder
    aside = Path(shutil.copytree(mount, tmp_path / "aside"))
    script = f"mount -t tmpfs -o mode=700 tmpfs '{mount}'\ncp -a '{aside}'/. '{mount}'"
    done = in_namespace(script, "delete", converted.out, "--yes")
    assert_refused(converted, done, f"lies in memory (tmpfs on {mount})")


def test_one_shard_in_memory(converted: Converted, tmp_path: Path) -> None:
    """A shard whose name is a mount of a file in memory keeps its sources."""
    (memory := tmp_path / "memory").mkdir()
    shard = converted.dataset.shard(0)
    script = (
        f"mount -t tmpfs tmpfs '{memory}'\ncp '{shard}' '{memory}/shard'\n"
        f"mount --bind '{memory}/shard' '{shard}'"
    )
    done = in_namespace(script, "delete", converted.out, "--yes")
    assert done.code == ExitCode.REFUSED
    assert "lies in memory" in done.text
    assert sources_left(converted.made) == set(converted.made.keys[:4])


def overlay(converted: Converted, layers: Path, options: str = "") -> str:
    """Lay an overlay over the output whose changes lie in ``layers``."""
    below = f"lowerdir={converted.out},upperdir={layers}/upper,workdir={layers}/work{options}"
    return (
        f"mkdir -p '{layers}/upper' '{layers}/work'\n"
        f"mount -t overlay overlay -o '{below}' '{converted.out}'"
    )


def test_an_overlay_on_memory(converted: Converted, tmp_path: Path) -> None:
    """An overlay whose changes lie in memory is memory."""
    (memory := tmp_path / "memory").mkdir()
    script = f"mount -t tmpfs tmpfs '{memory}'\n{overlay(converted, memory)}"
    done = in_namespace(script, "delete", converted.out, "--yes")
    if "overlay" in done.stderr and "mount:" in done.stderr:
        pytest.skip("no overlays here")
    assert_refused(converted, done, "in an overlay on ", "whose changes lie in tmpfs")


def test_a_volatile_overlay(converted: Converted, tmp_path: Path) -> None:
    """An overlay that syncs nothing makes nothing durable."""
    script = overlay(converted, tmp_path / "layers", ",volatile")
    done = in_namespace(script, "delete", converted.out, "--yes")
    if "mount:" in done.stderr:
        pytest.skip("no volatile overlays here")
    assert_refused(converted, done, "that is volatile: it syncs nothing")


def test_memory_behind_a_loop_device(converted: Converted, tmp_path: Path) -> None:
    """A file system in a file in memory is memory."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    (memory := tmp_path / "memory").mkdir()
    aside = Path(shutil.copytree(converted.out, tmp_path / "aside"))
    script = (
        f"mount -t tmpfs tmpfs '{memory}'\ntruncate -s 32M '{memory}/image'\n"
        f"mkfs.ext4 -q '{memory}/image'\nmount -o loop '{memory}/image' '{converted.out}'\n"
        f"cp -a '{aside}'/. '{converted.out}'"
    )
    done = in_namespace(script, "delete", converted.out, "--yes")
    if "mount:" in done.stderr:
        pytest.skip("no loop devices here")
    assert_refused(converted, done, "lies in memory (/dev/loop")


def test_memory_behind_fuse(make_ctrate: Make, shm: Path, tmp_path: Path) -> None:
    """A FUSE mount of a folder in memory is memory."""
    made = make_ctrate(4)
    with bindfs(shm, tmp_path / "mount") as mount:
        converted = convert_here(made, mount / "out")
        assert_refused(converted, delete(converted), "lies in memory")


# --- Names that are not durable -----------------------------------------------------------------


@pytest.mark.parametrize("error", ["EINVAL", "EIO"])
@pytest.mark.parametrize("folder", ["", ".run", ".run/records"])
def test_a_folder_that_cannot_be_synced(converted: Converted, error: str, folder: str) -> None:
    """Where the name of a shard may be lost with the power, no source goes."""
    path = converted.out / folder
    words = strace("trace=fsync", f"inject=fsync:error={error}", path=path)
    done = run_cli("delete", converted.out, "--yes", before=words)
    assert_refused(converted, done, f"names in {path} cannot be made durable: fsync of a folder ")


# --- What others could have written -------------------------------------------------------------


PARTS = [".run", ".run/plans", ".run/plans/0000", ".run/plans/0000/plan.json", ".run/records"]


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
@pytest.mark.parametrize("part", PARTS)
def test_writable_by_others(converted: Converted, part: str, mode: int) -> None:
    """Where others may write to what a deletion rests on, nothing is deleted."""
    (converted.out / part).chmod(mode)
    done = delete(converted)
    assert_refused(converted, done, f"{converted.out / part} is writable by others than its owner")


@pytest.mark.parametrize("part", PARTS)
def test_owned_by_somebody_else(converted: Converted, part: str) -> None:
    """Where somebody else owns what a deletion rests on, nothing is deleted."""
    as_root("give files away")
    os.chown(converted.out / part, 12345, -1)
    done = delete(converted)
    assert_refused(converted, done, "belongs to user 12345, not to user 0")


def test_a_link_in_place_of_the_folder(converted: Converted, tmp_path: Path) -> None:
    """A ``.run`` that is a link leads where others may write."""
    converted.dataset.run.rename(tmp_path / "elsewhere")
    converted.dataset.run.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="is a link"):
        require_trusted(converted.dataset)
    assert_refused(converted, delete(converted), "is a link")


@pytest.mark.parametrize("part", ["consents", "deletions"])
def test_consents_and_journals(converted: Converted, part: str) -> None:
    """Also the folders of consents and journals must be this user's alone."""
    (folder := converted.dataset.run / part).mkdir(exist_ok=True)
    folder.chmod(0o777)
    assert_refused(converted, delete(converted), f"{folder} is writable by others")


def test_the_program_makes_it_so(make_ctrate: Make, tmp_path: Path) -> None:
    """Under a loose umask the program's own folders are still writable by nobody else."""
    made = make_ctrate(4)
    before = os.umask(0)
    try:
        done = run_cli(*convert_words(made, tmp_path / "out", *DELETE))
    finally:
        os.umask(before)
    assert done.code == ExitCode.DONE, done.text
    assert not sources_left(made)
