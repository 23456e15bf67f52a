"""Sources moved to a trash instead of deleted: the same proof, nothing overwritten, and back."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.deleting.gate import Release, release_sources
from ctrate_convert.deleting.trash import Identity, is_in_trash, last_lines, place_in_trash
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.journals import open_intents, read_journal
from ctrate_convert.store.presence import aside_name
from tests.consents import allow_deletion
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
    assert f"nothing is freed until you empty {trash.resolve()}." in moved.stdout
    assert " freed." not in moved.stdout
    assert sources_left(converted.made) == set()
    assert len(files_below(trash)) == 8
    assert all(name.startswith(("shard-000000/", "shard-000001/")) for name in files_below(trash))
    shown = run_here("delete", converted.out, "--dry_run", "--json").json()
    assert shown["totals"]["trashed"]["files"] == 8
    assert run_here("verify", converted.out, "--full").code == ExitCode.DONE

    back = run_here("restore", converted.out)
    assert back.code == ExitCode.DONE
    assert "Restored 8 source files" in back.stdout
    assert f"Back in: {converted.made.data_folder}. Next: ctrate-convert delete" in back.stdout
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
    """The journal says that a person brought it back, and neither `delete` nor `run` takes it."""
    delete(converted, trash)
    run_here("restore", converted.out)
    again = delete(converted, trash)
    assert again.code == ExitCode.REFUSED
    assert again.stdout.count("restored from the trash, ") == 8
    assert len(sources_left(converted.made)) == 8
    assert run_here("run", converted.out, "--yes").code == ExitCode.DONE
    assert len(sources_left(converted.made)) == 8
    assert files_below(trash) == set()


def test_the_gate_keeps_what_was_restored(converted: Converted, trash: Path) -> None:
    """A restored source beside others that may go is kept by the gate itself."""
    consent = allow_deletion(converted.dataset)
    delete(converted, trash)
    key = converted.record(0).converted[0].key
    run_here("restore", converted.out, "--key", key)
    lines = converted.dataset.journal(0).read_bytes()
    plan = converted.plan
    release = Release(converted.dataset, plan, plan.shards[0], converted.record(0), consent.name)
    kept = release_sources(release).kept
    assert [(one.key, one.reason[:24]) for one in kept] == [(key, "restored from the trash,")]
    assert sources_left(converted.made) == {key}
    assert converted.dataset.journal(0).read_bytes().startswith(lines)


def test_what_was_brought_back_by_hand_is_kept(converted: Converted, trash: Path) -> None:
    """A source that the journal has in the trash, and that is home, was wanted by somebody."""
    delete(converted, trash)
    sample = converted.record(0).converted[0]
    (trash / "shard-000000" / sample.source.source).rename(converted.made.sources[sample.key])
    again = delete(converted, trash)
    assert again.code == ExitCode.REFUSED
    assert "it is back from the trash, where it was moved" in again.stdout
    assert sources_left(converted.made) == {sample.key}


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
    """A later `run` moves the sources to the trash that the plan names."""
    out = tmp_path / "out"
    planned = run_here(
        *plan_words(ctrate, out, "--delete_source_files", "--trash", trash, "--probe", 0)
    )
    assert planned.code == ExitCode.DONE
    assert run_here("run", out, "--yes").code == ExitCode.DONE
    assert sources_left(ctrate) == set()
    assert len(files_below(trash)) == 8


def test_an_earlier_plan_without_a_trash(ctrate: Any, tmp_path: Path, trash: Path) -> None:
    """What was planned before --trash was given is moved too, and never deleted for good."""
    out = tmp_path / "out"
    before = contents(ctrate)
    words = ("--delete_source_files", "--probe", 0)
    assert run_here(*plan_words(ctrate, out, *words)).code == ExitCode.DONE
    done = run_here(*convert_words(ctrate, out, *words), "--yes", "--trash", trash)
    assert done.code == ExitCode.DONE
    assert "Moved 8 source files to the trash" in done.stdout
    assert len(files_below(trash)) == 8
    assert run_here("restore", out).code == ExitCode.DONE
    assert contents(ctrate) == before


@pytest.mark.parametrize("named", ["earlier", "later"])
def test_a_trash_is_for_every_plan(
    make_ctrate: Any, tmp_path: Path, trash: Path, named: str
) -> None:
    """Of two plans one names a trash: `convert` moves the sources of both, and deletes none."""
    out, ctrate = tmp_path / "out", make_ctrate(8)
    late = [*ctrate.sources.values()][-1]
    late.rename(tmp_path / late.name)
    words = ["--delete_source_files", "--probe", 0]
    with_trash = [*words, "--trash", trash]
    first, second = (with_trash, words) if named == "earlier" else (words, with_trash)
    assert run_here(*plan_words(ctrate, out, *first)).code == ExitCode.DONE
    (tmp_path / late.name).rename(late)
    done = run_here(*convert_words(ctrate, out, *second), "--yes")
    assert done.code == ExitCode.DONE, done.text
    assert "Moved 8 source files to the trash" in done.stdout
    assert len(files_below(trash)) == 8


def test_a_plan_cannot_give_an_earlier_one_a_trash(
    ctrate: Any, tmp_path: Path, trash: Path
) -> None:
    """`run` would go by the earlier plan and delete for good, so `plan --trash` is refused; once
    the earlier plan's sources went, it is not."""
    out = tmp_path / "out"
    words = ("--delete_source_files", "--probe", 0)
    assert run_here(*plan_words(ctrate, out, *words)).code == ExitCode.DONE
    refused = run_here(*plan_words(ctrate, out, *words, "--trash", trash))
    assert refused.code == ExitCode.REFUSED
    assert "an earlier plan" in refused.text
    assert not trash.exists()
    assert run_here("run", out, "--yes").code == ExitCode.DONE
    again = run_here(*plan_words(ctrate, out, *words, "--trash", trash))
    assert "an earlier plan" not in again.text


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
    refused = delete(converted, elsewhere)
    assert not elsewhere.exists()
    assert refused.code == ExitCode.USAGE
    assert "on another file system" in refused.text
    assert len(sources_left(converted.made)) == 8


