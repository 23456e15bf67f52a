"""A disk that is full, small, or read-only from some moment on: nothing is lost, and it goes on."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from ctrate_convert.errors import ExitCode
from tests.one_process import hidden
from tests.promises.crash.scenario import Blosc2Scenario, Scenario
from tests.promises.disks.small_disk import ROOMY, on_small_disk
from tests.promises.faults.laid import Fault, Laid, finished, lay
from tests.support import needs

PAGE_BYTES = 4096
FILES_BESIDE = 12
"""Fewer than there are small files beside the shards: each takes a page at least."""

ENCODINGS: dict[str, type[Scenario]] = {"npy": Scenario, "b2nd": Blosc2Scenario}

Lay = Callable[[str], Laid]


@pytest.fixture(scope="module")
def laid_in() -> Iterator[Lay]:
    """In an encoding: sources that nobody has touched, and no output."""
    made: dict[str, Laid] = {}
    with ExitStack() as stack:

        def laid(encoding: str) -> Laid:
            if encoding not in made:
                made[encoding] = stack.enter_context(lay("disks", ENCODINGS[encoding]))
            made[encoding].scenario.put(made[encoding].start)
            return made[encoding]

        yield laid


@pytest.fixture
def laid(laid_in: Lay) -> Laid:
    """The same in plain arrays."""
    return laid_in("npy")


# --- The output on a file system of its own ---------------------------------------------------

TWICE = """
kept=$1 at_first=$2 mended=$3; shift 3
eval "$at_first" || exit 99
"$@"; echo "at first: $?"
mkdir -p "$kept/first/results" "$kept/then/results"
cp -a "$out" "$kept/first/results/out"; cp -a "$out/../../npz" "$kept/first/npz"
eval "$mended" || exit 99
"$@"; echo "then: $?"
cp -a "$out" "$kept/then/results/out"; cp -a "$out/../../npz" "$kept/then/npz"
"""
"""The same command twice, the output being a file system of its own, well only the second time."""

FULL = (":", ROOMY)
READ_ONLY = ('mount -o remount,ro "$disk"', 'mount -o remount,rw "$disk"')


def run_twice(laid: Laid, kept: Path, how: tuple[str, str], *more: str, free_bytes: int = 0) -> str:
    """What it says; ``kept`` gets all files as they are after each run, checked here."""
    laid.scenario.out.mkdir(parents=True)
    script = on_small_disk(TWICE, laid.scenario.out, kept, free_bytes)
    done = finished([*script, str(kept), *how, *laid.command(*more)])
    assert f"at first: {int(ExitCode.ENVIRONMENT)}" in done.stdout, done.text
    assert f"then: {int(ExitCode.DONE)}" in done.stdout, done.text
    assert "Traceback" not in done.text
    first = laid.scenario.at(kept / "first")
    replace(laid, scenario=first).assert_safe()
    assert not list(first.out.glob(".shard-*.partial"))
    assert laid.scenario.at(kept / "then").incomplete(laid.ending) is None
    return done.text


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("chance", range(10))
def test_a_disk_that_is_full(laid_in: Lay, tmp_path: Path, encoding: str, chance: int) -> None:
    """Wherever it is full, nothing is lost or half there; with space the same command finishes."""
    laid = laid_in(encoding)
    pages = random.Random(chance).randrange(1, whole_pages(laid))
    begin_all_the_same = ("--min_free_gb", "1e-9")
    free_bytes = pages * PAGE_BYTES
    said = run_twice(laid, tmp_path, FULL, *begin_all_the_same, free_bytes=free_bytes)
    assert "No space left on device (free some space there; nothing was lost)" in said


def whole_pages(laid: Laid) -> int:
    """What a whole output takes: with less, the disk is full at some time."""
    sizes = [len(data) for data in laid.ending.shards.values()]
    return sum(-(-size // PAGE_BYTES) for size in sizes) + FILES_BESIDE


def test_an_output_that_is_read_only(laid: Laid, tmp_path: Path) -> None:
    """Nothing can be planned there; that is said."""
    said = run_twice(laid, tmp_path, READ_ONLY)
    assert "Read-only file system (that file system is mounted read-only)" in said


# --- A folder that turns read-only while it is at work ----------------------------------------

TURNING = """
folder=$1 log=$2 call=$3 path=$4 inject=$5; shift 5
strace -f -o "$log" -P "$path" -e "trace=$call" -e "$inject" "$@" & strace=$!
until grep -q 'stopped by SIGSTOP' "$log" 2>/dev/null; do
    kill -0 $strace 2>/dev/null || exit 98
    sleep 0.02
