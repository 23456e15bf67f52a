"""What happens while sources go: replaced files, errors that pass, forgeries, and the way back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.store.presence import aside_name
from tests.support import (
    command,
    plan_words,
    run_cli,
    run_here,
    sources_left,
)
from tests.unit.deleting.scenes import (
    Make,
    delete,
    events,
    stopped_while_it_compares,
    strace,
    write_volume,
)
from tests.unit.deleting.two_volumes import CT, first, scene

# --- Replaced between look and end --------------------------------------------------------------


def corrected(path: Path) -> bytes:
    """Put a corrected volume in the place of the one that is being compared."""
    write_volume(path, CT[::-1])
    return path.read_bytes()


@pytest.mark.parametrize("trash", [False, True])
@pytest.mark.parametrize("differs", [False, True])
def test_replaced_while_the_worker_is_stopped(
    make_ctrate: Make, tmp_path: Path, trash: bool, differs: bool
) -> None:
    """A new file under the name stays; the one that was compared goes, or stays beside it."""
    converted = scene(make_ctrate, tmp_path / "out")
    path = first(converted)
    if differs:
        write_volume(path, CT + 5)
    compared = path.read_bytes()
    new: list[bytes] = []
    more = ("--trash", tmp_path / "trash") if trash else ()
    done = stopped_while_it_compares(
        strace("trace=preadv2", "inject=preadv2:delay_enter=100000"),
        aside := path.with_name(aside_name(path.name)),
        lambda: new.append(corrected(path)),
        command("delete", converted.out, "--yes", *more),
    )
    assert path.read_bytes() == new[0]
    assert done.code == ExitCode.REFUSED
    moved = [one for one in (tmp_path / "trash").rglob("*.npz") if one.name == path.name]
    if differs:
        assert aside.read_bytes() == compared
        assert "another file has taken its name" in done.text
        assert not moved
    else:
        assert not aside.exists()
        assert [one.read_bytes() for one in moved] == ([compared] if trash else [])
        assert "its shard does not hold it" in delete(converted).text
    assert path.read_bytes() == new[0]


def test_the_file_aside_is_replaced(make_ctrate: Make, tmp_path: Path) -> None:
    """A file that took the hidden name while the worker was stopped does not go."""
    converted = scene(make_ctrate, tmp_path / "out")
    path = first(converted)
    aside = path.with_name(aside_name(path.name))
    new: list[bytes] = []

    def meanwhile() -> None:
        aside.rename(tmp_path / "compared.npz")
        new.append(corrected(aside.with_name("new.npz")))
        aside.with_name("new.npz").rename(aside)

    done = stopped_while_it_compares(
        strace("trace=preadv2", "inject=preadv2:delay_enter=100000"),
        aside,
        meanwhile,
        command("delete", converted.out, "--yes"),
    )
    assert done.code == ExitCode.REFUSED
    assert "it was changed while it was compared" in done.text
    assert path.read_bytes() == new[0]
    assert (tmp_path / "compared.npz").exists()


# --- Errors that pass ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["EIO", "ESTALE", "EMFILE"])
@pytest.mark.parametrize("call", ["preadv2", "pread64", "renameat2", "fdatasync"])
def test_an_error_that_passes(make_ctrate: Make, tmp_path: Path, error: str, call: str) -> None:
    """One error at a source decides nothing: the same command deletes it the next time."""
    converted = scene(make_ctrate, tmp_path / "out")
    folder = converted.made.data_folder
    aside = folder / aside_name(first(converted).name)
    watched = folder if call == "renameat2" else aside
    words = strace(f"trace={call}", f"inject={call}:error={error}:when=1", path=watched)
    done = run_cli("delete", converted.out, "--yes", before=words)
    assert done.code == ExitCode.REFUSED, done.text
    key = converted.made.keys[0]
    assert sources_left(converted.made) == {key}
    assert events(converted)[key] == "undecided"
    assert run_cli("delete", converted.out, "--yes").code == ExitCode.DONE
    assert not sources_left(converted.made)


def test_an_error_that_passes_along_the_way(make_ctrate: Make, tmp_path: Path) -> None:
    """`run` tries again what it could not decide, without a word to the contrary."""
    made = make_ctrate(2)
    out = tmp_path / "out"
    assert run_here(*plan_words(made, out, "--delete_source_files")).code == ExitCode.DONE
    aside = made.data_folder / aside_name(f"{made.keys[0]}.npz")
    words = strace("trace=pread64", "inject=pread64:error=EIO:when=1", path=aside)
    assert run_cli("run", out, "--yes", before=words).code == ExitCode.REFUSED
    assert sources_left(made) == {made.keys[0]}
    assert run_cli("run", out, "--yes").code == ExitCode.DONE
    assert not sources_left(made)


# --- Folders that move, and processes that die --------------------------------------------------


@pytest.mark.parametrize("again", [False, True], ids=["away", "another in its place"])
def test_the_folder_is_renamed_meanwhile(make_ctrate: Make, tmp_path: Path, again: bool) -> None:
    """What was compared goes from where its folder is by then; the rest is not called deleted."""
    converted = scene(make_ctrate, tmp_path / "out")
    path, folder = first(converted), converted.made.data_folder

    def meanwhile() -> None:
        folder.rename(tmp_path / "moved")
        if again:
            folder.mkdir()

    done = stopped_while_it_compares(
        strace("trace=pread64", "inject=pread64:delay_enter=100000"),
        path.with_name(aside_name(path.name)),
        meanwhile,
        command("delete", converted.out, "--yes"),
    )
    assert done.code == ExitCode.REFUSED
    gone, left = converted.made.keys
    assert [one.name for one in (tmp_path / "moved").iterdir()] == [f"{left}.npz"]
    assert events(converted) == {gone: "deleted", left: "undecided"}
    if again:
        folder.rmdir()
    (tmp_path / "moved").rename(folder)
    assert delete(converted).code == ExitCode.DONE
    assert events(converted) == dict.fromkeys((gone, left), "deleted")


STEPS = ("renameat2", "openat", "flock", "fdatasync", "pread64", "preadv2", "renameat", "unlinkat")


@pytest.mark.parametrize("call", STEPS)
@pytest.mark.parametrize("fate", ["goes", "stays"])
def test_killed_at_a_step(make_ctrate: Make, tmp_path: Path, call: str, fate: str) -> None:
    """Killed at any step, the same command comes to the same end, and leaves nothing hidden."""
    converted = scene(make_ctrate, tmp_path / "out")
    path, folder = first(converted), converted.made.data_folder
    if fate == "stays":
        write_volume(path, CT + 5)
    content = path.read_bytes()
    on_the_file = call in ("flock", "fdatasync", "pread64", "preadv2")
    watched = path.with_name(aside_name(path.name)) if on_the_file else folder
    when = 3 if call == "openat" else 1
    words = strace(f"trace={call}", f"inject={call}:signal=KILL:when={when}", path=watched)
    killed = run_cli("delete", converted.out, "--yes", before=words)
    # The command itself, or the worker that lets go.
    assert killed.code == -signal.SIGKILL or "killed by SIGKILL" in killed.text, killed.text
    done = run_cli("delete", converted.out, "--yes")
    assert done.code == (ExitCode.DONE if fate == "goes" else ExitCode.REFUSED)
    assert sources_left(converted.made) == (set() if fate == "goes" else {converted.made.keys[0]})
    assert not [one for one in folder.iterdir() if one.name[0] == "."]
    if fate == "stays":
        assert path.read_bytes() == content
