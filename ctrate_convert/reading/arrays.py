"""Read a box of an array from a shard: each encoding reads and decodes no more than it must."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.npy_header import header_bytes
from ctrate_convert.formats.tiling import c_order_boxes, common_part, place_in_c_order, within
from ctrate_convert.reading.boxes import Box, Shape, shape_of
from ctrate_convert.reading.gzip_stream import GzipStream
from ctrate_convert.reading.index import ArrayMember
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.store.records.plan import Encoding

_PIECE_BYTES = 2**22
"""The most bytes that a reader holds beside the requested box."""

_READ_BYTES = 2**20
_SMALL_PLANE = 2**14
"""Elements of a plane that is read whole: one more read would take as long."""

Array = NDArray[Any]


class _Unreadable(Exception):
    """The reason why an array's bytes cannot be what was written; becomes a `DamageError`."""


def read_box(file: ShardFile, array: ArrayMember, box: Box) -> Array:
    """Return the elements of ``box``: C order, writable, in the stored type and unit.

    Nothing is ever unpickled. A changed byte that changes no size is noticed only if the encoding
    shows it: ``npy`` never does; ``npy.gz`` does if its last plane is read; ``b2nd`` does if the
    changed block cannot be decoded. ``ctrate-convert verify --full`` finds every changed byte.

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
    return found.astype(array.dtype, copy=False)  # to the machine's own byte order


def read_boxes(file: ShardFile, array: ArrayMember, boxes: Sequence[Box]) -> Iterator[Array]:
    """Yield the elements of each box, as `read_box` returns them; check the headers once.

    An ``npy.gz`` is inflated once if the boxes follow each other in C order and leave nothing out.
    """
    file.check_header(array)
    found: Iterator[Array]
    try:
        if array.encoding == "npy":
            first = _first_element(file, array)
            found = (_npy_elements(file, array, box, first) for box in boxes)
        elif array.encoding == "npy.gz" and _in_c_order(array, boxes):
            found = _inflated_boxes(file, array, boxes)
        else:
            found = (_READERS[array.encoding](file, array, box) for box in boxes)
        for one in found:
            yield one.astype(array.dtype, copy=False)
    except _Unreadable as error:
        raise file.shard.damage(f"{array.name} cannot be decoded: {error}") from error


def _in_c_order(array: ArrayMember, boxes: Sequence[Box]) -> bool:
    place = 0
    for box in boxes:
        if place_in_c_order(array.shape, box) != place:
            return False
        place += math.prod(shape_of(box))
    return place == math.prod(array.shape)


def _inflated_boxes(file: ShardFile, array: ArrayMember, boxes: Sequence[Box]) -> Iterator[Array]:
    dtype = _stored_dtype(array)
    stream = GzipStream(_compressed(file, array))
    try:
        if stream.read(len(header := header_bytes(dtype, array.shape))) != header:
            raise _Unreadable("another npy header than was recorded")
        for box in boxes:
            found = np.empty(shape_of(box), dtype)
            stream.fill(found.data.cast("B"))
            yield found
        stream.check_end()
    except ValueError as error:
        raise _Unreadable(str(error)) from error


def _stored_dtype(array: ArrayMember) -> np.dtype[Any]:
    return np.dtype(array.dtype).newbyteorder("<")


def _npy(file: ShardFile, array: ArrayMember, box: Box) -> Array:
    """Read only the needed rows of each plane; read whole planes in one piece."""
    return _npy_elements(file, array, box, _first_element(file, array))


def _first_element(file: ShardFile, array: ArrayMember) -> int:
    """Return the offset of the array's first element, after the header that must precede it."""
    dtype = _stored_dtype(array)
    prefix_bytes = array.size_bytes - math.prod(array.shape) * dtype.itemsize
    # In the layout ctclip no header precedes the elements.
    expected = header_bytes(dtype, array.shape) if prefix_bytes else b""
    if prefix_bytes != len(expected) or file.read(array.offset, prefix_bytes) != expected:
        raise _Unreadable("another npy header than was recorded")
    return array.offset + prefix_bytes


