"""``npy.gz``: an npy file compressed with gzip (igzip, level 1, no time stamp)."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctrate_convert.formats.codecs.codec import Array, ArrayPlace, Codec, RequireRoom
from ctrate_convert.formats.codecs.gzip_stream import GzipStream, new_deflater
from ctrate_convert.formats.codecs.npy import PIECE_BYTES, blocks_in, keep
from ctrate_convert.formats.codecs.target import ArrayTarget, ArrayWriter
from ctrate_convert.formats.npy_header import header_bytes, read_header
from ctrate_convert.formats.tar import WrittenMember
from ctrate_convert.formats.tiling import (
    Box,
    box_shape,
    c_order_boxes,
    moved,
    place_in_c_order,
)

_BLOCK_BYTES = 2**20


class _Writer(ArrayWriter):
    def __init__(self, target: ArrayTarget) -> None:
        self._tar = target.tar
        self._tar.begin(target.name, None)
        self._deflater = new_deflater()
        self._tar.put(self._deflater.compress(header_bytes(target.dtype, target.shape)))
        # The output of igzip depends on the sizes of its inputs, so all pieces have one size.
        self._piece = memoryview(bytearray(_BLOCK_BYTES))
        self._filled = 0

    def put(self, block: Array) -> None:
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


class NpyGz(Codec):
    """Compressed elements; a box takes inflating everything before it."""

    def writer(self, target: ArrayTarget) -> ArrayWriter:
        """Return a writer that uses igzip; the member's size is known at its end."""
        return _Writer(target)

    def read_blocks(
        self, path: Path, offset: int, size_bytes: int, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> Iterator[Array]:
        """Yield the elements, decompressed with the standard library's gzip.

        The writer uses igzip, so that writing and checking rest on two implementations.
        """
        header = header_bytes(dtype, shape)
        # The stream must end with the member, because gzip takes what follows for a further member.
        with io.BufferedReader(_Slice(path, offset, size_bytes), _BLOCK_BYTES) as raw:
            try:
                with gzip.GzipFile(fileobj=raw) as stream:
                    if stream.read(len(header)) != header:
                        raise ValueError("another npy header than was recorded")
                    yield from blocks_in(stream, math.prod(shape) * dtype.itemsize, dtype)
                    # Reading to the end makes gzip check the CRC-32.
                    if stream.read(1):
                        raise ValueError("array data is longer than recorded")
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(f"gzip data is damaged: {error}") from error

    def read_box(self, stored: ArrayPlace, box: Box, into: Array | None = None) -> Array:
        """Inflate from the beginning to the last plane that is needed."""
        found = np.empty(box_shape(box), stored.dtype) if into is None else into
        self.read_crops(stored, [box], [found])
        return found

    def read_crops(self, stored: ArrayPlace, boxes: Sequence[Box], into: Sequence[Array]) -> None:
        """Inflate once, from the beginning to the last plane that a box needs."""
        dtype, (depth, height, width) = stored.dtype, stored.shape
        first, last = min(box[0].start for box in boxes), max(box[0].stop for box in boxes)
        stream = _elements_of(stored)
        stream.skip(first * height * width * dtype.itemsize)
        if len(boxes) == 1 and into[0].shape[1:] == (height, width):
            stream.fill(into[0].data.cast("B"))
        else:
            runs = c_order_boxes((last - first, height, width), PIECE_BYTES // dtype.itemsize)
            for run in moved(runs, (first, 0, 0)):
                values = np.empty(box_shape(run), dtype)
                stream.fill(values.data.cast("B"))
                for box, found in zip(boxes, into, strict=True):
                    keep(found, box, run, values)
        # The CRC-32 stands behind the last plane: it is checked if that plane was read anyway.
        if last == depth:
            stream.check_end()

    def read_boxes(self, stored: ArrayPlace, boxes: Sequence[Box]) -> Iterator[Array]:
        """Yield boxes; inflate once if they follow each other in C order and leave nothing out."""
        if not _in_c_order(stored, boxes):
            return super().read_boxes(stored, boxes)
        return _inflated_once(stored, boxes)

    def decode(self, data: bytes, require_room: RequireRoom) -> Array:
        """Return the array of a compressed npy file."""
        stream = GzipStream(_pieces(data))
        npy = read_header(stream.read)
        require_room(npy, npy.data_bytes)
        values = np.empty(math.prod(npy.shape), npy.dtype)
        stream.fill(values.view(np.uint8).data)
        stream.check_end()
        return values.reshape(npy.shape, order="F" if npy.fortran_order else "C")


def _elements_of(stored: ArrayPlace) -> GzipStream:
    """Return a stream of the elements, after the header that must precede them."""
    stream = GzipStream(_compressed(stored))
    header = header_bytes(stored.dtype, stored.shape)
    if stream.read(len(header)) != header:
        raise ValueError("another npy header than was recorded")
    return stream


def _compressed(stored: ArrayPlace) -> Iterator[bytes]:
    end = stored.offset + stored.size_bytes
    for offset in range(stored.offset, end, _BLOCK_BYTES):
        yield stored.file.read(offset, min(_BLOCK_BYTES, end - offset))


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _BLOCK_BYTES):
        yield data[start : start + _BLOCK_BYTES]


def _in_c_order(stored: ArrayPlace, boxes: Sequence[Box]) -> bool:
    place = 0
    for box in boxes:
        if place_in_c_order(stored.shape, box) != place:
            return False
        place += math.prod(box_shape(box))
    return place == math.prod(stored.shape)


def _inflated_once(stored: ArrayPlace, boxes: Sequence[Box]) -> Iterator[Array]:
    stream = _elements_of(stored)
    for box in boxes:
        found = np.empty(box_shape(box), stored.dtype)
        stream.fill(found.data.cast("B"))
        yield found
    stream.check_end()