def test_a_trash_without_deletion_is_refused(ctrate: Any, tmp_path: Path, trash: Path) -> None:
    """--trash alone would move nothing, which nobody would expect."""
    refused = run_here(*plan_words(ctrate, tmp_path / "out", "--trash", trash))
    assert refused.code == ExitCode.USAGE
    assert "--delete_source_files" in refused.text
    assert not (tmp_path / "out").exists()


def test_a_trash_that_is_a_link(converted: Converted, tmp_path: Path) -> None:
    """It could lead elsewhere tomorrow, so it is refused before anything."""
    folder = tmp_path / "folder"
    folder.mkdir()
    link = tmp_path / "link"
    link.symlink_to(folder)
    refused = delete(converted, link)
    assert refused.code == ExitCode.USAGE
    assert "the trash is a link" in refused.text
    assert len(sources_left(converted.made)) == 8


@pytest.mark.parametrize(
    ("to", "code", "words"),
    [
        ("outside", ExitCode.REFUSED, "is reached through a link"),
        ("npz", ExitCode.USAGE, "the trash lies in the data folder"),
    ],
)
def test_a_trash_that_becomes_a_link(
    ctrate: Any, tmp_path: Path, to: str, code: ExitCode, words: str
) -> None:
    """Between the plan and the run: nothing follows it, and the sources stay."""
    out, trash = tmp_path / "out", tmp_path / "trash"
    more = ("--delete_source_files", "--trash", trash, "--probe", 0)
    assert run_here(*plan_words(ctrate, out, *more)).code == ExitCode.DONE
    target = ctrate.data_folder if to == "npz" else tmp_path / "outside"
    target.mkdir(exist_ok=True)
    if trash.is_dir():
        trash.rmdir()
    trash.symlink_to(target)
    before = files_below(target)
    done = run_here("run", out, "--yes")
    assert done.code == code
    assert words in done.text
    assert files_below(target) == before
    assert len(sources_left(ctrate)) == 8


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
from ctrate_convert.store import durable
from ctrate_convert.deleting import trash
from ctrate_convert.running.worker import Order, _carry_out, _Reporter
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

