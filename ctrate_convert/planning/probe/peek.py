"""Estimate how well stored volumes would deflate: compress small pieces of many of them.

The size of a deflated file tells how well its volume compresses; that of a stored file does not.
Noise differs between scanners by a factor, so a few converted volumes do not stand for the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from isal import isal_zlib

from ctrate_convert.planning.waiting import READERS

MOST_PEEKED = 512
PIECES, MANY_PIECES = 64, 1024
_PIECE_BYTES = 2**11

_LEVEL = 1
_GOLDEN = 0.6180339887498949  # its multiples' fractional parts are spread evenly


def peek(path: Path, pieces: int) -> float | None:
    """Return the share of the file that deflate would leave; None if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _peek(descriptor, pieces)
        finally:
            os.close(descriptor)
    except OSError:
        return None


def _peek(descriptor: int, pieces: int) -> float | None:
    size_bytes = os.fstat(descriptor).st_size
    last = size_bytes - _PIECE_BYTES
    if last < pieces * _PIECE_BYTES:  # the pieces would cover it: read all
        offsets = list(range(0, size_bytes, _PIECE_BYTES))
    else:
        offsets = [_spread(index, last) for index in range(pieces)]
    taken = left = 0
    for offset in offsets:
        piece = os.pread(descriptor, _PIECE_BYTES, offset)
        taken += len(piece)
        left += len(isal_zlib.compress(piece, _LEVEL))
    return left / taken if taken else None


def _spread(index: int, size: int) -> int:
    """Return a place below ``size``; the places of 0, 1, 2, … are spread evenly, however many."""
    return int((index + 0.5) * _GOLDEN % 1 * size)


def peek_many(keys: Sequence[str], path_of: Callable[[str], Path]) -> dict[str, float]:
    """Return by key the result of `peek` for at most `MOST_PEEKED` of ``keys``, evenly chosen."""
    step = max(1.0, len(keys) / MOST_PEEKED)
    some = [keys[int(place * step)] for place in range(min(len(keys), MOST_PEEKED))]
    with ThreadPoolExecutor(READERS, thread_name_prefix="peek") as pool:
        shares = pool.map(lambda key: peek(path_of(key), PIECES), some)
        return {key: share for key, share in zip(some, shares, strict=True) if share is not None}
