"""Free disk is watched: a run pauses before its next shard, says so, and goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import command, convert_words


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
