"""The few promises of the durable layer that no other test would miss first."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ctrate_convert.errors import DamageError
from ctrate_convert.store import durable
from ctrate_convert.store.durable import move_if_free, read_regular


def move(folder: Path, name: str, new_name: str) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return move_if_free(name, descriptor, new_name, descriptor)
    finally:
        os.close(descriptor)


NO_LINKS = PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("how", ["renameat2", "link, then unlink", "look, then rename"])
def test_a_move_overwrites_nothing(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is taken stays what it was; a free one is taken."""
    for name in ("old", "taken"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to("nowhere")
    if how != "renameat2":
        monkeypatch.setattr(durable, "_renameat2", None)
    if how == "look, then rename":
        monkeypatch.setattr(os, "link", mock.Mock(side_effect=NO_LINKS))
    assert not move(tmp_path, "old", "taken")
    assert not move(tmp_path, "old", "link")
    assert move(tmp_path, "old", "free")
    with pytest.raises(FileNotFoundError):
        move(tmp_path, "old", "another")
    found = {path.name: path.read_text() for path in tmp_path.iterdir() if not path.is_symlink()}
    assert found == {"taken": "taken", "free": "old"}


def test_a_name_that_is_taken_at_the_last_moment(tmp_path: Path) -> None:
    """Nobody looks first: what comes into being between a look and a rename is safe, too."""
    for name in ("old", "taken"):
        (tmp_path / name).write_text(name)
    unseen = FileNotFoundError(errno.ENOENT, "not there yet")
    with mock.patch.object(os, "stat", side_effect=unseen):
        assert not move(tmp_path, "old", "taken")
    assert (tmp_path / "taken").read_text() == "taken"


def test_the_last_moment_without_renameat2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS, too, a name that somebody takes after any look stays what it is."""
    (tmp_path / "old").write_text("old")
    real = os.link

    def late(*names: str, **options: Any) -> None:
        (tmp_path / "taken").write_text("taken")
        real(*names, **options)

    monkeypatch.setattr(durable, "_renameat2", None)
    monkeypatch.setattr(os, "link", late)
    assert not move(tmp_path, "old", "taken")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "old": "old",
        "taken": "taken",
    }


def test_a_move_that_was_killed_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two names of one file are a move whose second step is missing, or whose answer got lost."""
    (tmp_path / "old").write_text("old")
    os.link(tmp_path / "old", tmp_path / "new")
    monkeypatch.setattr(durable, "_renameat2", None)
    assert move(tmp_path, "old", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert (tmp_path / "new").read_text() == "old"


def test_a_fifo_keeps_nobody_waiting(tmp_path: Path) -> None:
    """What is no regular file is told, not waited for."""
    os.mkfifo(tmp_path / "record.json")
    for path in (tmp_path / "record.json", tmp_path):
        with pytest.raises(DamageError, match="not a regular file"):
            read_regular(path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "missing.json")
