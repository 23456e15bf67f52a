"""Read a box of an array from a shard: each encoding reads and decodes no more than it must."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.codecs import CODECS
from ctrate_convert.formats.codecs.codec import ArrayPlace
from ctrate_convert.reading.boxes import Box, shape_of
from ctrate_convert.reading.index import ArrayMember
from ctrate_convert.reading.shard_file import ShardFile

Array = NDArray[Any]


def read_box(file: ShardFile, array: ArrayMember, box: Box) -> Array:
    """Return the elements of ``box``: C order, writable, in the stored type and unit.

    Nothing is ever unpickled. A changed byte that changes no size is noticed only if the encoding
    shows it: ``npy`` never does; ``npy.gz`` does if its last plane is read; ``b2nd`` does if the
    changed block cannot be decoded. ``ctrate-convert verify --full`` finds every changed byte.

    Raises:
        DamageError: the shard does not hold what its record says.
        EnvironmentProblem: it cannot be read.
    """
    # The encodings take no empty boxes, which an index may well ask for.
    if 0 in shape_of(box):
        return np.empty(shape_of(box), array.dtype)
    (found,) = read_boxes(file, array, [box])
    return found


def read_boxes(file: ShardFile, array: ArrayMember, boxes: Sequence[Box]) -> Iterator[Array]:
    """Yield the elements of each box, as `read_box` returns them; check the headers once.

    An ``npy.gz`` is inflated once if the boxes follow each other in C order and leave nothing out.
    """
    file.check_header(array)
    dtype = np.dtype(array.dtype).newbyteorder("<")
    path, offset, size_bytes = file.shard.path, array.offset, array.size_bytes
    stored = ArrayPlace(file, path, offset, size_bytes, dtype, array.shape)
    try:
        for one in CODECS[array.encoding].read_boxes(stored, boxes):
            yield one.astype(array.dtype, copy=False)  # to the machine's own byte order
            del one  # before the next one is read
    except ValueError as error:
        raise file.shard.damage(f"{array.name} cannot be decoded: {error}") from error
