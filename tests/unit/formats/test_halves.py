"""float32 to float16 and back: numkong and numpy give the same bits, and only then it is used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ctrate_convert.formats import halves
from tests.support import convert_here


@pytest.fixture
def without_numkong(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "numkong", None)
    halves._numkong.cache_clear()
    yield
    halves._numkong.cache_clear()


def test_the_self_check_passes_for_numkong_and_for_numpy() -> None:
    numkong = pytest.importorskip("numkong")

    def plain(values: Any, dtype: str, out: Any) -> None:
        with np.errstate(over="ignore"):
            out[:] = values.astype(dtype)

    assert halves.rounds_as_numpy(numkong.astype)
    assert halves.rounds_as_numpy(plain)


@pytest.mark.parametrize("bits", [1, 2**12, 2**16])
def test_the_self_check_finds_one_wrong_rounding(bits: int) -> None:
    """One that rounds half up, truncates, or flushes small values to zero is not used."""

    def wrong(values: Any, dtype: str, out: Any) -> None:
        with np.errstate(over="ignore"):
            if dtype == "float16":
                values = (values.view(np.uint32) + np.uint32(bits)).view(np.float32)
            out[:] = values.astype(dtype)

    assert not halves.rounds_as_numpy(wrong)


def test_without_numkong_numpy_rounds(without_numkong: None) -> None:
    """Ties go to even, what is too large is infinite, and nothing is warned of."""
    singles = np.array([1 + 2**-11, 1 + 3 * 2**-11, 65519.9, 65520, -1e9, 2**-25, 3e-8], np.float32)
    rounded = np.empty(len(singles), np.float16)
    widened = np.empty(len(singles), np.float32)
    with np.errstate(over="raise"):
        halves.halve(singles, rounded)
    halves.widen(rounded, widened)
    expected = [1, 1 + 2**-9, 65504, np.inf, -np.inf, 0, 2**-24]
    assert widened.tolist() == expected


def test_shards_are_the_same_bytes_with_and_without_numkong(
    make_ctrate: Any, tmp_path: Any, without_numkong: None
) -> None:
    made = make_ctrate(4)
    plain = convert_here(made, tmp_path / "plain")
    halves._numkong.cache_clear()
    sys.modules.pop("numkong")
    fast = convert_here(made, tmp_path / "fast")
    assert [one.read_bytes() for one in sorted(plain.out.glob("*.tar"))] == [
        one.read_bytes() for one in sorted(fast.out.glob("*.tar"))
    ]


def test_reading_and_converting_import_no_numkong_before_it_is_needed() -> None:
    code = "import sys, ctrate_convert.formats.cast; print('numkong' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