def _npy_elements(file: ShardFile, array: ArrayMember, box: Box, first: int) -> Array:
    dtype = _stored_dtype(array)
    found = np.empty(shape_of(box), dtype)
    if _is_one_run(array.shape, box):
        file.read_into(found.data.cast("B"), first + _place(array, box, dtype))
        return found
    for run in _runs(array.shape, box, _PIECE_BYTES // dtype.itemsize):
        values = np.empty(shape_of(run), dtype)
        file.read_into(values.data.cast("B"), first + _place(array, run, dtype))
        _keep(found, box, run, values)
    return found


def _is_one_run(shape: Shape, box: Box) -> bool:
    """Return True if the box's elements follow each other in C order."""
    depth, rows, columns = shape_of(box)
    _, height, width = shape
    return columns == width and (rows == height or depth == 1)


def _place(array: ArrayMember, box: Box, dtype: np.dtype[Any]) -> int:
    return place_in_c_order(array.shape, box) * dtype.itemsize


def _runs(shape: Shape, box: Box, most: int) -> Iterator[Box]:
    """Yield the boxes to read for ``box``: at most ``most`` elements each, contiguous in C order.

    They hold more than is needed if that is quicker: whole rows of at most ``most`` elements, and
    whole planes if these are small.
    """
    _, height, width = shape
    z, y, x = box
    depth, rows, columns = shape_of(box)
    if height * width <= _SMALL_PLANE:
        yield from _moved(c_order_boxes((depth, height, width), most), (z.start, 0, 0))
    elif width <= most:
        for plane in range(z.start, z.stop):
            yield from _moved(c_order_boxes((1, rows, width), most), (plane, y.start, 0))
    else:
        for plane, row in itertools.product(range(z.start, z.stop), range(y.start, y.stop)):
            yield from _moved(c_order_boxes((1, 1, columns), most), (plane, row, x.start))


def _moved(boxes: Iterator[Box], by: Shape) -> Iterator[Box]:
    for box in boxes:
        z, y, x = (slice(p.start + n, p.stop + n) for p, n in zip(box, by, strict=True))
        yield z, y, x


def _keep(found: Array, box: Box, run: Box, values: Array) -> None:
    """Copy the voxels that ``box`` and ``run`` share from ``values`` to ``found``.

    ``found`` holds the voxels of ``box``, ``values`` those of ``run``.
    """
    part = common_part(box, run)
    if part is not None:
        found[within(box, part)] = values[within(run, part)]


def _npy_gz(file: ShardFile, array: ArrayMember, box: Box) -> Array:
    """Inflate from the beginning to the last plane that is needed."""
    dtype = _stored_dtype(array)
    depth, height, width = array.shape
    planes = box[0]
    found = np.empty(shape_of(box), dtype)
    stream = GzipStream(_compressed(file, array))
    try:
        if stream.read(len(header := header_bytes(dtype, array.shape))) != header:
            raise _Unreadable("another npy header than was recorded")
        stream.skip(planes.start * height * width * dtype.itemsize)
        if found.shape[1:] == (height, width):
            stream.fill(found.data.cast("B"))
        else:
            runs = c_order_boxes((len(found), height, width), _PIECE_BYTES // dtype.itemsize)
            for run in _moved(runs, (planes.start, 0, 0)):
                values = np.empty(shape_of(run), dtype)
                stream.fill(values.data.cast("B"))
                _keep(found, box, run, values)
        # The CRC-32 stands behind the last plane: it is checked if that plane was read anyway.
        if planes.stop == depth:
            stream.check_end()
    except ValueError as error:
        raise _Unreadable(str(error)) from error
    return found


def _compressed(file: ShardFile, array: ArrayMember) -> Iterator[bytes]:
    end = array.offset + array.size_bytes
    for offset in range(array.offset, end, _READ_BYTES):
        yield file.read(offset, min(_READ_BYTES, end - offset))


def _b2nd(file: ShardFile, array: ArrayMember, box: Box) -> Array:
    """Open the frame at its place in the tar, and decode the blocks that the box touches."""
    import blosc2  # imported here: it takes half a second

    # One thread: the data loader's workers read in parallel, and threads do not survive a fork.
    one_thread = blosc2.DParams(nthreads=1)
    try:
        frame = blosc2.open(file.shard.path, mode="r", offset=array.offset, dparams=one_thread)
        if not isinstance(frame, blosc2.NDArray):
            raise _Unreadable(f"the frame holds a {type(frame).__name__}")
        if (frame.shape, frame.dtype) != (array.shape, _stored_dtype(array)):
            raise _Unreadable(f"the frame holds {frame.dtype} {frame.shape}")
        found: Array = frame[box]
    # python-blosc2 parses the frame's metadata: damaged bytes raise any of these.
    except (RuntimeError, ValueError, TypeError, OverflowError, SyntaxError) as error:
        raise _Unreadable(f"Blosc2 frame is damaged: {error}") from error
    return found


_READERS: dict[Encoding, Callable[[ShardFile, ArrayMember, Box], Array]] = {
    "npy": _npy,
    "npy.gz": _npy_gz,
    "b2nd": _b2nd,
}
