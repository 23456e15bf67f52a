"""One call fails or never returns: nothing is lost, and it goes on."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.store.presence import aside_name
from tests.one_process import hidden
from tests.promises.faults.laid import Fault, Laid, finished, lay
from tests.support import Finished, needs

KILLED = -signal.SIGKILL

RUN = ".run/"
SHARD, TAR = hidden("shard-000000"), "shard-000000.tar"
RECORDS = RUN + "records"
CONSENTS = RUN + "consents"
RECORD = f"{RECORDS}/{hidden('shard-000000.json')}"
PLANNING = f"{RUN}plans/{hidden('0000')}"
PLAN = f"{RUN}plans/{hidden('samples')}"
MANIFEST = hidden("manifest.json")
JOURNAL = RUN + "deletions/shard-000000.jsonl"
SOURCES = "npz/train_1/train_1_a"
ASIDE = f"{SOURCES}/{aside_name('train_1_a_1.npz')}"
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
    Fault("fsync", RECORDS, "EIO", 3),
    Fault("fsync", CONSENTS, "EIO"),
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
    Fault("fsync", CONSENTS, "KILL"),
    Fault("renameat2", SOURCES, "KILL"),
    Fault("renameat2", SOURCES, "KILL", 2),
    Fault("openat", SOURCES, "KILL", 4),
    Fault("statx", SOURCES, "KILL", 6),
    Fault("unlinkat", SOURCES, "KILL"),
    Fault("unlinkat", SOURCES, "KILL", 2),
    Fault("fsync", SOURCES, "KILL"),
    Fault("write", JOURNAL, "KILL", 2),
)

HARMLESS = (
    Fault("openat", SHARD, "EINTR"),
    Fault("write", SHARD, "EINTR", 7),
    Fault("fsync", SHARD, "EINTR"),
    Fault("write", JOURNAL, "EINTR"),
)


@pytest.fixture(scope="module")
def laid_once() -> Iterator[Laid]:
    with lay("faults") as laid:
        yield laid


@pytest.fixture
def laid(laid_once: Laid) -> Laid:
    """Sources that nobody has touched, and no output."""
    laid_once.scenario.put(laid_once.start)
    return laid_once


def run_with(fault: Fault, laid: Laid, log: Path) -> Finished:
    """The command in one process, under strace; the call was met, or the test fails."""
    needs("strace", "strace", "-o", "/dev/null", "-P", "/", "true")
    strace = ["strace", "-f", "-y", "-o", log, "-P", laid.path(fault), "-e", f"trace={fault.call}"]
    done = finished([*map(str, strace), *fault.strace, *laid.command()])
    told = log.read_text()
    assert "(INJECTED)" in told or "killed by SIGKILL" in told, told + done.text
    return done


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


KEEPING = (
    Fault("renameat2", SOURCES, "EIO"),
    Fault("renameat2", SOURCES, "EACCES", 2),
    Fault("openat", SOURCES, "EIO", 2),
    Fault("openat", SOURCES, "ESTALE", 4),
    Fault("openat", SOURCES, "EMFILE", 4),
    Fault("openat", SOURCES, "EACCES", 4),
    Fault("pread64", ASIDE, "EIO"),
    Fault("pread64", ASIDE, "ESTALE", 2),
    Fault("unlinkat", SOURCES, "EIO"),
    Fault("unlinkat", SOURCES, "ESTALE"),
    Fault("unlinkat", SOURCES, "EROFS", 2),
)


@pytest.mark.parametrize("fault", KEEPING, ids=str)
def test_a_source_that_cannot_be_removed(laid: Laid, tmp_path: Path, fault: Fault) -> None:
    """It has its name back and is told, with the reason and exit code 4; the next one takes it."""
    first = run_with(fault, laid, tmp_path / "strace.txt")
    assert first.code == ExitCode.REFUSED, first.text
    assert "1 file was NOT deleted." in first.text
    assert os.strerror(getattr(errno, fault.how)) in first.text
    laid.assert_safe()
    assert not laid.scenario.aside()
    left = [path for path in laid.scenario.made.sources.values() if path.exists()]
    assert [path.parent.name for path in left] == [Path(SOURCES).name]
    assert [line["event"] for lines in laid.scenario.journal().values() for line in lines].count(
        "undecided"
    ) == 1
    laid.assert_goes_on()


@pytest.mark.parametrize("when", range(1, 9))
@pytest.mark.parametrize("how", ["EIO", "ESTALE"])
def test_a_source_that_cannot_be_looked_at(laid: Laid, tmp_path: Path, how: str, when: int) -> None:
    """Whichever look it is, that source stays for now; the same command takes it."""
    first = run_with(Fault("statx", SOURCES, how, when), laid, tmp_path / "strace.txt")
    assert first.code in (ExitCode.REFUSED, ExitCode.ENVIRONMENT, ExitCode.DONE), first.text
    told = os.strerror(getattr(errno, how)) in first.text or "cannot be seen now" in first.text
    assert told == (first.code != ExitCode.DONE), first.text
    laid.assert_safe()
    assert not laid.scenario.aside()
    assert bool(laid.scenario.unfinished()) == (first.code == ExitCode.ENVIRONMENT)
    laid.assert_goes_on()


def test_folders_that_cannot_be_synced(laid: Laid, tmp_path: Path) -> None:
    """Where names cannot be made durable, nothing is converted to be deleted, and that is said."""
    first = run_with(Fault("fsync", RECORDS, "EIO"), laid, tmp_path / "strace.txt")
    assert first.code == ExitCode.REFUSED, first.text
    assert "cannot be made durable: fsync of a folder Input/output error" in first.text
    assert not list(laid.scenario.out.glob("*.tar"))
    laid.assert_safe()
    laid.assert_goes_on()
