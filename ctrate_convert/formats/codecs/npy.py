"""``npy``: the raw elements, after an npy header if the layout has one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.codecs.target import ArrayTarget, ArrayWriter
from ctrate_convert.formats.npy_header import header_bytes
from ctrate_convert.formats.tar import WrittenMember

_BLOCK_BYTES = 2**20


class _Writer(ArrayWriter):
    def __init__(self, target: ArrayTarget) -> None:
        prefix = header_bytes(target.dtype, target.shape) if target.header else b""
        self._tar = target.tar
        # Not hashed: the record's digest of the elements serves for this member too.
        self._tar.begin(target.name, len(prefix) + target.elements_bytes, hashed=False)
        self._tar.put(prefix)

    def put(self, block: NDArray[Any]) -> None:
        self._tar.put(block.data)

    def finish(self) -> WrittenMember:
        return self._tar.end()


def writer(target: ArrayTarget) -> ArrayWriter:
    """Return a writer of raw elements, whose member's size is known from the start."""
    return _Writer(target)


def read_blocks(
    path: Path, offset: int, size_bytes: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Iterator[NDArray[Any]]:
    """Yield the elements, which are the last bytes of the member after any header."""
    left = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if left > size_bytes:
        raise ValueError(f"{size_bytes} bytes cannot hold {shape} of {dtype.name}")
    with path.open("rb", buffering=0) as stream:
        stream.seek(offset + size_bytes - left)
        while left:
            data = stream.read(min(_BLOCK_BYTES, left))
            if not data or len(data) % dtype.itemsize:
                raise ValueError("array data is cut short")
            left -= len(data)
            yield np.frombuffer(data, dtype)