done
mount --bind "$folder" "$folder" && mount -o remount,bind,ro "$folder" || exit 99
kill -CONT "$(sed -n 's/^\\([0-9]*\\) .*stopped by SIGSTOP.*/\\1/p' "$log" | head -n 1)"
wait $strace; echo "at first: $?"
"""
"""The command, stopped at one call, goes on where every path into the folder is read-only."""

RECORD, TAR = hidden("shard-000000.json"), hidden("shard-000000")
JOURNAL = ".run/deletions/shard-000000.jsonl"
SOURCES = "npz/train_1/train_1_a"

TURNS = (
    Fault("rename", f".run/plans/{hidden('0000')}", "STOP"),
    Fault("write", TAR, "STOP", 5),
    Fault("fsync", TAR, "STOP"),
    Fault("linkat", "shard-000000.tar", "STOP"),
    Fault("unlink", TAR, "STOP"),
    Fault("linkat", f".run/records/{RECORD}", "STOP"),
    Fault("fsync", ".run/records", "STOP"),
    Fault("rename", hidden("manifest.json"), "STOP"),
    Fault("openat", JOURNAL, "STOP", 2),
    Fault("fsync", ".run/consents", "STOP"),
    Fault("renameat2", SOURCES, "STOP"),
    Fault("unlinkat", SOURCES, "STOP"),
    Fault("write", hidden("shard-000001"), "STOP"),
)


def turn_read_only(laid: Laid, folder: Path, at: Fault, log: Path) -> tuple[int, str]:
    """The exit code and what is said by a command in whose midst ``folder`` turns read-only."""
    can = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'
    needs("unshare", "unshare", "-rm", "sh", "-c", can, str(folder))
    needs("strace", "strace", "-o", "/dev/null", "-P", "/", "true")
    _, inject = at.strace
    words = [folder, log, at.call, laid.path(at), inject]
    script = ["unshare", "-rm", "sh", "-c", TURNING, "sh", *words]
    done = finished([*map(str, script), *laid.command()])
    assert "Traceback" not in done.text
    assert "at first: " in done.stdout, done.text
    return int(done.stdout.rpartition("at first: ")[2]), done.text


@pytest.mark.parametrize("at", TURNS, ids=str)
def test_an_output_that_turns_read_only(laid: Laid, tmp_path: Path, at: Fault) -> None:
    """At whatever call: it is said, no source is lost, and once it is mended all is done."""
    laid.scenario.out.mkdir(parents=True)
    code, said = turn_read_only(laid, laid.scenario.out, at, tmp_path / "strace.txt")
    assert code == ExitCode.ENVIRONMENT, said
    assert "Read-only file system (that file system is mounted read-only)" in said
    laid.assert_safe()
    laid.assert_goes_on()


def test_a_data_folder_that_turns_read_only(laid: Laid, tmp_path: Path) -> None:
    """Every source is kept, with the reason; the same command takes them once that is mended."""
    folder = laid.scenario.made.data_folder
    code, said = turn_read_only(laid, folder, TURNS[0], tmp_path / "strace.txt")
    assert code == ExitCode.REFUSED, said
    assert "4 files were NOT deleted." in said
    assert "Read-only file system" in said
    assert all(path.exists() for path in laid.scenario.made.sources.values())
    laid.assert_safe()
    laid.assert_goes_on()


# --- A limit on the size of files --------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("limit", [100, 2_700, 5_000, 10_000])
def test_a_limit_on_file_sizes(laid_in: Lay, encoding: str, limit: int) -> None:
    """A plan, a record or a shard that may not grow is none; without the limit it goes on."""
    laid = laid_in(encoding)
    first = finished(
        laid.command(), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert first.code == ExitCode.ENVIRONMENT, first.text
    assert "File too large (a file size limit (ulimit -f) is in the way)" in first.text
    laid.assert_safe()
    assert not list(laid.scenario.out.glob(".shard-*.partial"))
    laid.assert_goes_on()
