"""One source at its end: what is equal goes, and whatever happens meanwhile keeps the rest."""

from __future__ import annotations

import copy
import dataclasses
import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import pytest

from ctrate_convert.deleting import let_go as module
from ctrate_convert.deleting.let_go import Equal, Fate, Outcome, unlink
from ctrate_convert.errors import (
    DamageError,
    EnvironmentProblem,
    Interrupted,
    RefusedError,
    SampleError,
    UnreadableSource,
)
from tests.unit.deleting.one_source import CONTENT, NAME, Scene


def test_what_is_equal_goes(scene: Scene) -> None:
    """An equal source is read under a hidden name, and then there is nothing of it any more."""
    seen: list[set[str]] = []

    def compare(descriptor: int) -> str:
        seen.append(scene.names())
        return "" if os.pread(descriptor, len(CONTENT) + 1, 0) == CONTENT else "differs"

    assert scene.go(compare) == Outcome(Fate.TAKEN, size_bytes=len(CONTENT))
    assert seen == [{scene.aside.name}]
    assert scene.names() == set()
    assert scene.go() == Outcome(Fate.GONE)


def test_what_differs_keeps_its_name(scene: Scene) -> None:
    """A source that differs is back under its name, with the reason."""
    inode = scene.path.stat().st_ino
    assert scene.go(lambda _: "other voxels") == Outcome(Fate.KEPT, "other voxels")
    assert scene.names() == {NAME}
    assert (scene.path.stat().st_ino, scene.path.read_bytes()) == (inode, CONTENT)


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (SampleError("not a zip file"), Fate.KEPT),
        (DamageError("a shard was cut short"), Fate.KEPT),
        (UnreadableSource("source cannot be read: EIO"), Fate.UNDECIDED),
        (EnvironmentProblem("reading a shard: EIO"), Fate.UNDECIDED),
        (OSError(errno.EMFILE, "Too many open files"), Fate.UNDECIDED),
    ],
)
def test_a_comparison_that_fails(scene: Scene, error: Exception, fate: Fate) -> None:
    """What a comparison cannot decide keeps the source; what may pass is tried again."""

    def compare(_: int) -> NoReturn:
        raise error

    outcome = scene.go(compare)
    assert outcome.fate is fate
    assert outcome.reason
    assert scene.names() == {NAME}


@pytest.mark.parametrize("error", [Interrupted("SIGTERM"), RuntimeError("a bug"), MemoryError()])
def test_whatever_is_raised_gives_the_name_back(scene: Scene, error: BaseException) -> None:
    """A stop and a bug in the comparison leave the source under its name."""

    def compare(_: int) -> NoReturn:
        raise error

    with pytest.raises(type(error)):
        scene.go(compare)
    assert scene.names() == {NAME}


# --- What a name shows ------------------------------------------------------------------------


def replace_by_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def give_another_name(path: Path) -> None:
    os.link(path, path.with_name("another name"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (replace_by_a_link, "it is a link; links are neither followed nor deleted"),
        (replace_by_a_folder, "it is no regular file"),
        (replace_by_a_fifo, "it is no regular file"),
        (give_another_name, "it has 2 hard links; deleting one would free nothing"),
    ],
)
def test_what_is_no_file_of_its_own(
    scene: Scene, change: Callable[[Path], None], reason: str
) -> None:
    """Links, folders, FIFOs and files with a second name are not even compared."""
    change(scene.path)
    assert scene.go() == Outcome(Fate.KEPT, reason)
    assert not scene.said
    assert os.path.lexists(scene.path)


def test_in_the_dataset_directory(scene: Scene) -> None:
    """A source that lies in the output is kept, however deep."""
    deep = scene.folder / "deep"
    deep.mkdir()
    scene.path.rename(deep / NAME)
    scene.name = f"deep/{NAME}"
    for out in (scene.folder, deep):
        assert scene.go(out=out) == Outcome(Fate.KEPT, "it lies in the dataset directory")
    assert scene.go(out=scene.folder / "missing").fate is Fate.UNDECIDED
    assert scene.path.exists()


@pytest.mark.parametrize("name", ["../data/" + NAME, "/etc/passwd", f"./{NAME}", ""])
def test_a_path_that_leads_elsewhere(scene: Scene, name: str) -> None:
    """No path leads out of the data folder."""
    scene.name = name
    outcome = scene.go()
    assert outcome.fate is Fate.UNDECIDED
    assert outcome.reason.startswith("its path cannot be followed safely: ")


@pytest.mark.parametrize("name", ["x" * 246 + ".npz", "é" * 124 + ".npz", "y" * 140 + ".npz"])
def test_a_name_that_leaves_no_room(scene: Scene, name: str) -> None:
    """A source whose name is as long as names may be goes like any other, or keeps it."""
    scene.path.rename(scene.folder / name)
    scene.name = name
    assert scene.go(lambda _: "other voxels").fate is Fate.KEPT
    assert scene.names() == {name}
    assert scene.go().fate is Fate.TAKEN
    assert scene.names() == set()


def test_a_folder_that_takes_no_change(scene: Scene) -> None:
    """Where the folder does not let the source be renamed, it is tried again later."""
    denied = PermissionError(errno.EACCES, "Permission denied")
    with mock.patch.object(module, "rename_if_free", side_effect=denied):
        assert scene.go().reason == "it could not be renamed: Permission denied"
    assert scene.path.read_bytes() == CONTENT


# --- The proof --------------------------------------------------------------------------------


def test_proof_cannot_be_made(scene: Scene) -> None:
    """Whoever constructs a proof, changes, copies or stores one, or derives from it, is refused."""
    lookalike: Any = type("Lookalike", (), {"directory": 0, "name": NAME, "status": None})()
    with pytest.raises(RefusedError, match="only after it was compared"):
        unlink(lookalike)
    with pytest.raises(RefusedError, match="one kind"):
        type("Another", (Equal,), {"__post_init__": lambda self, seal: None})

    def take(proof: Equal) -> str:
        with pytest.raises(RefusedError):
            Equal(proof.directory, NAME, proof.status, seal=object())
        with pytest.raises(RefusedError):
            dataclasses.replace(proof, name=NAME, seal=object())
        with pytest.raises(dataclasses.FrozenInstanceError):
            proof.name = NAME  # type: ignore[misc]
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(RefusedError, match="neither copied nor stored"):
                duplicate(proof)
        return "seen"

    assert scene.go(take=take) == Outcome(Fate.UNDECIDED, "seen")
    assert scene.names() == {NAME}
