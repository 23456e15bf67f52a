"""The encodings of an array member, one module each; all of them stream and are lossless.

Every writer takes the elements in C order, block by block, and every reader yields them in the same
order. The same elements give the same bytes each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.codecs import b2nd, npy, npy_gz
from ctrate_convert.formats.codecs.target import ArrayTarget, ArrayWriter
from ctrate_convert.store.records.plan import Encoding

Block = NDArray[Any]


class _Module(Protocol):
    @staticmethod
    def writer(target: ArrayTarget) -> ArrayWriter: ...

    @staticmethod
    def read_blocks(
        path: Path, offset: int, size_bytes: int, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> Iterator[Block]: ...


ENCODINGS: dict[Encoding, Any] = {"npy": npy, "npy.gz": npy_gz, "b2nd": b2nd}


def array_writer(encoding: Encoding, target: ArrayTarget) -> ArrayWriter:
    """Begin an array member and return its writer."""
    module: _Module = ENCODINGS[encoding]
    return module.writer(target)


def read_blocks(
    encoding: Encoding,
    path: Path,
    offset: int,
    size_bytes: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
) -> Iterator[Block]:
    """Yield the elements of a stored member in C order; each block is valid until the next.

    Raises:
        ValueError: the stored bytes are damaged, or hold another type or shape.
        OSError: the file cannot be read.
    """
    module: _Module = ENCODINGS[encoding]
    return module.read_blocks(path, offset, size_bytes, dtype, shape)
