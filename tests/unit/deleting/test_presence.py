"""A source is gone only where its folder is seen without it; else it is there, or unseen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ctrate_convert.deleting.aside import put_back
from ctrate_convert.store.presence import (
    Presence,
    aside_name,
    hidden_names,
    presence,
    proven_name,
)
from tests.unit.deleting.scenes import bindfs

LONG = "x" * 246 + ".npz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["a.npz", "deep/a.npz", LONG, f"deep/{LONG}"])
@pytest.mark.parametrize("which", ["its own", "aside", "proven"])
def test_there_under_each_of_its_names(folder: Path, name: str, which: str) -> None:
    """A source is there under its own name and under both that a deletion gives it."""
    path = folder / name
    assert presence(folder, name) is Presence.GONE
    names = {"its own": path.name, "aside": aside_name(path.name), "proven": proven_name(path.name)}
    path.with_name(names[which]).write_bytes(b"source")
    assert presence(folder, name) is Presence.THERE


@pytest.mark.parametrize("name", ["a.npz", LONG])
@pytest.mark.parametrize("hidden", [0, 1])
def test_put_back(folder: Path, name: str, hidden: int) -> None:
    """Whatever name a killed process left it under, the source gets its own one back."""
    (folder / hidden_names(name)[hidden]).write_bytes(b"source")
    assert put_back(folder, name)
    assert (folder / name).read_bytes() == b"source"
    assert not put_back(folder, name)
    assert [path.name for path in folder.iterdir() if path.is_file()] == [name]


def test_put_back_overwrites_nothing(folder: Path) -> None:
    """Where another file has taken the name, both stay."""
    (folder / "a.npz").write_bytes(b"new")
    (folder / aside_name("a.npz")).write_bytes(b"old")
    assert not put_back(folder, "a.npz")
    assert (folder / "a.npz").read_bytes() == b"new"
    assert (folder / aside_name("a.npz")).read_bytes() == b"old"


def test_hidden_names_are_short_and_differ(folder: Path) -> None:
    """No file system refuses a hidden name for its length, and no two sources share one."""
    names = [LONG, "y" + LONG[1:], "a.npz", "A.npz", "é" * 120 + ".npz"]
    hidden = [one for name in names for one in hidden_names(name)]
    assert len(set(hidden)) == len(hidden)
    assert all(len(os.fsencode(one)) <= 143 for one in hidden)


def test_a_link_is_there(folder: Path) -> None:
    """A name that leads nowhere is a name all the same."""
    (folder / "a.npz").symlink_to("nowhere")
    assert presence(folder, "a.npz") is Presence.THERE


def test_a_folder_that_is_away(folder: Path) -> None:
    """Where a folder on the way is missing, a link or a file, nothing is known of the source."""
    name = "deep/a.npz"
    (folder / "deep").rename(folder / "elsewhere")
    assert presence(folder, name) is Presence.UNSEEN
    (folder / "deep").symlink_to("elsewhere")
    assert presence(folder, name) is Presence.UNSEEN
    (folder / "deep").unlink()
    (folder / "deep").write_bytes(b"")
    assert presence(folder, name) is Presence.UNSEEN
    assert presence(folder / "not mounted", name) is Presence.UNSEEN


@pytest.mark.parametrize("name", ["../a.npz", "/a.npz", "a/../a.npz", "", "a/"])
def test_a_path_that_leads_elsewhere(folder: Path, name: str) -> None:
    """A path out of the folder says nothing of any source."""
    assert presence(folder, name) is Presence.UNSEEN


def test_a_folder_without_permission(folder: Path) -> None:
    """A folder that may not be searched shows nothing."""
    (folder / "deep" / "a.npz").write_bytes(b"")
    (folder / "deep").chmod(0)
    try:
        if os.access(folder / "deep", os.X_OK):
            pytest.skip("this user may enter every folder")
        assert presence(folder, "deep/a.npz") is Presence.UNSEEN
    finally:
        (folder / "deep").chmod(0o755)


def test_another_folder_of_the_same_name(folder: Path) -> None:
    """An empty folder in its place, like a mount point, is not the one that had the source."""
    inode = (folder / "deep").stat().st_ino
    assert presence(folder, "deep/a.npz", inode) is Presence.GONE
    (folder / "deep").rename(folder / "elsewhere")
    (folder / "deep").mkdir()
    assert presence(folder, "deep/a.npz", inode) is Presence.UNSEEN
    assert presence(folder, "deep/a.npz") is Presence.GONE
    (folder / "deep" / "a.npz").write_bytes(b"")
    assert presence(folder, "deep/a.npz", inode) is Presence.THERE


def test_an_attribute_cache_is_passed_by(folder: Path, tmp_path: Path) -> None:
    """A source that another node has removed is not seen in this node's cache."""
    (folder / "a.npz").write_bytes(b"source")
    with bindfs(folder, tmp_path / "mount") as mount:
        assert presence(mount, "a.npz") is Presence.THERE
        (folder / "a.npz").unlink()
        assert presence(mount, "a.npz") is Presence.GONE
