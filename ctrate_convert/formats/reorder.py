"""Fortran order to C order through a scratch file, so that no volume is ever whole in memory.

The file holds the volume as a row of slabs, each a few planes of the last axis with that axis
already moved inside. A block of the result then is one contiguous piece of every slab.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.durable import open_scratch_file, write_all
from ctrate_convert.formats.npy import NpyHeader

SLAB_BYTES = 2**23


def in_c_order(
    blocks: Iterable[NDArray[Any]], npy: NpyHeader, dtype: np.dtype[Any], scratch: Path
) -> Iterator[NDArray[Any]]:
    """``blocks`` of a volume in file order, given on in C order; each is valid until the next.

    ``scratch`` is the folder for the scratch file that a volume in Fortran order takes.
    """
    if not npy.fortran_order:
        yield from blocks
        return
    with FortranReorder(scratch, npy.shape, dtype) as reorder:
        for block in blocks:
            reorder.put(block)
        yield from reorder.blocks()


class FortranReorder:
    """Takes a volume's elements in Fortran order, gives them back in C order; a context manager.

    The scratch file is as large as the volume, has no name, and lies in ``directory``.
    """

    def __init__(self, directory: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._rows, self._columns, self._planes = shape
        self._dtype = dtype
        self._plane = self._rows * self._columns
        self._planes_a_slab = max(1, SLAB_BYTES // (self._plane * dtype.itemsize))
        self._slab = np.empty(min(self._planes_a_slab, self._planes) * self._plane, dtype)
        self._filled = 0
        self._slabs: list[int] = []
        self._descriptor = open_scratch_file(directory)

    def put(self, values: NDArray[Any]) -> None:
        """Take the next elements, 1-D."""
        while len(values):
            room = min(len(self._slab), self._left()) - self._filled
            taken = values[:room]
            self._slab[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            values = values[len(taken) :]
            if self._filled == min(len(self._slab), self._left()):
                self._flush()

    def _left(self) -> int:
        return (self._planes - sum(self._slabs)) * self._plane

    def _flush(self) -> None:
        planes = self._filled // self._plane
        slab = self._slab[: self._filled].reshape(planes, self._columns, self._rows)
        write_all(self._descriptor, np.ascontiguousarray(slab.transpose(2, 1, 0)).data)
        self._slabs.append(planes)
        self._filled = 0

    def blocks(self) -> Iterator[NDArray[Any]]:
        """The whole volume in C order, block by block, 1-D; after the last `put`."""
        row_bytes = self._columns * self._planes * self._dtype.itemsize
        rows_a_block = max(1, SLAB_BYTES // row_bytes)
        for first in range(0, self._rows, rows_a_block):
            rows = min(rows_a_block, self._rows - first)
            block = np.empty((rows, self._columns, self._planes), self._dtype)
            plane = 0
            for planes in self._slabs:
                piece = np.empty((rows, self._columns, planes), self._dtype)
                offset = (plane * self._plane + first * self._columns * planes) * piece.itemsize
                self._read(piece.data.cast("B"), offset)
                block[:, :, plane : plane + planes] = piece
                plane += planes
            yield block.reshape(-1)

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
