"""Sources moved to a trash instead of deleted: the same proof, nothing overwritten, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.conversion.deletion import read_journal
from ctrate_convert.conversion.trash import last_lines
from ctrate_convert.errors import ExitCode
from tests.support import (
    Converted,
    Finished,
    convert_words,
    plan_words,
    read_dataset,
    run_here,
    sources_left,
)


@pytest.fixture
def trash(tmp_path: Path) -> Path:
    return tmp_path / "trash"


def contents(made: Any) -> dict[str, tuple[bytes, int]]:
    """Each source's bytes and modification time."""
    return {
        key: (path.read_bytes(), path.stat().st_mtime_ns)
        for key, path in made.sources.items()
        if path.exists()
    }


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def newest_events(converted: Converted) -> dict[str, str]:
    return {
        key: line.event
        for shard in range(2)
        for key, line in last_lines(read_journal(converted.dataset, shard)).items()
    }


def delete(converted: Converted, trash: Path) -> Finished:
    return run_here("delete", converted.out, "--yes", "--trash", trash)


def test_there_and_back(converted: Converted, trash: Path) -> None:
    """Every source goes to the trash under its proof, and comes back as it was, byte for byte."""
    before = contents(converted.made)
    moved = delete(converted, trash)
    assert moved.code == ExitCode.DONE
    assert "Moved 8 source files to the trash" in moved.stdout
    assert "nothing is freed until you empty it" in moved.stdout
    assert " freed." not in moved.stdout
    assert sources_left(converted.made) == set()
    assert len(files_below(trash)) == 8
    assert all(name.startswith(("shard-000000/", "shard-000001/")) for name in files_below(trash))
    shown = run_here("delete", converted.out, "--json").json()
    assert shown["totals"]["trashed"]["files"] == 8
    assert run_here("verify", converted.out, "--full").code == ExitCode.DONE

    back = run_here("restore", converted.out)
    assert back.code == ExitCode.DONE
    assert "Restored 8 source files" in back.stdout
    assert contents(converted.made) == before
    assert files_below(trash) == set()
    assert set(newest_events(converted).values()) == {"restored"}
    assert "Nothing is in a trash." in run_here("restore", converted.out).stdout


def test_one_key_comes_back(converted: Converted, trash: Path) -> None:
    """--key restores that sample's source alone; a key that is in no trash is refused."""
    delete(converted, trash)
    key = next(iter(converted.made.sources))
    assert run_here("restore", converted.out, "--key", key).code == ExitCode.DONE
    assert sources_left(converted.made) == {key}
    again = run_here("restore", converted.out, "--key", key)
    assert again.code == ExitCode.USAGE
    assert key in again.text


def test_a_restored_source_is_kept(converted: Converted, trash: Path) -> None:
    """The gate does not let it go again: its change time is not the proven one any more."""
    delete(converted, trash)
    run_here("restore", converted.out)
    again = delete(converted, trash)
    assert again.code == ExitCode.REFUSED
    assert "it is not the file that was read any more (ctime_ns" in again.stdout
    assert len(sources_left(converted.made)) == 8


def test_along_the_way(ctrate: Any, tmp_path: Path, trash: Path) -> None:
    """`convert --delete_source_files --trash` moves each shard's sources once it is proven."""
    out = tmp_path / "out"
    done = run_here(
        *convert_words(ctrate, out, "--samples_per_shard", 3),
        "--delete_source_files", "--yes", "--trash", trash,
    )  # fmt: skip
    assert done.code == ExitCode.DONE
    assert "Moved 8 source files to the trash" in done.stdout
    assert sources_left(ctrate) == set()
    assert len(files_below(trash)) == 8
    assert len(read_dataset(out)) == 8
    audit = run_here("audit", out, "--json").json()
    assert audit["summary"]["in_the_trash"] == audit["summary"]["deleted_sources"] == 8
    assert audit["summary"]["findings"] == 0
    assert {source["trash"] for source in audit["sources"]} == {
        str(trash.resolve() / name) for name in files_below(trash)
    }
    assert run_here("run", out).code == ExitCode.DONE
    assert run_here("restore", out).code == ExitCode.DONE
    assert len(sources_left(ctrate)) == 8
    assert run_here("audit", out, "--json").json()["summary"]["deleted_sources"] == 0


def test_the_plan_remembers_the_trash(ctrate: Any, tmp_path: Path, trash: Path) -> None:
    """A later `run` by the plan's leave, as an array task gives it, uses it too."""
    out = tmp_path / "out"
    planned = run_here(
        *plan_words(ctrate, out, "--delete_source_files", "--trash", trash, "--probe", 0)
    )
    assert planned.code == ExitCode.DONE
    assert run_here("run", out).code == ExitCode.DONE
    assert len(files_below(trash)) == 8


# --- What cannot serve --------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["data_folder", "out"])
def test_a_trash_that_would_be_found_again(converted: Converted, inside: str) -> None:
    """A trash in the data folder or in the dataset directory is refused before anything."""
    folder = converted.made.data_folder if inside == "data_folder" else converted.out
    refused = delete(converted, folder / "trash")
    assert refused.code == ExitCode.USAGE
    assert "the trash lies in the data" in refused.text
    assert not (folder / "trash").exists()
    assert len(sources_left(converted.made)) == 8


