"""The protocol of an encoding of array members: write, read blocks, read boxes, decode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.codecs.target import ArrayTarget, ArrayWriter
from ctrate_convert.formats.tiling import Box, Shape
from ctrate_convert.store.records.plan import ChunkShape

Array = NDArray[Any]

RequireRoom = Callable[[object, int], None]
"""A function that takes what is about to be decoded, and its bytes; it raises if they are many."""


class OpenFile(Protocol):
    """A file that is read at places. What it raises is the caller's."""

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return all ``size_bytes`` from ``offset`` on."""

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` with the bytes from ``offset`` on."""


@dataclass(frozen=True)
class ArrayPlace:
    """An array member at its place in a file; ``dtype`` is little-endian."""

    file: OpenFile
    path: str
    offset: int
    size_bytes: int
    dtype: np.dtype[Any]
    shape: Shape


class Codec(ABC):
    """One encoding of an array member. All of them stream and are lossless.

    The same elements give the same bytes each time. Nothing is ever unpickled.
    """

    @abstractmethod
    def writer(self, target: ArrayTarget) -> ArrayWriter:
        """Begin a member and return its writer, which takes the elements in C order."""

    @abstractmethod
    def read_blocks(
        self, path: Path, offset: int, size_bytes: int, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> Iterator[Array]:
        """Yield a stored member's elements in C order; each block is valid until the next.

        Raises:
            ValueError: the stored bytes are damaged, or hold another type or shape.
            OSError: the file cannot be read.
        """

    @abstractmethod
    def read_box(self, stored: ArrayPlace, box: Box, into: Array | None = None) -> Array:
        """Return a box, reading and decoding no more than the encoding has to.

        ``into``, if it is given, is filled and returned: C order, the box's shape and stored type.

        Raises:
            ValueError: the stored bytes are damaged, or hold another type or shape.
        """

    def read_crops(self, stored: ArrayPlace, boxes: Sequence[Box], into: Sequence[Array]) -> None:
        """Fill each array of ``into`` with its box; decode once what several boxes share.

        Boxes may overlap. The arrays are as for `read_box`.

        Raises:
            ValueError: as for `read_box`.
        """
        for box, found in zip(boxes, into, strict=True):
            self.read_box(stored, box, found)

    def read_boxes(self, stored: ArrayPlace, boxes: Sequence[Box]) -> Iterator[Array]:
        """Yield boxes as `read_box` returns them, and do once what is the same for all.

        Raises:
            ValueError: as for `read_box`.
        """
        return (self.read_box(stored, box) for box in boxes)

    @abstractmethod
    def decode(self, data: bytes, require_room: RequireRoom) -> Array:
        """Return the whole array of a member's bytes.

        Raises:
            ValueError: the bytes are damaged.
            SampleError: their npy header is.
        """

    def voxels_in_a_row_of_chunks(
        self, shape: Shape, itemsize: int, chunk_shape: ChunkShape
    ) -> int | None:
        """Return the size of the boxes in C order that decode nothing twice; None if all do."""
        del shape, itemsize, chunk_shape
        return None
