"""Free disk is watched: a run pauses before its next shard, says so, and goes on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.planning.estimate import peak_extra_bytes
from ctrate_convert.running import space
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_plans
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import (
    command,
    convert_words,
    partials,
    plan_words,
    run_cli,
    run_here,
    sources_left,
)


def test_run_pauses_for_want_of_space_and_goes_on_when_it_is_back(
    ctrate: SyntheticCtRate, tmp_path: Path
) -> None:
    """Below --min_free_gb no shard is begun and none is left half; with space it finishes."""
    out = tmp_path / "out"
    filler = tmp_path / "filler"
    filler_bytes = 2**31
    with filler.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, filler_bytes)
    threshold = shutil.disk_usage(tmp_path).free + filler_bytes // 2
    process = subprocess.Popen(
        command(*convert_words(ctrate, out, "--min_free_gb", threshold / 2**30)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "paused" in process.stderr.readline()
    time.sleep(0.5)
    assert not list(out.glob("*.tar")) and not list(out.glob(".*.partial"))
    filler.unlink()
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stdout + stderr
    assert "going on" in stderr
    assert "8 converted" in stdout


def test_what_certainly_does_not_fit_is_not_begun(
    make_ctrate: Callable[..., SyntheticCtRate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less free than the plan's peak nothing starts; with --min_free_gb it does."""
    made, out = make_ctrate(8), tmp_path / "out"
    assert run_here(*plan_words(made, out, "--samples_per_shard", 2)).code == ExitCode.DONE
    usage = shutil.disk_usage(tmp_path)
    few = usage._replace(free=1000)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: few)
        refused = run_here("run", out)
        assert refused.code == ExitCode.ENVIRONMENT
        assert "what is pending does not fit at the output" in refused.text
        assert "--min_free_gb" in refused.text
        assert not list(out.glob("*.tar"))
        assert run_here("run", out, "--min_free_gb", 1e-9).code == ExitCode.DONE
        assert run_here("run", out).code == ExitCode.DONE  # nothing is pending any more
    assert len(list(out.glob("*.tar"))) == 4


def little_free(patched: pytest.MonkeyPatch, free_bytes: int) -> None:
    few = shutil.disk_usage("/")._replace(free=free_bytes)
    patched.setattr(shutil, "disk_usage", lambda _: few)


def peak_bytes(out: Path, shards: slice = slice(None), *, deleting: bool = False) -> int:
    """What the plan's own formula says of some of its shards, with one worker."""
    return peak_extra_bytes(load_plans(Dataset(out))[0].shards[shards], deleting=deleting)


