"""The bits of views: the same with and without SIMD, with every numpy, in slabs of any size.

That they are the same with 1 and 2 workers, after kills, and as on the fly: `test_stored`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.views.bits import TABLE, dispatched, lines

ROOT = Path(__file__).parents[3]


def test_this_numpy_gives_the_bits_of_the_table() -> None:
    """So that every version of numpy and every machine that runs this agree with each other."""
    assert list(lines()) == TABLE.read_text(encoding="utf-8").split("\n")[:-1]


def test_the_size_of_slabs_changes_no_bit() -> None:
    assert list(lines(planes=1)) == list(lines(planes=1000))


def test_without_simd_dispatch_the_bits_are_the_same() -> None:
    off = " ".join(dispatched())
    if not off:
        pytest.skip("numpy uses nothing beyond its baseline on this machine")
    there = subprocess.run(
        [sys.executable, "-m", "tests.unit.views.bits"],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "NPY_DISABLE_CPU_FEATURES": off},
    )  # fmt: skip
    assert "beyond its baseline: []" in there.stderr
    assert there.stdout == TABLE.read_text(encoding="utf-8")