trash.move_if_free = move_and_die
ours, theirs = Pipe()
order = Order(Path(sys.argv[1]), 0, "test", consent=sys.argv[2], releasing=True)
_carry_out(order, _Reporter(theirs, 0))
"""


def test_killed_between_move_and_journal(converted: Converted, trash: Path) -> None:
    """The next `delete` finds moved files in the trash, says so, and all of them come back."""
    before = contents(converted.made)
    kill_between(converted, trash)
    assert set(newest_events(converted).values()) == set()
    assert delete(converted, trash).code == ExitCode.DONE
    assert set(newest_events(converted).values()) == {"trashed"}
    assert run_here("restore", converted.out).code == ExitCode.DONE
    assert contents(converted.made) == before


def kill_between(converted: Converted, trash: Path) -> None:
    trash.mkdir()
    consent = allow_deletion(converted.dataset, trash=str(trash.resolve()))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, converted.out, consent.name], check=False
    )
    assert killed.returncode == -9
    assert len(files_below(trash)) == 2


def test_restore_right_after_such_a_kill(converted: Converted, trash: Path) -> None:
    """It goes by the intents too: what was moved comes back, what was only meant to is left out."""
    before = contents(converted.made)
    kill_between(converted, trash)
    shown = run_here("delete", converted.out, "--dry_run", "--json").json()
    assert shown["totals"]["trashed"]["files"] == 2
    stayed = next(iter(sources_left(converted.made)))
    assert run_here("restore", converted.out, "--key", stayed).code == ExitCode.USAGE
    back = run_here("restore", converted.out)
    assert back.code == ExitCode.DONE
    assert "Restored 2 source files" in back.stdout
    assert contents(converted.made) == before
    assert files_below(trash) == set()


def test_a_second_kill_leaves_no_open_intent(converted: Converted, trash: Path) -> None:
    """An older `trashed` line does not stand for a newer intent; what was restored once and is
    there still is kept."""
    kill_between(converted, trash)
    journal = converted.dataset.journal(0)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    older = [line | {"event": event} for line in lines for event in ("trashed", "restored")]
    journal.write_text("".join(json.dumps(line) + "\n" for line in [*older, *lines]))
    there = sources_left(converted.made) & {line["key"] for line in lines}
    assert len(there) == 2
    assert delete(converted, trash).code == ExitCode.REFUSED
    assert not open_intents(read_journal(converted.dataset, 0))
    assert sources_left(converted.made) == there
    expected = dict.fromkeys(converted.originals, "trashed") | dict.fromkeys(there, "restored")
    assert newest_events(converted) == expected


def test_a_move_is_durable_before_the_journal_tells(
    converted: Converted, trash: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that a killed process made: its new place is fsynced, then the old one."""
    kill_between(converted, trash)
    source = converted.record(0).converted[0].source
    place = place_in_trash(0, source.source)
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert is_in_trash(trash, place, Identity.recorded(source))
    assert synced == [str((trash / place).parent)]


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


def forged_inode(line: dict[str, Any], victim: Path) -> None:
    line["inode"] += 1


def forged_time(line: dict[str, Any], victim: Path) -> None:
    line["mtime_ns"] += 1


def forged_identity(line: dict[str, Any], victim: Path) -> None:
    """A file of somebody's stands where the trash is said to be, and the journal fits it."""
    forged_root(line, victim)
    status = Path(line["trash"]).stat()
    line["inode"], line["mtime_ns"] = status.st_ino, status.st_mtime_ns
    line["size_bytes"] = status.st_size