def test_another_file_system(converted: Converted, tmp_path: Path) -> None:
    """Moving must not become copying."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    elsewhere = memory / f"ctrate-trash-{os.getpid()}"
    try:
        refused = delete(converted, elsewhere)
    finally:
        elsewhere.rmdir()
    assert refused.code == ExitCode.USAGE
    assert "on another file system" in refused.text
    assert len(sources_left(converted.made)) == 8


def test_a_trash_without_deletion_is_refused(ctrate: Any, tmp_path: Path, trash: Path) -> None:
    """--trash alone would move nothing, which nobody would expect."""
    refused = run_here(*plan_words(ctrate, tmp_path / "out", "--trash", trash))
    assert refused.code == ExitCode.USAGE
    assert "--delete_source_files" in refused.text
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_taken(converted: Converted, trash: Path) -> None:
    """Nothing in the trash is overwritten: that source stays where it is."""
    source = converted.record(0).converted[0].source.source
    taken = trash / "shard-000000" / source
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"somebody's")
    moved = delete(converted, trash)
    assert moved.code == ExitCode.REFUSED
    assert "its place in the trash is taken" in moved.stdout
    assert taken.read_bytes() == b"somebody's"
    assert sources_left(converted.made) == {converted.record(0).converted[0].key}


def test_no_link_in_the_trash_is_followed(
    converted: Converted, trash: Path, tmp_path: Path
) -> None:
    """A folder of the trash that is a link leads nowhere; the sources stay."""
    outside = tmp_path / "outside"
    outside.mkdir()
    trash.mkdir()
    (trash / "shard-000000").symlink_to(outside)
    moved = delete(converted, trash)
    assert moved.code == ExitCode.REFUSED
    assert files_below(outside) == set()
    assert sources_left(converted.made) == {s.key for s in converted.record(0).converted}


def test_nothing_is_overwritten_on_the_way_back(converted: Converted, trash: Path) -> None:
    """A file that has taken a source's old place stays, and so does the one in the trash."""
    delete(converted, trash)
    sample = converted.record(0).converted[0]
    place = converted.made.sources[sample.key]
    place.write_bytes(b"new")
    back = run_here("restore", converted.out)
    assert back.code == ExitCode.REFUSED
    assert f"left in the trash: {sample.source.source} — another file is in its place" in (
        back.stdout
    )
    assert place.read_bytes() == b"new"
    assert len(files_below(trash)) == 1
    assert len(sources_left(converted.made)) == 8


# --- Kills and tampering ------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from ctrate_convert import durable
from ctrate_convert.conversion import gate
from ctrate_convert.conversion.manifest import merge
from ctrate_convert.conversion.worker import Order, _carry_out, _Reporter
from multiprocessing import Pipe
from pathlib import Path

move, moved = durable.move_if_free, 0

def move_and_die(*arguments):
    global moved
    done = move(*arguments)
    moved += 1
    if moved == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

gate.move_if_free = move_and_die
ours, theirs = Pipe()
order = Order(Path(sys.argv[1]), 0, "test", "test", trash=Path(sys.argv[2]))
_carry_out(order, _Reporter(theirs, 0))
"""


def test_killed_between_move_and_journal(converted: Converted, trash: Path) -> None:
    """The next `delete` finds moved files in the trash, says so, and all of them come back."""
    trash.mkdir()
    before = contents(converted.made)
    killed = subprocess.run([sys.executable, "-c", KILLED, converted.out, trash], check=False)
    assert killed.returncode == -9
    assert len(files_below(trash)) == 2
    assert set(newest_events(converted).values()) == set()
    assert delete(converted, trash).code == ExitCode.DONE
    assert set(newest_events(converted).values()) == {"trashed"}
    assert run_here("restore", converted.out).code == ExitCode.DONE
    assert contents(converted.made) == before


def test_a_restore_that_was_killed_goes_on(converted: Converted, trash: Path) -> None:
    """A file that is back already, without its journal line, is told of as restored."""
    delete(converted, trash)
    sample = converted.record(0).converted[0]
    place = trash / "shard-000000" / sample.source.source
    place.rename(converted.made.sources[sample.key])
    back = run_here("restore", converted.out)
    assert back.code == ExitCode.DONE
    assert "Restored 8 source files" in back.stdout
    assert newest_events(converted)[sample.key] == "restored"


def forged_root(line: dict[str, Any], victim: Path) -> None:
    line["trash"] = f"{victim}/shard-000000/{line['source']}"


def forged_place(line: dict[str, Any], victim: Path) -> None:
    line["trash"] = str(victim / "precious")


def forged_climb(line: dict[str, Any], victim: Path) -> None:
    line["trash"] = f"{victim}/../{victim.name}/shard-000000/{line['source']}"


def forged_source(line: dict[str, Any], victim: Path) -> None:
    line["source"] = "elsewhere.npz"
    line["trash"] = f"{victim}/shard-000000/elsewhere.npz"


def forged_key(line: dict[str, Any], victim: Path) -> None:
    line["key"] = "train_99_a_1"
    forged_root(line, victim)


@pytest.mark.parametrize(
    "forge", [forged_root, forged_place, forged_climb, forged_source, forged_key]
)
def test_a_forged_journal_moves_nothing(
    converted: Converted,
    trash: Path,
    tmp_path: Path,
    forge: Callable[[dict[str, Any], Path], None],
) -> None:
    """Whatever a journal says, only the very file that was read is moved, to its own place."""
    delete(converted, trash)
    victim = tmp_path / "victim"
    path = converted.dataset.journal(0)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    one = next(line for line in lines if line["event"] == "trashed")
    place = victim / "shard-000000" / one["source"]
    for file in (place, victim / "precious", victim / "shard-000000" / "elsewhere.npz"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"precious")
    before = files_below(victim)
    key = one["key"]
    forge(one, victim)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    back = run_here("restore", converted.out)
    assert back.code == ExitCode.REFUSED
    assert files_below(victim) == before
    assert not converted.made.sources[key].exists()
    assert not (converted.made.data_folder / "elsewhere.npz").exists()
