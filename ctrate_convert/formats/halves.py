"""Convert float32 to float16 and back, by numkong if it is installed, else by numpy.

Both give the same bits; numkong rounds four times as fast. It is optional: ``pip install
'ctrate-convert[fast]'`` installs it. A self-check compares it with numpy before its first use.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Halves = NDArray[np.float16]
Singles = NDArray[np.float32]
_Astype = Callable[..., Any]


def halve(singles: Singles, out: Halves) -> None:
    """Round to the nearest float16, ties to even (IEEE 754); values too large become infinite.

    Both arrays are 1-D, contiguous and of the same length.
    """
    fast = _numkong()
    if fast is None:
        with np.errstate(over="ignore"):
            np.copyto(out, singles, casting="same_kind")
    else:
        fast(singles, "float16", out=out)


def widen(halves: Halves, out: Singles) -> None:
    """Widen to float32, which is exact. Both arrays are 1-D, contiguous and of the same length."""
    fast = _numkong()
    if fast is None:
        np.copyto(out, halves)
    else:
        fast(halves, "float32", out=out)


@functools.cache
def _numkong() -> _Astype | None:
    """Return numkong's ``astype``, or None if it is not installed or rounds unlike numpy."""
    try:
        import numkong
    except ImportError:
        return None
    astype: _Astype = numkong.astype
    return astype if rounds_as_numpy(astype) else None


def rounds_as_numpy(astype: _Astype) -> bool:
    """Return True if ``astype`` gives the same bits as numpy in both directions.

    Widening is checked for all finite and infinite halves. Rounding is checked for these, for the
    points halfway to the next half, and for the float32 values right beside all of them.
    """
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    numbers = halves[~np.isnan(halves)]
    wide = numbers.astype(np.float32)
    # Half a unit of float16 is bit 12 of float32: 23 bits of fraction against 10.
    middle = (wide.view(np.uint32) + np.uint32(1 << 12)).view(np.float32)
    points = [wide, middle]
    with np.errstate(invalid="ignore"):  # the point halfway beyond infinity is NaN
        for one in (wide, middle):
            points += [np.nextafter(one, np.float32(side)) for side in (-np.inf, np.inf)]
    singles = np.concatenate(points)
    singles = np.ascontiguousarray(singles[~np.isnan(singles)])
    with np.errstate(over="ignore"):
        expected = singles.astype(np.float16)
    rounded = np.empty(len(singles), np.float16)
    widened = np.empty(len(numbers), np.float32)
    astype(singles, "float16", out=rounded)
    astype(np.ascontiguousarray(numbers), "float32", out=widened)
    return rounded.tobytes() == expected.tobytes() and widened.tobytes() == wide.tobytes()
