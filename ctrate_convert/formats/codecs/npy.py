"""``npy``: the raw elements, after an npy header if the layout has one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ctrate_convert.formats.codecs.codec import Array, ArrayPlace, Codec, RequireRoom
from ctrate_convert.formats.codecs.target import ArrayTarget, ArrayWriter
from ctrate_convert.formats.npy_header import header_bytes, read_header
from ctrate_convert.formats.tar import WrittenMember
from ctrate_convert.formats.tiling import (
    Box,
    Shape,
    box_shape,
    c_order_boxes,
    common_part,
    moved,
    place_in_c_order,
    within,
)

PIECE_BYTES = 2**22
"""The most bytes that a reader holds beside the requested box."""

_BLOCK_BYTES = 2**20
_SMALL_PLANE = 2**14
"""Elements of a plane that is read whole: one more read would take as long."""


class SupportsRead(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end."""


class _Writer(ArrayWriter):
    def __init__(self, target: ArrayTarget) -> None:
        prefix = header_bytes(target.dtype, target.shape) if target.header else b""
        self._tar = target.tar
        # Not hashed: the record's digest of the elements serves for this member too.
        self._tar.begin(target.name, len(prefix) + target.elements_bytes, hashed=False)
        self._tar.put(prefix)

    def put(self, block: Array) -> None:
        self._tar.put(block.data)

    def finish(self) -> WrittenMember:
        return self._tar.end()


class Npy(Codec):
    """Raw elements; a member's size is known from the start."""

    def writer(self, target: ArrayTarget) -> ArrayWriter:
        """Return a writer of raw elements."""
        return _Writer(target)

    def read_blocks(
        self, path: Path, offset: int, size_bytes: int, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> Iterator[Array]:
        """Yield the elements, which are the last bytes of the member after any header."""
        elements_bytes = math.prod(shape) * dtype.itemsize
        if elements_bytes > size_bytes:
            raise ValueError(f"{size_bytes} bytes cannot hold {shape} of {dtype.name}")
        with path.open("rb", buffering=0) as stream:
            stream.seek(offset + size_bytes - elements_bytes)
            yield from blocks_in(stream, elements_bytes, dtype)

    def read_box(self, stored: ArrayPlace, box: Box, into: Array | None = None) -> Array:
        """Read only the needed rows of each plane; read whole planes in one piece."""
        return _elements(stored, box, _first_element(stored), into)

    def read_boxes(self, stored: ArrayPlace, boxes: Sequence[Box]) -> Iterator[Array]:
        """Yield boxes; the header is checked once."""
        first = _first_element(stored)
        return (_elements(stored, box, first) for box in boxes)

    def decode(self, data: bytes, require_room: RequireRoom) -> Array:
        """Return the array of an npy file."""
        npy = read_header(BytesIO(data).read)
        require_room(npy, npy.data_bytes)
        elements = np.frombuffer(data, npy.dtype, offset=npy.size_bytes)
        return elements.reshape(npy.shape, order="F" if npy.fortran_order else "C").copy()


def blocks_in(stream: SupportsRead, size_bytes: int, dtype: np.dtype[Any]) -> Iterator[Array]:
    """Yield the elements in the next ``size_bytes`` of ``stream``, a block at a time.

    Raises:
        ValueError: the stream ends early.
    """
    while size_bytes:
        data = stream.read(min(_BLOCK_BYTES, size_bytes))
        if not data or len(data) % dtype.itemsize:
            raise ValueError("array data is cut short")
        size_bytes -= len(data)
        yield np.frombuffer(data, dtype)


def _first_element(stored: ArrayPlace) -> int:
    """Return the offset of the array's first element, after the header that must precede it."""
    prefix_bytes = stored.size_bytes - math.prod(stored.shape) * stored.dtype.itemsize
    # In the layout ctclip no header precedes the elements.
    expected = header_bytes(stored.dtype, stored.shape) if prefix_bytes else b""
    if prefix_bytes != len(expected) or stored.file.read(stored.offset, prefix_bytes) != expected:
        raise ValueError("another npy header than was recorded")
    return stored.offset + prefix_bytes


def _elements(stored: ArrayPlace, box: Box, first: int, into: Array | None = None) -> Array:
    dtype = stored.dtype
    found = np.empty(box_shape(box), dtype) if into is None else into
    if _is_one_run(stored.shape, box):
        stored.file.read_into(found.data.cast("B"), first + _place(stored, box))
        return found
    for run in _runs(stored.shape, box, PIECE_BYTES // dtype.itemsize):
        values = np.empty(box_shape(run), dtype)
        stored.file.read_into(values.data.cast("B"), first + _place(stored, run))
        keep(found, box, run, values)
    return found


def _is_one_run(shape: Shape, box: Box) -> bool:
    """Return True if the box's elements follow each other in C order."""
    depth, rows, columns = box_shape(box)
    _, height, width = shape
    return columns == width and (rows == height or depth == 1)


def _place(stored: ArrayPlace, box: Box) -> int:
    return place_in_c_order(stored.shape, box) * stored.dtype.itemsize


def _runs(shape: Shape, box: Box, most: int) -> Iterator[Box]:
    """Yield the boxes to read for ``box``: at most ``most`` elements each, contiguous in C order.

    They hold more than is needed if that is quicker: whole rows of at most ``most`` elements, and
    whole planes if these are small.
    """
    _, height, width = shape
    z, y, x = box
    depth, rows, columns = box_shape(box)
    if height * width <= _SMALL_PLANE:
        yield from moved(c_order_boxes((depth, height, width), most), (z.start, 0, 0))
    elif width <= most:
        for plane in range(z.start, z.stop):
            yield from moved(c_order_boxes((1, rows, width), most), (plane, y.start, 0))
    else:
        for plane, row in itertools.product(range(z.start, z.stop), range(y.start, y.stop)):
            yield from moved(c_order_boxes((1, 1, columns), most), (plane, row, x.start))


def keep(found: Array, box: Box, run: Box, values: Array) -> None:
    """Copy the voxels that ``box`` and ``run`` share from ``values`` to ``found``.

    ``found`` holds the voxels of ``box``, ``values`` those of ``run``.
    """
    part = common_part(box, run)
    if part is not None:
        found[within(box, part)] = values[within(run, part)]
