"""A box of an array out of a shard: each encoding reads and decodes no more than it must."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from ctrate_convert.formats.npy import header_bytes
from ctrate_convert.reading.boxes import Box, shape_of
from ctrate_convert.reading.index import ArrayMember
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.schemas.plan import Encoding

_GZIP_CONTAINER = 31  # zlib's window bits for a gzip header and trailer
_PIECE_BYTES = 2**20

Array = NDArray[Any]


class _Unreadable(Exception):
    """Why an array's bytes cannot be what was written; becomes a `DamageError`."""


def read_box(file: ShardFile, array: ArrayMember, box: Box) -> Array:
    """What ``box`` holds of an array: C order, writable, in the stored type and unit.

    Nothing is ever unpickled. Bytes that changed while all sizes stayed are noticed only where
    the encoding shows it: never by ``npy``, by ``npy.gz`` where its last plane is read, by
    ``b2nd`` where the changed block cannot be decoded. ``ctrate-convert verify --full`` finds
    every one.

    Raises:
        DamageError: the shard does not hold what its record says.
        EnvironmentProblem: it cannot be read.
    """
    if 0 in shape_of(box):
        return np.empty(shape_of(box), array.dtype)
    file.check_header(array)
    try:
        found = _READERS[array.encoding](file, array, box)
    except _Unreadable as error:
        raise file.shard.damage(f"{array.name} cannot be decoded: {error}") from error
    return found.astype(array.dtype, copy=False)  # the machine's own byte order


def _stored_dtype(array: ArrayMember) -> np.dtype[Any]:
    return np.dtype(array.dtype).newbyteorder("<")


def _npy(file: ShardFile, array: ArrayMember, box: Box) -> Array:
    """Of each plane the rows that are needed; whole planes in one piece."""
    dtype = _stored_dtype(array)
    _, height, width = array.shape
    prefix_bytes = array.size_bytes - math.prod(array.shape) * dtype.itemsize
    # In the layout ctclip no header precedes the elements.
    expected = header_bytes(dtype, array.shape) if prefix_bytes else b""
    if prefix_bytes != len(expected) or file.read(array.offset, prefix_bytes) != expected:
        raise _Unreadable("another npy header than was recorded")
    z, y, x = box
    found = np.empty(shape_of(box), dtype)
    place = array.offset + prefix_bytes + (z.start * height + y.start) * width * dtype.itemsize
    if found.shape[1:] == (height, width):
        file.read_into(found.data.cast("B"), place)
        return found
    rows = np.empty((found.shape[1], width), dtype)
    for plane in found:
        file.read_into(rows.data.cast("B"), place)
        plane[...] = rows[:, x]
        place += height * width * dtype.itemsize
    return found


def _npy_gz(file: ShardFile, array: ArrayMember, box: Box) -> Array:
    """Inflated from its beginning up to the last plane that is needed."""
    dtype = _stored_dtype(array)
    depth, height, width = array.shape
    z, y, x = box
    planes = np.empty((z.stop - z.start, height, width), dtype)
    target = planes.data.cast("B")
    header = header_bytes(dtype, array.shape)
    seen_header = b""
    position = -len(header) - z.start * height * width * dtype.itemsize  # as ``target`` counts
    for data in _inflated(file, array, to_the_end=z.stop == depth):
        if len(seen_header) < len(header):
            seen_header += data[: len(header) - len(seen_header)]
        part = data[max(0, -position) :]
        first = max(0, position)
        part = part[: max(0, len(target) - first)]
        target[first : first + len(part)] = part
        position += len(data)
        if position >= len(target) and z.stop < depth:
            break
    if seen_header != header:
        raise _Unreadable("another npy header than was recorded")
    if position < len(target) or (z.stop == depth and position != len(target)):
        raise _Unreadable("gzip data holds another number of bytes than was recorded")
    if shape_of(box) == planes.shape:
        return planes
    return np.ascontiguousarray(planes[:, y, x])


def _inflated(file: ShardFile, array: ArrayMember, *, to_the_end: bool) -> Iterator[bytes]:
    """What the member inflates to, piece by piece; at its end the CRC-32 has been checked."""
    inflate = isal_zlib.decompressobj(_GZIP_CONTAINER)
    end = array.offset + array.size_bytes
    for offset in range(array.offset, end, _PIECE_BYTES):
        compressed = file.read(offset, min(_PIECE_BYTES, end - offset))
        while compressed:
            try:
                yield inflate.decompress(compressed, _PIECE_BYTES)
            except isal_zlib.error as error:  # type: ignore[misc]
                raise _Unreadable(f"gzip data is damaged: {error}") from error
            compressed = inflate.unconsumed_tail
    if to_the_end and not inflate.eof:
        raise _Unreadable("gzip data is cut short")


def _b2nd(file: ShardFile, array: ArrayMember, box: Box) -> Array:
    """The frame is opened at its place in the tar, and decodes the blocks that the box touches."""
    import blosc2  # takes half a second, which only this encoding should cost

    # One thread: parallel reading is the workers' part, and threads do not survive a fork.
    one_thread = blosc2.DParams(nthreads=1)
    try:
        frame = blosc2.open(file.shard.path, mode="r", offset=array.offset, dparams=one_thread)
        if not isinstance(frame, blosc2.NDArray):
            raise _Unreadable(f"the frame holds a {type(frame).__name__}")
        if (frame.shape, frame.dtype) != (array.shape, _stored_dtype(array)):
            raise _Unreadable(f"the frame holds {frame.dtype} {frame.shape}")
        found: Array = frame[box]
    except (RuntimeError, ValueError, TypeError, OverflowError, SyntaxError) as error:
        raise _Unreadable(f"Blosc2 frame is damaged: {error}") from error
    return found


_READERS: dict[Encoding, Callable[[ShardFile, ArrayMember, Box], Array]] = {
    "npy": _npy,
    "npy.gz": _npy_gz,
    "b2nd": _b2nd,
}
