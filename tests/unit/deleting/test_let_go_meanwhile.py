"""What happens to a source, and around it, while it is compared and taken away."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import pytest

from ctrate_convert.deleting import let_go as module
from ctrate_convert.deleting.let_go import Equal, Fate, Outcome, unlink
from ctrate_convert.store import durable
from ctrate_convert.store.fresh import FreshStatus, fresh_status_of
from ctrate_convert.store.presence import Presence, presence
from tests.unit.deleting.one_source import CONTENT, NAME, Scene


def give_another_name(path: Path) -> None:
    os.link(path, path.with_name("another name"))


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def change_mode(path: Path) -> None:
    path.chmod(0o600)


@pytest.mark.parametrize("change", [append, os.utime, change_mode, give_another_name])
def test_changed_while_it_is_compared(scene: Scene, change: Callable[[Path], Any]) -> None:
    """What is done to the file after its first byte was read keeps it."""

    def compare(_: int) -> str:
        change(scene.aside)
        return ""

    assert scene.go(compare) == Outcome(Fate.UNDECIDED, "it was changed while it was compared")
    assert scene.path.exists()


def test_stored_into_through_a_map_while_it_is_compared(scene: Scene) -> None:
    """A store through a map that was there and dirty before keeps the source."""
    with scene.path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        mapped[0] = ord("A")  # from now on stores change no time, until the page is written back

        def compare(descriptor: int) -> str:
            assert os.pread(descriptor, 1, 0) == b"A"
            time.sleep(0.02)  # times tick with the kernel's clock
            mapped[0] = ord("B")
            return ""

        outcome = scene.go(compare)
    assert outcome == Outcome(Fate.UNDECIDED, "it was changed while it was compared")
    assert scene.path.read_bytes()[:1] == b"B"


def test_whole_seconds(scene: Scene) -> None:
    """On a file system of whole seconds a change of this second would not show: not yet."""
    real = fresh_status_of

    def coarse(descriptor: int) -> FreshStatus:
        status = real(descriptor)
        return status._replace(st_ctime_ns=status.st_ctime_ns // 10**9 * 10**9)

    with mock.patch.object(module, "fresh_status_of", coarse):
        outcome = scene.go()
        assert outcome.fate is Fate.UNDECIDED
        assert "this file system knows whole seconds only" in outcome.reason
        os.utime(scene.path, (0, 0))
        assert scene.go().reason == "it was changed while it was compared"  # the mock's ctime
    assert scene.path.exists()


def test_replaced_while_it_is_compared(scene: Scene) -> None:
    """A new file under the name stays as it is, and the compared one goes."""

    def compare(_: int) -> str:
        scene.path.write_bytes(b"corrected")
        return ""

    assert scene.go(compare).fate is Fate.TAKEN
    assert scene.names() == {NAME}
    assert scene.path.read_bytes() == b"corrected"


def test_replaced_and_different(scene: Scene) -> None:
    """Two files that claim one name both stay, and the person is told where."""

    def compare(_: int) -> str:
        scene.path.write_bytes(b"corrected")
        return "other voxels"

    outcome = scene.go(compare)
    assert outcome.fate is Fate.UNDECIDED
    assert outcome.reason.startswith("other voxels; another file has taken its name, it is now ")
    assert scene.aside.name in outcome.reason
    assert scene.names() == {NAME, scene.aside.name}
    again = scene.go()
    assert again.fate is Fate.UNDECIDED
    assert again.reason.startswith("two files claim its name: ")
    assert (scene.path.read_bytes(), scene.aside.read_bytes()) == (b"corrected", CONTENT)


def test_the_hidden_file_is_replaced(scene: Scene) -> None:
    """What was not compared does not go, whatever name it has got meanwhile."""

    def compare(_: int) -> str:
        os.rename(scene.aside, scene.folder / "elsewhere")
        scene.aside.write_bytes(CONTENT)
        return ""

    assert scene.go(compare) == Outcome(Fate.UNDECIDED, "it was changed while it was compared")
    assert scene.names() == {NAME, "elsewhere"}


def test_a_late_unlink_meets_only_what_was_compared(scene: Scene) -> None:
    """A process that is stopped right before its unlink deletes no file that came aside since."""

    def hung(proof: Equal) -> str:
        scene.proven.rename(scene.path)  # another process, without locks, gives the name back,
        scene.path.write_bytes(b"corrected")  # the person corrects the source,
        scene.path.rename(scene.aside)  # and the other process has it aside to compare it

        with pytest.raises(FileNotFoundError):
            unlink(proof)
        return "nothing there"

    assert scene.go(take=hung).fate is Fate.UNDECIDED
    assert scene.path.read_bytes() == b"corrected"


def test_given_back_by_another_process(scene: Scene) -> None:
    """Where a process without locks gives the name back meanwhile, nothing is deleted."""

    def compare(_: int) -> str:
        scene.aside.rename(scene.path)
        return ""

    assert scene.go(compare).fate is Fate.UNDECIDED
    assert scene.path.read_bytes() == CONTENT


def test_another_process_compares_it(scene: Scene) -> None:
    """A source that a live process has aside is left to it."""
    scene.path.rename(scene.aside)
    with scene.aside.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert scene.go() == Outcome(Fate.UNDECIDED, "another process is comparing it")
        assert scene.names() == {scene.aside.name}
    assert scene.go().fate is Fate.TAKEN


@pytest.mark.parametrize("which", ["aside", "proven"])
def test_left_by_a_kill(scene: Scene, which: str) -> None:
    """Killed at any point, the source has one of three names, and the next call goes on."""
    scene.path.rename(getattr(scene, which))
    assert presence(scene.folder, scene.name) is Presence.THERE
    assert scene.go(lambda _: "other voxels").fate is Fate.KEPT
    assert scene.names() == {NAME}
    scene.path.rename(getattr(scene, which))
    assert scene.go().fate is Fate.TAKEN
    assert scene.names() == set()


@pytest.mark.parametrize("which", ["aside", "proven"])
def test_killed_between_link_and_unlink(scene: Scene, which: str) -> None:
    """A rename in two steps that was killed between them leaves two names of one file."""
    os.link(scene.path, getattr(scene, which))
    with mock.patch.object(durable, "_renameat2", None):
        assert scene.go(lambda _: "other voxels").fate is Fate.KEPT
        assert scene.names() == {NAME}
        os.link(scene.path, getattr(scene, which))
        assert scene.go().fate is Fate.TAKEN


def test_the_last_look(scene: Scene) -> None:
    """What is said right before the end keeps the source."""
    outcome = scene.go(last_look=lambda: "the command is gone")
    assert outcome == Outcome(Fate.UNDECIDED, "the command is gone")
    assert scene.names() == {NAME}


def test_an_unlink_that_may_have_done_its_work(scene: Scene) -> None:
    """An error after the file is gone is no outcome; one before it gives the name back."""

    def late(proof: Equal) -> NoReturn:
        unlink(proof)
        raise OSError(errno.EIO, "Input/output error")

    def early(_: Equal) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    assert scene.go(take=early).reason == "it could not be taken away: Input/output error"
    assert scene.names() == {NAME}
    with pytest.raises(OSError, match="Input/output error"):
        scene.go(take=late)
    assert scene.names() == set()


def test_a_parent_that_is_renamed_meanwhile(scene: Scene) -> None:
    """The very file that was compared goes, wherever its folder is by then; no other does."""
    twin = scene.folder.with_name("elsewhere")

    def compare(_: int) -> str:
        scene.folder.rename(twin)
        shutil.copytree(twin, scene.folder)
        (scene.folder / scene.aside.name).rename(scene.path)
        return ""

    assert scene.go(compare).fate is Fate.TAKEN
    assert list(twin.iterdir()) == []
    assert scene.path.read_bytes() == CONTENT


def test_another_folder_has_taken_the_name(scene: Scene) -> None:
    """A source that is not in a folder of the same name is not gone."""
    inode = scene.folder.stat().st_ino
    scene.folder.rename(scene.folder.with_name("elsewhere"))
    scene.folder.mkdir()
    outcome = scene.go(folder_inode=inode)
    assert outcome == Outcome(Fate.UNDECIDED, "the folder that it was in cannot be seen now")
