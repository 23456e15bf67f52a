"""float32 to float16 and back: by numkong where it is installed, else by numpy; the same bits.

numkong rounds four times as fast as numpy. Nobody has to have it: ``pip install
'ctrate-convert[fast]'`` brings it. Before it is used, a self-check compares it with numpy.
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
    """Round to the nearest float16, ties to even, as IEEE 754 has it; too large is infinite.

    Both arrays are 1-D, contiguous and of one length.
    """
    fast = _numkong()
    if fast is None:
        with np.errstate(over="ignore"):
            np.copyto(out, singles, casting="same_kind")
    else:
        fast(singles, "float16", out=out)


def widen(halves: Halves, out: Singles) -> None:
    """Widen to float32, which is exact. Both arrays are 1-D, contiguous and of one length."""
    fast = _numkong()
    if fast is None:
        np.copyto(out, halves)
    else:
        fast(halves, "float32", out=out)


@functools.cache
def _numkong() -> _Astype | None:
    """Return numkong's ``astype``; None where it is not installed or does not round as numpy."""
    try:
        import numkong
    except ImportError:
        return None
    astype: _Astype = numkong.astype
    return astype if rounds_as_numpy(astype) else None


def rounds_as_numpy(astype: _Astype) -> bool:
    """Return True if ``astype`` gives numpy's bits, both ways.

    Widened: all 65,536 halves. Rounded: each of them that is a number, the points half way to the
    next one, and the float32 values right beside those.
    """
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    numbers = halves[~np.isnan(halves)]
    wide = numbers.astype(np.float32)
    middle = (wide.view(np.uint32) + np.uint32(1 << 12)).view(np.float32)
    points = [wide, middle]
    with np.errstate(invalid="ignore"):  # half way beyond infinity there is no number
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