@pytest.mark.parametrize(
    "forge",
    [
        forged_root, forged_place, forged_climb, forged_source, forged_key,
        forged_inode, forged_time, forged_identity,
    ],
)  # fmt: skip
def test_a_forged_journal_moves_nothing(
    converted: Converted,
    trash: Path,
    tmp_path: Path,
    forge: Callable[[dict[str, Any], Path], None],
) -> None:
    """Whatever a journal says, only the very file that was read is moved, to its own place."""
    originals = contents(converted.made)
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
    key, source = one["key"], one["source"]
    forge(one, victim)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    back = run_here("restore", converted.out)
    assert back.code == ExitCode.REFUSED
    assert files_below(victim) == before
    # Under another key the line leaves this key's own intent open, by which its file comes home.
    is_home = forge is forged_key
    assert converted.made.sources[key].exists() == is_home
    assert (trash / "shard-000000" / source).exists() == (not is_home)
    assert contents(converted.made).items() <= originals.items()
    assert not (converted.made.data_folder / "elsewhere.npz").exists()


def test_a_touched_source_goes_and_comes_back(converted: Converted, trash: Path) -> None:
    """The journal knows a file that was touched since it was converted, and moved to a trash."""
    sample = converted.record(0).converted[0]
    os.utime(converted.made.sources[sample.key], ns=(1, 1))
    before = contents(converted.made)
    assert delete(converted, trash).code == ExitCode.DONE
    audit = run_here("audit", converted.out, "--json").json()["summary"]
    assert (audit["in_the_trash"], audit["findings"]) == (8, 0)
    assert run_here("restore", converted.out).code == ExitCode.DONE
    assert contents(converted.made) == before


@pytest.mark.parametrize("plant", ["file", "link", "fifo", "folder"])
def test_a_planted_hidden_name_takes_nothing(
    converted: Converted, trash: Path, tmp_path: Path, plant: str
) -> None:
    """Whatever others put under the hidden name of a source, that stays, and so does the source;
    the rest is moved, and once the plant is away the same command finishes."""
    sample = converted.record(0).converted[0]
    source = converted.made.sources[sample.key]
    aside = source.with_name(aside_name(source.name))
    precious = tmp_path / "precious.npz"
    precious.write_bytes(b"precious")
    if plant == "file":
        aside.write_bytes(b"precious")
    elif plant == "link":
        aside.symlink_to(precious)
    elif plant == "fifo":
        os.mkfifo(aside)
    else:
        aside.mkdir()
    before, kind = source.read_bytes(), stat.S_IFMT(os.lstat(aside).st_mode)
    moved = delete(converted, trash)
    assert moved.code == ExitCode.REFUSED
    assert sources_left(converted.made) == {sample.key}
    assert source.read_bytes() == before
    assert stat.S_IFMT(os.lstat(aside).st_mode) == kind
    assert precious.read_bytes() == b"precious"
    assert run_here("restore", converted.out, "--key", sample.key).code == ExitCode.USAGE
    aside.rmdir() if plant == "folder" else aside.unlink()
    assert delete(converted, trash).code == ExitCode.DONE
    assert sources_left(converted.made) == set()


def plant_link(place: Path) -> None:
    place.symlink_to("elsewhere")


@pytest.mark.parametrize("plant", [plant_link, os.mkfifo, os.mkdir])
def test_what_is_planted_never_gets_a_sources_name(
    converted: Converted, trash: Path, plant: Callable[[Path], None]
) -> None:
    """What is no file keeps the hidden name of a source that was moved to a trash, or deleted."""
    moved, deleted = (converted.record(shard).converted[0] for shard in (0, 1))
    trash.mkdir()
    assert run_here("delete", converted.out, "--yes", "--trash", trash).code == ExitCode.DONE
    (trash / "shard-000001" / deleted.source.source).unlink()
    journal = converted.dataset.journal(1)
    journal.write_text(journal.read_text().replace('"trashed"', '"deleted"'))
    homes = [converted.made.sources[one.key] for one in (moved, deleted)]
    planted = [home.with_name(aside_name(home.name)) for home in homes]
    for place in planted:
        plant(place)
    for words in (("delete", "--yes"), ("run", "--yes"), ("restore", "--key", moved.key)):
        run_here(words[0], converted.out, *words[1:])
        assert not any(place.is_file() or not os.path.lexists(place) for place in planted)
        assert not os.path.lexists(homes[1])
    assert homes[0].is_file()
    assert newest_events(converted)[moved.key] == "restored"
    audit = run_here("audit", converted.out, "--json").json()["summary"]
    assert audit["findings"] == 0
