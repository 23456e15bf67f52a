"""An interrupted plan goes on with the headers that it has read, and nothing else comes of that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.planning import headers as reading
from ctrate_convert.planning import make
from ctrate_convert.planning.make import make_plan
from ctrate_convert.planning.samples import header_cache, scan
from ctrate_convert.sources.kinds import read_array_header
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.plan import ArrayHeader
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import plan_words, settings_for

Make = Callable[..., SyntheticCtRate]
SAMPLES = 12

_SLOWLY = """
import sys, time
from ctrate_convert.cli import main
from ctrate_convert.planning import headers, make
from ctrate_convert.planning.samples import header_cache, scan
make.LEAST_SAMPLES, scan.CHUNK_SAMPLES, header_cache.EVERY_S = 1, 3, 0.0
read = headers.read_array_header
def slowly(path, array_key):
    time.sleep(0.1)
    return read(path, array_key)
headers.read_array_header = slowly
import ctrate_convert.cli.options as options
options.usable_cores = lambda: 1
sys.exit(main())
"""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose headers are read from now on; every plan has a cache."""
    names: list[str] = []
    read = read_array_header

    def noted(path: Path, array_key: str | None) -> ArrayHeader:
        names.append(path.name)
        return read(path, array_key)

    monkeypatch.setattr(reading, "read_array_header", noted)
    monkeypatch.setattr(make, "LEAST_SAMPLES", 1)
    monkeypatch.setattr(scan, "CHUNK_SAMPLES", 3)
    monkeypatch.setattr(header_cache, "EVERY_S", 0.0)
    return names


def cache_of(out: Path) -> Path:
    return Dataset(out).plans / header_cache.FILE


def samples_of(out: Path) -> bytes:
    return (Dataset(out).plan(0) / "samples.jsonl").read_bytes()


def interrupt(made: SyntheticCtRate, out: Path, after: int) -> None:
    """Begin a plan, and give up after so many headers."""

    def progress(done: int, total: int) -> None:
        if total and done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_plan(Dataset(out), settings_for(made, probe=0), progress)


def test_an_interrupted_plan_goes_on(make_ctrate: Make, tmp_path: Path, reads: list[str]) -> None:
    """What was read is not read again, and the plan is the same; then the cache is gone."""
    made, out = make_ctrate(SAMPLES), tmp_path / "out"
    interrupt(made, out, after=6)
    assert len(reads) == 6
    assert cache_of(out).stat().st_mode & 0o077 == Dataset(out).run.stat().st_mode & 0o044
    reads.clear()
    make_plan(Dataset(out), settings_for(made, probe=0))
    assert len(reads) == SAMPLES - 6
    assert not cache_of(out).exists()
    make_plan(Dataset(tmp_path / "whole"), settings_for(made, probe=0))
    assert samples_of(out) == samples_of(tmp_path / "whole")


def test_a_killed_plan_goes_on(make_ctrate: Make, tmp_path: Path, reads: list[str]) -> None:
    """On the command line, with SIGKILL."""
    made, out = make_ctrate(SAMPLES), tmp_path / "out"
    words = [str(word) for word in plan_words(made, out, "--probe", 0)]
    planner = subprocess.Popen([sys.executable, "-c", _SLOWLY, *words])
    try:
        deadline = time.monotonic() + 60
        while not (cache_of(out).exists() and cache_of(out).stat().st_size):
            assert planner.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(planner.pid, signal.SIGKILL)
        planner.wait()
    assert len(list(Dataset(out).plans.glob(".samples.*.partial"))) == 1
    make_plan(Dataset(out), settings_for(made, probe=0))
    assert len(reads) <= SAMPLES - 3
    assert [path.name for path in Dataset(out).plans.iterdir()] == ["0000"]


def test_a_file_that_changed_is_read_again(
    make_ctrate: Make, tmp_path: Path, reads: list[str]
) -> None:
    """Other times than in the cache: the header is of another file."""
    made, out = make_ctrate(SAMPLES), tmp_path / "out"
    interrupt(made, out, after=SAMPLES)
    reads.clear()
    changed = made.sources[made.keys[0]]
    changed.write_bytes(changed.read_bytes())
    os.utime(changed, ns=(1, 1))
    make_plan(Dataset(out), settings_for(made, probe=0))
    assert reads == [changed.name]


def _forge(fields: dict[str, Any], case: str) -> bytes:
    if case == "torn":
        return json.dumps(fields).encode()[:-20]
    if case == "no text":
        return b"\xff\xfe\0"
    if case == "another key":
        fields["surprise"] = 1
    elif case == "out of the folder":
        fields["header"]["dtype"] = "|O"
        fields["source"] = "../../etc/passwd"
    elif case == "another program":
        fields["program_version"] = "0.0.1"
    elif case == "another array":
        fields["array_key"] = "other"
    elif case == "wrong type":
        fields["header"]["shape"] = ["1", "2", "3"]
    elif case == "no object":
        return b"[]"
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    "case",
    [
        "torn", "no text", "another key", "out of the folder", "another program", "another array",
        "wrong type", "no object",
    ],
)  # fmt: skip
def test_a_line_that_does_not_fit_is_none(
    make_ctrate: Make, tmp_path: Path, reads: list[str], case: str
) -> None:
    """Damaged or tampered with: the file is read as if the line were not there."""
    made, out = make_ctrate(3), tmp_path / "out"
    interrupt(made, out, after=3)
    lines = cache_of(out).read_bytes().splitlines()
    lines[0] = _forge(json.loads(lines[0]), case)
    cache_of(out).write_bytes(b"\n".join(lines) + b"\n")
    reads.clear()
    make_plan(Dataset(out), settings_for(made, probe=0))
    assert len(reads) == 1
    make_plan(Dataset(tmp_path / "whole"), settings_for(made, probe=0))
    assert samples_of(out) == samples_of(tmp_path / "whole")


def test_who_refuses_leaves_nothing(make_ctrate: Make, tmp_path: Path, reads: list[str]) -> None:
    """Neither a plan nor the cache, nor the folder."""
    made, out = make_ctrate(4), tmp_path / "out"

    def refuse(*_: object) -> None:
        raise PermissionError("no")

    with pytest.raises(Exception, match="no"):
        make_plan(Dataset(out), settings_for(made, probe=0), approve=refuse)
    assert len(reads) == 4
    assert not out.exists()
