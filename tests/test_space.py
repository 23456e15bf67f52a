"""Free disk is watched: a run pauses before its next shard, says so, and goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import command, convert_words, plan_words, run_cli, run_here


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


def test_a_small_file_system_is_refused_before_the_start(
    make_ctrate: Callable[..., SyntheticCtRate], tmp_path: Path
) -> None:
    """A real file system that is too small is seen before the first shard."""
    mount = tmp_path / "small"
    mount.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(mount)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        made, out = make_ctrate(12, shape=(64, 48, 32)), mount / "out"
        done = run_cli(*convert_words(made, out, "--samples_per_shard", 2, "--probe", 0))
        assert done.code == ExitCode.ENVIRONMENT
        assert "what is pending does not fit at the output" in done.text
        assert not list(out.glob("*.tar")) and not list(out.glob(".*.partial"))
    finally:
        subprocess.run(["umount", str(mount)], check=True)
