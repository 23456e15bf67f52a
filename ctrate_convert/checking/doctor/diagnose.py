"""Doctor: try how a mount behaves and how fast it is, and tell what the program will do about it.

Everything is tried for real, in a hidden folder that is removed afterwards.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.checking.doctor.about_sources import findings_about_sources
from ctrate_convert.checking.doctor.finding import Finding
from ctrate_convert.errors import CtrateError, ExitCode, environment_problem
from ctrate_convert.store.durable import (
    fsync_directory,
    link_if_absent,
    scratch_directory,
    write_all,
)
from ctrate_convert.store.storage_reader import StorageReader

_SPEED_BYTES = 2**26  # 64 MiB
_SMALL_SYNCS = 10

# A process of its own tries the lock: where NFS turns flock into POSIX locks, a process never
# excludes itself.
_TRY_FLOCK = """
import fcntl, os, sys
try:
    fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("excluded")
except OSError as error:
    print(error.strerror)
else:
    print("let in")
"""


@dataclass(frozen=True)
class Speeds:
    """Speeds measured on this mount, by one process with one file."""

    write_bytes_per_s: float
    read_bytes_per_s: float
    small_fsync_s: float


@dataclass(frozen=True)
class Diagnosis:
    """All findings about one folder's file system."""

    folder: Path
    mount: str
    free_bytes: int
    findings: tuple[Finding, ...]
    speeds: Speeds

    @property
    def exit_code(self) -> ExitCode:
        """`ExitCode.ENVIRONMENT` (5) if the program could not work there, or that is unknown."""
        bad = any(finding.verdict in ("bad", "not tested") for finding in self.findings)
        return ExitCode.ENVIRONMENT if bad else ExitCode.DONE


def diagnose(folder: Path) -> Diagnosis:
    """Try everything that publication and deletion rest on, in ``folder`` or its nearest parent.

    Raises:
        EnvironmentProblem: nothing can be written there at all.
    """
    folder = folder.resolve()
    while not folder.is_dir():
        folder = folder.parent
    try:
        with scratch_directory(folder / "doctor") as scratch:
            findings = tuple(_try(check, scratch) for check in _CHECKS)
            speeds = _measure(scratch)
    except OSError as error:
        raise environment_problem(error, "trying the file system", folder) from error
    findings += findings_about_sources(folder)
    return Diagnosis(folder, _mount(folder), shutil.disk_usage(folder).free, findings, speeds)


def _try(check: Callable[[Path], Finding], scratch: Path) -> Finding:
    try:
        return check(scratch)
    except (OSError, CtrateError) as error:
        return Finding(check.__name__[1:].replace("_", " "), "bad", str(error), "cannot work here")


def _publish_by_link(scratch: Path) -> Finding:
    first, second, final = scratch / "first", scratch / "second", scratch / "final"
    first.write_text("1")
    second.write_text("2")
    took, left = link_if_absent(first, final), link_if_absent(second, final)
    if took and not left and first.stat().st_nlink == 2 and final.read_text() == "1":
        return Finding("publish by link", "good", "links, never over an existing name")
    return Finding("publish by link", "bad", f"{took}, {left}", "shards could be overwritten")


def _replace_atomically(scratch: Path) -> Finding:
    old, new = scratch / "old", scratch / "new"
    old.write_text("old")
    new.write_text("new")
    new.replace(old)
    good = old.read_text() == "new" and not new.exists()
    return Finding("replace atomically", "good" if good else "bad", "rename takes the old's place")


def _publish_a_folder(scratch: Path) -> Finding:
    """Check that no folder takes the place of one that has files in it, as plans require."""
    for name in ("plan", "other"):
        (scratch / name).mkdir()
        (scratch / name / "file").write_text(name)
    try:
        os.rename(scratch / "other", scratch / "plan")
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return Finding("publish a folder", "good", "never over a filled folder")
        raise
    return Finding("publish a folder", "bad", "a filled folder was replaced", "plans could be lost")


def _fsync_names(scratch: Path) -> Finding:
    descriptor = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # EINVAL means that this file system does not offer it; anything else is a fault.
        if error.errno != errno.EINVAL:
            raise
        return Finding(
            "fsync of directories", "weaker", "not offered here",
            "a power loss may take a new name; so shards are converted, and no source is deleted",
        )  # fmt: skip
    finally:
        os.close(descriptor)
    fsync_directory(scratch)
    return Finding("fsync of directories", "good", "names are made durable")


def _exclude_by_flock(scratch: Path) -> Finding:
    path = scratch / "lock"
    path.touch()
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tried = subprocess.run(
            [sys.executable, "-c", _TRY_FLOCK, str(path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        other = tried.stdout.strip() or f"the other process ended with {tried.returncode}"
    except OSError as error:
        other = error.strerror or str(error)
    finally:
        os.close(descriptor)
    if other == "excluded":
        return Finding("flock between processes", "good", "one process excludes the other")
    return Finding(
        "flock between processes", "weaker", other,
        "two runs may convert the same shard; one result counts, work is wasted, nothing is lost",
    )  # fmt: skip


def _read_past_the_cache(scratch: Path) -> Finding:
    path = scratch / "direct"
    path.write_bytes(bytes(2**16))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with StorageReader(descriptor) as reader:
            reader.take()
            direct = bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)
    finally:
        os.close(descriptor)
    if direct:
        return Finding("read past the page cache", "good", "verification reads storage itself")
    return Finding(
        "read past the page cache", "weaker", "O_DIRECT is not offered here",
        "verification reads after asking the kernel to forget the file's pages",
    )  # fmt: skip


_CHECKS = (
    _publish_by_link,
    _replace_atomically,
    _publish_a_folder,
    _fsync_names,
    _exclude_by_flock,
    _read_past_the_cache,
)


def _measure(scratch: Path) -> Speeds:
    path = scratch / "speed"
    # Random bytes, so that a file system that compresses shows its real speed.
    block = os.urandom(2**20)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        started = time.monotonic()
        for _ in range(_SPEED_BYTES // len(block)):
            write_all(descriptor, block)
        os.fsync(descriptor)
        written_s = time.monotonic() - started
        started = time.monotonic()
        with StorageReader(descriptor) as reader:
            while reader.take():
                pass
        read_s = time.monotonic() - started
        waits = []
        for _ in range(_SMALL_SYNCS):
            started = time.monotonic()
            os.pwrite(descriptor, b"x", 0)
            os.fsync(descriptor)
            waits.append(time.monotonic() - started)
    finally:
        os.close(descriptor)
    return Speeds(_SPEED_BYTES / written_s, _SPEED_BYTES / read_s, statistics.median(waits))


def _mount(folder: Path) -> str:
    """Return type and options of the mount that holds ``folder``, from /proc/self/mounts."""
    best, found = "", "unknown"
    for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
        _, at, kind, mount_options, *_ = line.split(" ")
        # The kernel writes a space in a path as \040.
        at = at.encode().decode("unicode_escape")
        # The longest path is the mount; of two mounts at one path the later one hides the other.
        if folder.is_relative_to(at) and len(at) >= len(best):
            best, found = at, f"{kind} ({mount_options})"
    return found
