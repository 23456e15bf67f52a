"""``npy.gz``: an npy file compressed with gzip (igzip, level 1, no time stamp)."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from ctrate_convert.formats.codecs.target import ArrayTarget, ArrayWriter
from ctrate_convert.formats.npy_header import header_bytes
from ctrate_convert.formats.tar import WrittenMember

_LEVEL = 1
_GZIP_CONTAINER = 31  # zlib's wbits: 16 for a gzip header and trailer, plus 15
_BLOCK_BYTES = 2**20


class _Writer(ArrayWriter):
    def __init__(self, target: ArrayTarget) -> None:
        self._tar = target.tar
        self._tar.begin(target.name, None)
        self._deflater = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_CONTAINER)
        self._tar.put(self._deflater.compress(header_bytes(target.dtype, target.shape)))
        # The output of igzip depends on the sizes of its inputs, so all pieces have one size.
        self._piece = memoryview(bytearray(_BLOCK_BYTES))
        self._filled = 0

    def put(self, block: NDArray[Any]) -> None:
        data = block.data.cast("B")
        while data:
            taken = data[: _BLOCK_BYTES - self._filled]
            self._piece[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            data = data[len(taken) :]
            if self._filled == _BLOCK_BYTES:
                self._deflate()

    def _deflate(self) -> None:
        self._tar.put(self._deflater.compress(self._piece[: self._filled]))
        self._filled = 0

    def finish(self) -> WrittenMember:
        self._deflate()
        self._tar.put(self._deflater.flush())
        return self._tar.end()


def writer(target: ArrayTarget) -> ArrayWriter:
    """Return a writer that uses igzip; the member's size is known at its end."""
    return _Writer(target)


class _Slice(io.RawIOBase):
    """A stream of ``size_bytes`` of a file from ``offset`` on."""

    def __init__(self, path: Path, offset: int, size_bytes: int) -> None:
        self._stream = path.open("rb", buffering=0)
        self._stream.seek(offset)
        self._left = size_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        got = self._stream.readinto(view)
        self._left -= got
        return got

    def close(self) -> None:
        self._stream.close()
        super().close()


def read_blocks(
    path: Path, offset: int, size_bytes: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Iterator[NDArray[Any]]:
    """Yield the elements, decompressed with the standard library's gzip.

    The writer uses igzip, so that writing and checking rest on two implementations.
    """
    left = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    header = header_bytes(dtype, shape)
    with io.BufferedReader(_Slice(path, offset, size_bytes), _BLOCK_BYTES) as raw:
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                if stream.read(len(header)) != header:
                    raise ValueError("another npy header than was recorded")
                while left:
                    data = stream.read(min(_BLOCK_BYTES, left))
                    if not data or len(data) % dtype.itemsize:
                        raise ValueError("array data is cut short")
                    left -= len(data)
                    yield np.frombuffer(data, dtype)
                # Reading to the end makes gzip check the CRC-32.
                if stream.read(1):
                    raise ValueError("array data is longer than recorded")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"gzip data is damaged: {error}") from error
