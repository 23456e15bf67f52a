"""Datasets whose sources are about to go, and the machinery to disturb that."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert.deleting.consents import new_name, record_consent
from ctrate_convert.deleting.gate import Release, release_sources
from ctrate_convert.deleting.outcome import Deletion
from ctrate_convert.store.journals import read_journal
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.record import ConvertedSample, ShardRecord
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import TIMEOUT_S, Array, Converted, Finished, command, run_here

Make = Callable[..., SyntheticCtRate]


def delete(converted: Converted, *more: object) -> Finished:
    """Delete without being asked."""
    return run_here("delete", converted.out, "--yes", *more)


def kept_by_gate(done: Finished) -> dict[str, str]:
    """Why the gate kept what it kept, by key, from a report in JSON."""
    return {entry["key"]: entry["reason"] for entry in done.json()["kept_by_gate"]}


def events(converted: Converted, shard: int = 0) -> dict[str, str]:
    """The journal's newest word on each key."""
    return {line.key: line.event for line in read_journal(converted.dataset, shard)}


def array_name(path: Path) -> str:
    """The key of the volume in an NPZ."""
    with np.load(path) as arrays:
        return next(str(name) for name in arrays.files if np.ndim(arrays[name]) == 3)


def write_volume(path: Path, volume: Array, **entries: Any) -> None:
    """Write an NPZ with stored entries, so that equal shapes give equal sizes."""
    np.savez(path, data=volume, **entries)


def with_one_voxel_changed(path: Path) -> None:
    """Put an honest NPZ in the place of another that differs in one voxel alone."""
    with np.load(path) as archive:
        arrays = dict(archive)
    name = array_name(path)
    changed = arrays[name].copy()
    changed[(0, 0, 0)] += 1 if changed.dtype.kind == "i" else changed.dtype.type(np.ptp(changed))
    np.savez_compressed(path, **{**arrays, name: changed})


def with_first(record: ShardRecord, **changes: Any) -> ShardRecord:
    """The record with something of its first sample changed."""
    first = record.converted[0].model_copy(update=changes)
    return record.model_copy(update={"samples": (first, *record.samples[1:])})


def as_read_now(record: ShardRecord, made: SyntheticCtRate) -> ShardRecord:
    """The record forged so that each source looks like the one that was read."""
    samples = []
    for sample in record.samples:
        assert isinstance(sample, ConvertedSample)
        status = made.sources[sample.key].stat()
        forged = {
            "size_bytes": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "ctime_ns": status.st_ctime_ns,
            "inode": status.st_ino,
        }
        samples.append(
            sample.model_copy(update={"source": sample.source.model_copy(update=forged)})
        )
    return record.model_copy(update={"samples": tuple(samples)})


def forge(converted: Converted, record: ShardRecord, shard: int = 0) -> None:
    """Put ``record`` in place of a shard's, and let the manifest be merged from it."""
    converted.dataset.record(shard).write_bytes(record.to_json())
    converted.dataset.manifest.unlink(missing_ok=True)
    assert run_here("merge", converted.out).code == 0


def consent(converted: Converted, **changes: Any) -> Consent:
    """What a person would have allowed: all of the first shard."""
    facts: dict[str, Any] = {
        "name": new_name(),
        "time": "2026-01-01T00:00:00+00:00",
        "user": "somebody",
        "uid": os.geteuid(),
        "host": "here",
        "command": "delete --yes",
        "plans": {converted.plan.plan_id: converted.plan.settings.max_error},
        "shards": ((0, 0),),
        "files": 4,
        "size_bytes": 1000,
        "rounding": (),
    }
    return Consent(**{**facts, **changes})


def release(
    converted: Converted,
    name: str,
    shard: int = 0,
    check_stop: Callable[[], None] = lambda: None,
    **facts: Any,
) -> Deletion:
    """Let go a shard's sources under the consent ``name``, as a worker does."""
    return release_sources(
        Release(
            dataset=converted.dataset,
            plan=converted.plan,
            shard=converted.planned(shard),
            record=facts.pop("record", None) or converted.record(shard),
            consent_name=name,
            **facts,
        ),
        check_stop,
    )


def given(converted: Converted, **changes: Any) -> Consent:
    """Record such a consent."""
    converted.dataset.prepare()
    record_consent(converted.dataset, found := consent(converted, **changes))
    return found


# --- Tools that a machine may lack -------------------------------------------------------------


def strace(*expressions: str, path: Path | None = None) -> list[str]:
    """The words that run a command under strace; skips where that is not possible."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not permitted here")
    only = ["-P", str(path)] if path else []
    return ["strace", "-f", "-qq", "-o", "/dev/null", *only, *(f"-e{one}" for one in expressions)]


def as_root(what: str) -> None:
    """Skip where only root can do ``what``."""
    if os.geteuid():
        pytest.skip(f"only root can {what}")


def in_namespace(script: str, *words: object) -> Finished:
    """Run the command line in a mount namespace of its own after a shell script made its mounts."""
    as_root("mount")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mount namespaces are not permitted here")
    shell = ["unshare", "-m", "sh", "-ec", f'{script}\nexec "$@"', "sh", *command(*words)]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return Finished(done.returncode, done.stdout, done.stderr)


@contextmanager
def bindfs(folder: Path, mount: Path) -> Iterator[Path]:
    """``folder`` through a mount that caches attributes for a minute, as another node does."""
    as_root("mount")
    if shutil.which("bindfs") is None or not Path("/dev/fuse").exists():
        pytest.skip("bindfs is not installed, or there is no FUSE here")
    mount.mkdir()
    cache = "attr_timeout=60,entry_timeout=60,negative_timeout=0"
    words = ["bindfs", "-o", cache, str(folder), str(mount)]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"bindfs cannot mount here: {made.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


# --- Processes stopped in the middle -----------------------------------------------------------


def holders(path: Path) -> set[int]:
    """The processes that have ``path`` open."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ends meanwhile
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(link) == str(path):
                        found.add(int(process.name))
    return found


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """Wait for what ``condition`` returns to be true, as long as the command runs."""
    while not (found := condition()):
        assert process.poll() is None, f"the command ended too early: {process.communicate()}"
        time.sleep(0.002)
    return found


def stopped_while_it_compares(
    words: Sequence[str], aside: Path, meanwhile: Callable[[], None], process_words: Sequence[str]
) -> Finished:
    """Run a command slowed down by ``words``; stop its worker where it has ``aside`` open."""
    with subprocess.Popen(
        [*words, *process_words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        (worker,) = wait_until(lambda: holders(aside), process)
        os.kill(worker, signal.SIGSTOP)
        try:
            meanwhile()
        finally:
            os.kill(worker, signal.SIGCONT)
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    return Finished(process.returncode, stdout, stderr)
