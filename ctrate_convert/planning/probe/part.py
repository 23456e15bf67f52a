"""Cut a part from a large volume that compresses like the whole: boxes from all over it.

Rows of a chest differ: air in front of it, bone at its back. So the boxes are spread evenly over
the first two axes and take the whole last axis. They begin where Blosc2's blocks begin, and one row
of a box fills the window of deflate, as rows of the whole volume do.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.cast import BLOCK_VOXELS
from ctrate_convert.sources.kinds import open_source
from ctrate_convert.sources.source import Source

PART_BYTES = 2**24
"""Bytes of a part's elements as stored; a smaller volume is its own part."""

PART_KEY = "part"
"""The part's array name in its NPZ."""

_BOX_ROWS = 16
_BOX_COLUMNS = 32
_WINDOW_BYTES = 2**15
_MOST_PLANES = 2**15
_RUNS = 64
_PASSED_BYTES = 2**20

_SPREAD = (0.7548776662466927, 0.5698402909980532)
"""The fractional parts of their multiples are spread evenly over the unit square.

Source: M. Roberts, The Unreasonable Effectiveness of Quasirandom Sequences (2018), R2.
"""


@dataclass(frozen=True)
class Part:
    """A volume's part as a stored NPZ, and the CPU seconds to read the part and the volume."""

    path: Path
    voxels: int
    of_voxels: int
    read_cpu_s: float
    of_read_cpu_s: float

    @property
    def times(self) -> float:
        """The expected ratio of the volume's compressed size to the part's."""
        return self.of_voxels / self.voxels

    def cpu_of_whole(self, cpu_s: float) -> float:
        """Return the CPU seconds of the volume's conversion if the part's takes ``cpu_s``."""
        beside_reading = max(0.0, cpu_s - self.read_cpu_s)
        return self.of_read_cpu_s + beside_reading * self.times


def cut_part(source: Path, array_key: str | None, path: Path) -> Part:
    """Read ``source`` to its end and write a part of it to ``path``.

    The same volume gives the same part.

    Raises:
        SampleError: the source cannot be read.
        OSError: the part cannot be written.
    """
    with open_source(source, array_key) as volume:
        shape = volume.array.shape
        part, cpu_s = (
            _boxes_of(volume, source.stem)
            if _looks_like_a_scan(shape, volume.array.dtype.itemsize)
            else _runs_of(volume)
        )
    np.savez(path, part=part)
    return Part(
        path=path,
        voxels=part.size,
        of_voxels=int(np.prod(shape, dtype=np.int64)),
        read_cpu_s=_read_cpu(path),
        of_read_cpu_s=cpu_s,
    )


def _boxes_of(volume: Source, name: str) -> tuple[NDArray[Any], float]:
    """Read ``volume`` to its end; return boxes of it, and the CPU seconds."""
    shape, dtype = volume.array.shape, volume.array.dtype
    rows, columns = _box_shape(shape, dtype.itemsize)
    # The file's name sets the start, so that a volume always gives the same boxes.
    boxes = _places(shape, (rows, columns), dtype.itemsize, zlib.crc32(name.encode()))
    order: Any = "F" if volume.array.fortran_order else "C"
    part = np.empty((len(boxes) * rows, columns, shape[2]), dtype, order)
    plane_shape = shape[1::-1] if volume.array.fortran_order else shape[1:]
    plane = np.empty(plane_shape, dtype)
    view = plane.reshape(-1).view(np.uint8).data
    cpu_s = 0.0
    planes = shape[2] if volume.array.fortran_order else shape[0]
    for index in range(planes):
        clock = time.process_time()
        volume.read_into(view)
        cpu_s += time.process_time() - clock
        take = _take_plane if volume.array.fortran_order else _take_row
        take(part, boxes, rows, columns, index, plane)
    return part, cpu_s


def _looks_like_a_scan(shape: tuple[int, ...], itemsize: int) -> bool:
    """Return False if the planes or boxes are too large for memory, or the planes too many."""
    rows, columns = _box_shape(shape, itemsize)
    largest = max(shape[0] * shape[1], shape[1] * shape[2], rows * columns * shape[2])
    return largest * itemsize <= PART_BYTES and max(shape[0], shape[2]) <= _MOST_PLANES


def _runs_of(volume: Source) -> tuple[NDArray[Any], float]:
    """Read ``volume`` as `_boxes_of` does; the part is runs of elements from all over the file."""
    dtype = volume.array.dtype
    part = np.empty((_RUNS, 1, PART_BYTES // (_RUNS * dtype.itemsize)), dtype)
    elements = volume.array.data_bytes // dtype.itemsize
    between_bytes = elements // _RUNS * dtype.itemsize - part[0].nbytes
    passed = memoryview(bytearray(_PASSED_BYTES))
    clock = time.process_time()
    for run in part:
        view = run.reshape(-1).view(np.uint8).data
        volume.read_into(view)
        left = between_bytes
        while left and (got := volume.read_into(passed[:left])):
            left -= got
    while volume.read_into(passed):  # the remainder of the division
        pass
    return part, time.process_time() - clock


def _take_row(
    part: NDArray[Any],
    boxes: list[tuple[int, int]],
    rows: int,
    columns: int,
    index: int,
    plane: NDArray[Any],
) -> None:
    """Copy from plane ``index`` of the first axis the rows that lie in a box (C order)."""
    for number, (row, column) in enumerate(boxes):
        if row <= index < row + rows:
            part[number * rows + index - row] = plane[column : column + columns]


def _take_plane(
    part: NDArray[Any],
    boxes: list[tuple[int, int]],
    rows: int,
    columns: int,
    index: int,
    plane: NDArray[Any],
) -> None:
    """Copy from plane ``index`` of the last axis the voxels that lie in a box (Fortran order).

    The plane has its columns first.
    """
    for number, (row, column) in enumerate(boxes):
        box = plane[column : column + columns, row : row + rows]
        part[number * rows : (number + 1) * rows, :, index] = box.T


def _box_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """Return the rows and columns of a box; the columns divide the axis with little left over."""
    # The window sees the voxels as stored, and those of wider sources take two bytes.
    least = max(2 * _BOX_COLUMNS, _WINDOW_BYTES // (shape[2] * min(itemsize, 2)))
    cells = max(1, shape[1] // least)
    columns = -(-shape[1] // (cells * _BOX_COLUMNS)) * _BOX_COLUMNS
    return min(_BOX_ROWS, shape[0]), min(columns, shape[1])


def _places(
    shape: tuple[int, ...], box: tuple[int, int], itemsize: int, start: int
) -> list[tuple[int, int]]:
    """Return the row and column of each box; none twice, since a compressor would find the copy."""
    number = max(1, PART_BYTES // (box[0] * box[1] * shape[2] * itemsize))
    places = []
    for index in range(number):
        row, column = (
            # The cells lie side by side, so that the edges of the field count as much as its
            # middle.
            min(int((start + index) * step % 1 * -(-size // width)) * width, size - width)
            for step, size, width in zip(_SPREAD, shape, box, strict=False)
        )
        places.append((row, column))
    return list(dict.fromkeys(places))


def _read_cpu(path: Path) -> float:
    clock = time.process_time()
    with open_source(path, PART_KEY) as volume:
        for _ in volume.blocks(BLOCK_VOXELS):
            pass
    return time.process_time() - clock
