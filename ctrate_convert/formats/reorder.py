"""Turn Fortran order into C order through a scratch file, without holding a whole volume in memory.

The file holds the volume as consecutive slabs. A slab is a box in Fortran order with its elements
in C order. A block of the result is a box in C order. It is gathered from one contiguous piece of
each slab that it meets. Slabs and blocks have a bounded size for any shape, and so has the memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.tiling import (
    Box,
    box_elements,
    box_shape,
    c_order_boxes,
    common_part,
    fortran_order_boxes,
    place_in_c_order,
    within,
)
from ctrate_convert.store.durable import open_scratch_file, write_all

SLAB_BYTES = 2**23


def in_c_order(
    blocks: Iterable[NDArray[Any]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    scratch: Path,
    *,
    fortran_order: bool,
) -> Iterator[NDArray[Any]]:
    """Yield a volume's ``blocks``, given in file order, in C order; each is valid until the next.

    ``scratch`` is the folder for the scratch file, which only a volume in Fortran order needs.
    """
    if not fortran_order:
        yield from blocks
        return
    with FortranReorder(scratch, shape, dtype) as reorder:
        for block in blocks:
            reorder.put(block)
        yield from reorder.blocks()


class FortranReorder:
    """A scratch file that takes elements in Fortran order and gives them back in C order.

    It is a context manager. The file is as large as the volume, has no name, and lies in
    ``directory``.
    """

    def __init__(self, directory: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        rows, columns, planes = shape
        self._shape = (rows, columns, planes)
        self._most = max(1, SLAB_BYTES // dtype.itemsize)
        self._boxes = fortran_order_boxes(self._shape, self._most)
        self._box = next(self._boxes, None)
        self._slabs: list[tuple[Box, int]] = []
        self._slab = np.empty(min(self._most, rows * columns * planes), dtype)
        self._filled = 0
        self._written = 0
        self._descriptor = open_scratch_file(directory)

    def put(self, values: NDArray[Any]) -> None:
        """Store the volume's next elements, 1-D."""
        while len(values) and self._box:
            wanted = box_elements(self._box)
            taken = values[: wanted - self._filled]
            self._slab[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            values = values[len(taken) :]
            if self._filled == wanted:
                self._flush(self._box)

    def _flush(self, box: Box) -> None:
        # The elements came with the first axis fastest, which is C order of the reversed axes.
        slab = self._slab[: self._filled].reshape(box_shape(box)[::-1])
        write_all(self._descriptor, np.ascontiguousarray(slab.transpose(2, 1, 0)).data)
        self._slabs.append((box, self._written))
        self._written += self._filled
        self._filled = 0
        self._box = next(self._boxes, None)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the whole volume in C order as 1-D blocks. Call it after the last `put`.

        Each block is valid until the next.
        """
        gathered = np.empty(len(self._slab), self._slab.dtype)
        for box in c_order_boxes(self._shape, self._most):
            block = gathered[: box_elements(box)]
            self._gather(box, block.reshape(box_shape(box)))
            yield block

    def _gather(self, box: Box, block: NDArray[Any]) -> None:
        for slab, offset in self._slabs:
            part = common_part(box, slab)
            if part is None:
                continue
            # The part is contiguous in the slab: along each axis that the block cuts, either the
            # slab or the block has one element.
            piece = self._slab[: box_elements(part)]
            place = offset + place_in_c_order(box_shape(slab), within(slab, part))
            self._read(piece.data.cast("B"), place * piece.itemsize)
            block[within(box, part)] = piece.reshape(box_shape(part))

    def _read(self, buffer: memoryview, offset: int) -> None:
        while buffer:
            got = os.preadv(self._descriptor, [buffer], offset)
            if got == 0:
                raise OSError("scratch file is shorter than what was written to it")
            buffer, offset = buffer[got:], offset + got

    def __enter__(self) -> FortranReorder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