def test_only_what_is_pending_counts(
    make_ctrate: Callable[..., SyntheticCtRate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for one shard, one that is left is converted; with a byte less it is not."""
    made, out = make_ctrate(6), tmp_path / "out"
    words = plan_words(made, out, "--samples_per_shard", 2, "--probe", 0)
    assert run_here(*words).code == ExitCode.DONE
    run = ("run", out, "--num_workers", 1)
    assert run_here(*run, "--task", 0, "--task", 1).code == ExitCode.DONE
    for short, code in ((1, ExitCode.ENVIRONMENT), (0, ExitCode.DONE)):
        with monkeypatch.context() as patched:
            little_free(patched, peak_bytes(out, slice(2, 3)) - short)
            assert run_here(*run).code == code
    assert len(list(out.glob("*.tar"))) == 3


def test_an_upper_bound_only_warns(
    make_ctrate: Callable[..., SyntheticCtRate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing was probed, compression may make it fit: that is said, and it begins."""
    made, out = make_ctrate(4), tmp_path / "out"
    words = plan_words(made, out, "--encoding", "npy.gz", "--probe", 0)
    assert run_here(*words).code == ExitCode.DONE
    with monkeypatch.context() as patched:
        little_free(patched, 1000)
        begun = run_here("run", out)
    assert begun.code == ExitCode.DONE
    assert "WARNING: what is pending may take" in begun.stderr


def test_what_a_probe_has_shown_is_refused(
    make_ctrate: Callable[..., SyntheticCtRate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, out = make_ctrate(4), tmp_path / "out"
    words = plan_words(made, out, "--encoding", "npy.gz", "--probe", 4)
    assert run_here(*words).code == ExitCode.DONE
    with monkeypatch.context() as patched:
        little_free(patched, 1000)
        assert run_here("run", out).code == ExitCode.ENVIRONMENT
    assert not list(out.glob("*.tar"))


@pytest.mark.parametrize(
    ("same", "trash", "fits"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_deleted_sources_count_where_they_free_the_output(
    make_ctrate: Callable[..., SyntheticCtRate],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    same: bool,
    trash: bool,
    fits: bool,
) -> None:
    """What the gate gives back is room only on the output's file system, and not in a trash."""
    made, out = make_ctrate(8), tmp_path / "out"
    more = ("--trash", tmp_path / "trash") if trash else ()
    words = plan_words(made, out, "--samples_per_shard", 2, "--delete_source_files", *more)
    assert run_here(*words).code == ExitCode.DONE
    enough = peak_bytes(out, deleting=True)
    assert enough < peak_bytes(out)
    with monkeypatch.context() as patched:
        little_free(patched, enough)
        patched.setattr(space, "_same_file_system", lambda *_: same)
        done = run_here("run", out, "--num_workers", 1, "--yes")
    assert done.code == (ExitCode.DONE if fits else ExitCode.ENVIRONMENT), done.text


def test_what_only_awaits_the_gate_is_never_paused(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """It takes no space and gives some: waiting for space would be waiting for itself."""
    out = tmp_path / "out"
    assert run_here(*plan_words(ctrate, out, "--delete_source_files")).code == ExitCode.DONE
    assert run_here("run", out, "--keep_source_files").code == ExitCode.DONE
    assert sources_left(ctrate) == set(ctrate.keys)
    done = run_here("run", out, "--yes", "--min_free_gb", 1e9)
    assert done.code == ExitCode.DONE, done.text
    assert not sources_left(ctrate)


# --- A small file system ---------------------------------------------------------------------


def resize(mount: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(mount)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 1200 KiB large."""
    mount = tmp_path / "small"
    mount.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(mount)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_what_is_too_large_for_it_is_begun_once_there_is_space(
    make_ctrate: Callable[..., SyntheticCtRate], small: Path
) -> None:
    """Refused before the first shard, leaving none; with space the same command finishes."""
    made, out = make_ctrate(12, shape=(64, 48, 32)), small / "out"
    words = convert_words(made, out, "--samples_per_shard", 2, "--probe", 0)
    done = run_cli(*words)
    assert done.code == ExitCode.ENVIRONMENT
    for told in ("does not fit at the output", str(out), "free space: ", "iB at the peak", "next:"):
        assert told in done.stderr
    assert not list(out.glob("*.tar")) and not partials(out)
    assert not list(Dataset(out).attempts.glob("*"))
    assert sources_left(made) == set(made.sources)

    resize(small, "4m")
    killed = out / f".shard-000000.{socket.gethostname()}.0a.partial"
    killed.write_bytes(bytes(3 * 2**20))  # what a killed run left is room, too
    assert run_cli(*words).code == ExitCode.DONE
    assert len(list(out.glob("*.tar"))) == 6 and not partials(out)


@pytest.mark.parametrize("num_workers", [1, 6])
def test_with_min_free_gb_it_is_begun_and_waits_for_space(
    make_ctrate: Callable[..., SyntheticCtRate], small: Path, num_workers: int
) -> None:
    """Two shards of six fit; then it pauses, noting so, until the file system is larger.

    Many workers, who all see the same free space at once, take no more of it than one.
    """
    made, out = make_ctrate(12, shape=(64, 48, 32)), small / "out"
    words = ("--samples_per_shard", 2, "--num_workers", num_workers, "--probe", 0)
    process = subprocess.Popen(
        command(*convert_words(made, out, *words, "--min_free_gb", 450 / 2**20)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "WARNING: what is pending may take" in process.stderr.readline()
    assert "paused" in process.stderr.readline()
    while not (notes := [*Dataset(out).attempts.glob("*/progress.json")]):  # said first, then noted
        assert process.poll() is None
        time.sleep(0.05)
    (note,) = notes
    while not json.loads(note.read_text())["paused"]:
        assert process.poll() is None
        time.sleep(0.05)
    while len(list(out.glob("*.tar"))) < 2 or partials(out):  # the last one may still be settling
        assert process.poll() is None
        time.sleep(0.05)
    resize(small, "8m")
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == ExitCode.DONE, stdout + stderr
    assert "going on" in stderr
    assert not json.loads(note.read_text())["paused"]
    assert len(list(out.glob("*.tar"))) == 6


def test_a_paused_run_obeys_a_signal(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """Ctrl+C and the like end it at once, as they do otherwise."""
    process = subprocess.Popen(
        command(*convert_words(ctrate, tmp_path / "out", "--min_free_gb", 1e9)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "paused" in process.stderr.readline()
    process.terminate()
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == ExitCode.INTERRUPTED, stdout + stderr
