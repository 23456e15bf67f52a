"""One call fails or never returns, a disk is full or read-only: nothing is lost, and it goes on."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest

from ctrate_convert.errors import ExitCode
from tests.crash.disk import Disk, Tree
from tests.crash.scenario import Ending, Scenario, quick_folder
from tests.one_process import hidden
from tests.support import TIMEOUT_S, Finished, convert_words, read_shard_file, run_here
from tests.test_data_loss import needs

KILLED = -signal.SIGKILL


# --- One call that fails ---------------------------------------------------------------------


class Fault(NamedTuple):
    """The ``when``-th ``call`` on ``path`` (below the output, or ``npz/``) fails with ``how``."""

    call: str
    path: str
    how: str
    when: int = 1

    def __str__(self) -> str:
        return f"{self.how} {self.call} {self.when} {Path(self.path).name}"


RUN = ".run/"
SHARD, TAR = hidden("shard-000000"), "shard-000000.tar"
RECORDS = RUN + "records"
RECORD = f"{RECORDS}/{hidden('shard-000000.json')}"
PLANNING = f"{RUN}plans/{hidden('0000')}"
PLAN = f"{PLANNING}/{hidden('samples.jsonl')}"
MANIFEST = hidden("manifest.json")
JOURNAL = RUN + "deletions/shard-000000.jsonl"
SOURCES = "npz/train_1/train_1_a"
SECOND = hidden("shard-000001")

FAILING = (
    Fault("openat", PLAN, "ENOSPC"),
    Fault("write", PLAN, "EDQUOT"),
    Fault("rename", PLANNING, "ESTALE"),
    Fault("fsync", RUN + "plans", "EIO", 2),
    Fault("openat", SHARD, "EDQUOT"),
    Fault("write", SHARD, "ENOSPC"),
    Fault("write", SHARD, "EIO", 11),
    Fault("write", SHARD, "EDQUOT", 24),
    Fault("write", SECOND, "ENOSPC", 17),
    Fault("fsync", SHARD, "EIO"),
    Fault("fsync", SECOND, "ENOSPC"),
    Fault("openat", SHARD, "ESTALE", 2),  # the one that reads it back
    Fault("linkat", TAR, "ESTALE"),
    Fault("linkat", TAR, "EIO"),
    Fault("fsync", "", "EIO", 4),  # the output directory itself, after the link
    Fault("unlink", SHARD, "ESTALE"),
    Fault("close", SHARD, "EIO", 2),
    Fault("openat", RECORD, "ENOSPC"),
    Fault("write", RECORD, "ENOSPC"),
    Fault("fsync", RECORD, "EIO"),
    Fault("linkat", RECORD, "EDQUOT"),
    Fault("fsync", RECORDS, "EIO"),
    Fault("write", MANIFEST, "ENOSPC"),
    Fault("fsync", MANIFEST, "EIO"),
    Fault("rename", MANIFEST, "ESTALE"),
    Fault("openat", JOURNAL, "ENOSPC", 2),
    Fault("write", JOURNAL, "EDQUOT"),
    Fault("fsync", JOURNAL, "EIO"),
    Fault("write", JOURNAL, "ENOSPC", 2),
    Fault("fsync", JOURNAL, "EIO", 2),
    Fault("fsync", SOURCES, "EIO"),
)

KILLING = (
    Fault("rename", PLANNING, "KILL"),
    Fault("write", SHARD, "KILL", 15),
    Fault("fsync", SHARD, "KILL"),
    Fault("linkat", TAR, "KILL"),
    Fault("unlink", SHARD, "KILL"),
    Fault("close", SECOND, "KILL"),
    Fault("linkat", RECORD, "KILL"),
    Fault("rename", MANIFEST, "KILL"),
    Fault("fsync", JOURNAL, "KILL"),
    Fault("unlinkat", SOURCES, "KILL", 2),
    Fault("write", JOURNAL, "KILL", 2),
)

HARMLESS = (
    Fault("openat", SHARD, "EINTR"),
    Fault("write", SHARD, "EINTR", 7),
    Fault("fsync", SHARD, "EINTR"),
    Fault("write", JOURNAL, "EINTR"),
)


@dataclass(frozen=True)
class Laid:
    """Where everything is, as it stood before the first run, and where a run ends."""

    scenario: Scenario
    start: Tree
    ending: Ending

    @property
    def words(self) -> list[object]:
        more = ("--samples_per_shard", 2, "--probe", 0, "--delete_source_files", "--yes")
        return convert_words(self.scenario.made, self.scenario.out, *more)

    def path(self, fault: Fault) -> Path:
        if fault.path.startswith("npz/"):
            return self.scenario.disk_folder / fault.path
        return self.scenario.out / fault.path

    def assert_safe(self) -> None:
        """Every source is there or proven, and no file that looks like a shard is half of one."""
        assert self.scenario.lost() is None
        for path in self.scenario.out.glob("*.tar"):
            assert path.read_bytes() == self.ending.shards[path.name]
            assert len(read_shard_file(path)) == 2

    def assert_goes_on(self) -> None:
        """The same command comes to the end of an undisturbed run."""
        assert self.scenario.run() == ExitCode.DONE
        assert self.scenario.incomplete(self.ending) is None


@pytest.fixture(scope="module")
def laid_once() -> Iterator[Laid]:
    with quick_folder("faults") as folder:
        scenario = Scenario.make(folder)
        start = Disk.load(scenario.disk_folder).now().tree
        assert scenario.run() == ExitCode.DONE
        yield Laid(scenario, start, Ending(scenario.shards(), scenario.manifest()))


@pytest.fixture
def laid(laid_once: Laid) -> Laid:
    """Sources that nobody has touched, and no output."""
    laid_once.scenario.put(laid_once.start)
    return laid_once


def run_with(fault: Fault, laid: Laid, log: Path) -> Finished:
    """The command in one process, under strace; the call was met, or the test fails."""
    needs("strace", "strace", "-o", "/dev/null", "-P", "/", "true")
    how = f"signal={fault.how}" if fault.how == "KILL" else f"error={fault.how}"
    strace = [
        "strace", "-f", "-y", "-o", log, "-P", laid.path(fault),
        "-e", f"trace={fault.call}", "-e", f"inject={fault.call}:{how}:when={fault.when}",
    ]  # fmt: skip
    python = [sys.executable, "-m", "tests.one_process", *laid.words]
    done = subprocess.run(
        [*map(str, strace), *map(str, python)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    told = log.read_text()
    assert "(INJECTED)" in told or "killed by SIGKILL" in told, told + done.stdout + done.stderr
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("fault", FAILING, ids=str)
def test_a_call_that_fails(laid: Laid, tmp_path: Path, fault: Fault) -> None:
    """It is said, with exit code 5; nothing half-done stays; the same command finishes."""
    first = run_with(fault, laid, tmp_path / "strace.txt")
    assert first.code == ExitCode.ENVIRONMENT, first.text
    assert os.strerror(getattr(errno, fault.how)) in first.text
    assert "Traceback" not in first.text
    laid.assert_safe()
    laid.assert_goes_on()


@pytest.mark.parametrize("call", ["openat", "write", "linkat"])
def test_a_quota_that_is_used_up(laid: Laid, tmp_path: Path, call: str) -> None:
    """The word quota is in the error; every source is there, and nothing of a shard."""
    path = TAR if call == "linkat" else SHARD
    first = run_with(Fault(call, path, "EDQUOT"), laid, tmp_path / "strace.txt")
    assert first.code == ExitCode.ENVIRONMENT, first.text
    assert "Disk quota exceeded (the quota there is used up; nothing was lost)" in first.text
    assert "Traceback" not in first.text
    assert all(path.exists() for path in laid.scenario.made.sources.values())
    assert not list(laid.scenario.out.glob("*.tar"))
    assert not list(laid.scenario.out.glob(".shard-*.partial"))
    laid.assert_goes_on()


@pytest.mark.parametrize("fault", KILLING, ids=str)
def test_a_kill_at_a_call(laid: Laid, tmp_path: Path, fault: Fault) -> None:
    """A process that is killed there has lost nothing; the same command finishes."""
    assert run_with(fault, laid, tmp_path / "strace.txt").code == KILLED
    laid.assert_safe()
    laid.assert_goes_on()


@pytest.mark.parametrize("fault", HARMLESS, ids=str)
def test_an_interrupted_call(laid: Laid, tmp_path: Path, fault: Fault) -> None:
    """A call that a signal interrupts is made again; nobody notices."""
    first = run_with(fault, laid, tmp_path / "strace.txt")
    assert first.code == ExitCode.DONE, first.text
    assert laid.scenario.incomplete(laid.ending) is None


@pytest.mark.parametrize("how", ["EIO", "ESTALE"])
def test_a_source_that_cannot_be_removed(laid: Laid, tmp_path: Path, how: str) -> None:
    """It is kept and named, with the reason; ``delete`` takes it once that is mended."""
    first = run_with(Fault("unlinkat", SOURCES, how), laid, tmp_path / "strace.txt")
    assert first.code == ExitCode.DONE, first.text
    assert "1 file was NOT deleted." in first.text
    assert os.strerror(getattr(errno, how)) in first.text
    laid.assert_safe()
    left = [path for path in laid.scenario.made.sources.values() if path.exists()]
    assert [path.parent.name for path in left] == [Path(SOURCES).name]

    assert run_here("delete", laid.scenario.out, "--yes", "--num_workers", 1).code == ExitCode.DONE
    assert laid.scenario.incomplete(laid.ending) is None


# --- A disk that is full, small or read-only -------------------------------------------------

PAGE_BYTES = 4096

TWICE = """
out=$1 kept=$2 options=$3; shift 3
mount -t tmpfs -o size=64m tmpfs "$out" || exit 99
mount -o "remount,$options" "$out" || exit 99
"$@"; echo "at first: $?"
mkdir -p "$kept/first/results" "$kept/then/results"
cp -a "$out" "$kept/first/results/out"; cp -a "$out/../../npz" "$kept/first/npz"
mount -o remount,rw,size=64m "$out" || exit 99
"$@"; echo "then: $?"
cp -a "$out" "$kept/then/results/out"; cp -a "$out/../../npz" "$kept/then/npz"
"""
"""The same command twice, the output being a file system of its own, roomy only the second time."""


def run_twice(laid: Laid, kept: Path, options: str, *more: str) -> str:
    """What it says; ``kept`` gets all files as they are after each run, checked here."""
    can = "mount -t tmpfs -o size=64k tmpfs /mnt && mount -o remount,ro /mnt"
    needs("unshare", "unshare", "-rm", "sh", "-c", can)
    laid.scenario.out.mkdir(parents=True)
    script = ["unshare", "-rm", "sh", "-c", TWICE, "sh", laid.scenario.out, kept, options]
    python = [sys.executable, "-m", "tests.one_process", *laid.words, *more]
    done = subprocess.run(
        [*map(str, script), *map(str, python)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    said = done.stdout + done.stderr
    assert f"at first: {int(ExitCode.ENVIRONMENT)}" in done.stdout, said
    assert f"then: {int(ExitCode.DONE)}" in done.stdout, said
    assert "Traceback" not in said
    first = laid.scenario.at(kept / "first")
    replace(laid, scenario=first).assert_safe()
    assert not list(first.out.glob(".shard-*.partial"))
    assert laid.scenario.at(kept / "then").incomplete(laid.ending) is None
    return said


@pytest.mark.parametrize("chance", range(10))
def test_a_disk_that_is_full(laid: Laid, tmp_path: Path, chance: int) -> None:
    """Wherever it is full, nothing is lost or half there; with space the same command finishes."""
    pages = random.Random(chance).randrange(1, whole_pages(laid))
    begin_all_the_same = ("--min_free_gb", "1e-9")
    said = run_twice(laid, tmp_path, f"size={pages * PAGE_BYTES}", *begin_all_the_same)
    assert "No space left on device (free some space there; nothing was lost)" in said


def whole_pages(laid: Laid) -> int:
    """What a whole output takes: with less, the disk is full at some time."""
    sizes = [len(data) for data in laid.ending.shards.values()]
    return sum(-(-size // PAGE_BYTES) for size in sizes) + FILES_BESIDE


FILES_BESIDE = 12
"""Fewer than there are small files beside the shards: each takes a page at least."""


def test_an_output_that_is_read_only(laid: Laid, tmp_path: Path) -> None:
    """Nothing can be planned there; that is said."""
    said = run_twice(laid, tmp_path, "ro")
    assert "Read-only file system (that file system is mounted read-only)" in said


@pytest.mark.parametrize("limit", [100, 2_700, 5_000, 10_000])
def test_a_limit_on_file_sizes(laid: Laid, limit: int) -> None:
    """A plan, a record or a shard that may not grow is none; without the limit it goes on."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.one_process", *map(str, laid.words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    said = done.stdout + done.stderr
    assert done.returncode == ExitCode.ENVIRONMENT, said
    assert "File too large (a file size limit (ulimit -f) is in the way)" in said
    laid.assert_safe()
    assert not list(laid.scenario.out.glob(".shard-*.partial"))
    laid.assert_goes_on()
