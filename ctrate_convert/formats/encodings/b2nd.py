"""``b2nd``: a Blosc2 NDArray frame, of which a crop is read without decoding the rest.

SHUFFLE and BYTEDELTA before zstd level 1, as measured best on CT for its speed. Two filters at
most: with three, Blosc2 4.14.1 overwrites the caller's array. The frame grows in a scratch file,
chunk row by chunk row, and is then copied into the tar, so memory does not grow with the volume.

Source of the format: https://github.com/Blosc/c-blosc2/blob/main/README_B2ND_METALAYER.rst
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.durable import open_scratch_file, scratch_directory, write_all
from ctrate_convert.formats.encodings.target import ArrayTarget, ArrayWriter
from ctrate_convert.formats.tar import WrittenMember
from ctrate_convert.schemas.plan import ChunkShape

ATTRIBUTES = "ctrate"
"""The frame's metalayer that holds the scale of the stored integers."""

_BLOCK_ROWS, _BLOCK_ACROSS = 16, 32
_BLOCK_ALONG: dict[ChunkShape, int] = {"cube": 100, "slab": 300}
_BLOCK_VOXELS = 2**15
_ROW_BYTES = 2**24
_CHUNK_BYTES = 2**22
_COPY_BYTES = 2**20


def chunks_and_blocks(
    shape: tuple[int, ...], itemsize: int, chunk_shape: ChunkShape
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunk and block shapes. A row of chunks along the first axis fits 16 MiB.

    A crop decodes the blocks that it touches. ``cube``: blocks that keep a crop cheap. ``slab``:
    longer blocks, smaller and faster where volumes are read from front to back.
    """
    depth, height, width = shape
    plane_bytes = height * width * itemsize
    block_rows = min(_BLOCK_ROWS, depth)
    while block_rows > 1 and block_rows * plane_bytes > _ROW_BYTES:
        block_rows //= 2
    # Each chunk has its price: they are as deep and as wide as 4 MiB allow, and even.
    most_rows = block_rows * max(1, _CHUNK_BYTES // (block_rows * plane_bytes))
    rows = min(depth, _evenly(depth, most_rows, block_rows))
    across = height
    while across > _BLOCK_ACROSS and across * rows * width * itemsize > _CHUNK_BYTES:
        across = -(-across // 2)
    along = -(-width // max(1, round(width / _BLOCK_ALONG[chunk_shape])))
    columns = _BLOCK_ACROSS
    while 2 * columns <= across and block_rows * columns * along < _BLOCK_VOXELS:
        columns *= 2
    return (rows, across, width), (block_rows, min(across, columns), along)


def _evenly(length: int, most: int, unit: int) -> int:
    """The size, in units, of as few equal parts as may be; what is missing is padding."""
    parts = -(-length // most)
    return -(-length // (parts * unit)) * unit


class _Writer(ArrayWriter):
    def __init__(self, target: ArrayTarget) -> None:
        import blosc2  # takes half a second, which only this encoding should cost

        # A frame in a file compresses its index anew after every chunk, and starts four threads
        # each time, whatever CParams say; they wait for cores that other workers use.
        os.environ["BLOSC_NTHREADS"] = "1"
        self._target = target
        self._scratch = contextlib.ExitStack()
        folder = self._scratch.enter_context(scratch_directory(target.scratch / target.name))
        self._path = folder / "frame"
        chunk, block = chunks_and_blocks(target.shape, target.dtype.itemsize, target.chunk_shape)
        self._row = np.empty((chunk[0], *target.shape[1:]), target.dtype)
        self._flat = self._row.reshape(-1)
        with self._telling_why_not():
            self._array = blosc2.empty(
                target.shape,
                dtype=target.dtype,
                chunks=chunk,
                blocks=block,
                cparams=blosc2.CParams(
                    codec=blosc2.Codec.ZSTD,
                    clevel=1,
                    nthreads=1,
                    filters=[blosc2.Filter.SHUFFLE, blosc2.Filter.BYTEDELTA],
                    filters_meta=[0, 0],
                    splitmode=blosc2.SplitMode.ALWAYS_SPLIT,
                ),
                dparams=blosc2.DParams(nthreads=1),
                meta={ATTRIBUTES: dict(target.attributes)},
                urlpath=str(self._path),
                contiguous=True,
                mode="w",
            )
        self._filled = 0
        self._rows_done = 0

    def put(self, block: NDArray[Any]) -> None:
        while len(block):
            wanted = self._row_elements()
            taken = block[: wanted - self._filled]
            self._flat[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            block = block[len(taken) :]
            if self._filled == wanted:
                self._flush()

    def _rows_now(self) -> int:
        return min(len(self._row), self._target.shape[0] - self._rows_done)

    def _row_elements(self) -> int:
        return self._rows_now() * int(self._row[0].size)

    def _flush(self) -> None:
        rows = self._rows_now()
        # What assigning to array[first : …] does too, but there with its own detours.
        stop = (self._rows_done + rows, *self._target.shape[1:])
        with self._telling_why_not():
            self._array.set_slice(((self._rows_done, 0, 0), stop), self._row[:rows])
        self._rows_done += rows
        self._filled = 0

    @contextlib.contextmanager
    def _telling_why_not(self) -> Iterator[None]:
        """Turn Blosc2's error, which does not say why, into the `OSError` of a write like its own.

        Elements that were cast can always be compressed: what fails is the frame's growth.
        """
        try:
            yield
        except RuntimeError as error:
            probe = open_scratch_file(self._path.parent)
            try:
                write_all(probe, self._row.data.cast("B"))
                os.fsync(probe)
            finally:
                os.close(probe)
            raise OSError(errno.EIO, "Blosc2 cannot write its frame", str(self._path)) from error

    def finish(self) -> WrittenMember:
        tar = self._target.tar
        del self._array  # closes the frame
        tar.begin(self._target.name, self._path.stat().st_size)
        with self._path.open("rb", buffering=0) as stream:
            while data := stream.read(_COPY_BYTES):
                tar.put(data)
        return tar.end()

    def close(self) -> None:
        self._scratch.close()


def writer(target: ArrayTarget) -> ArrayWriter:
    """A writer through Blosc2."""
    return _Writer(target)


def read_blocks(
    path: Path, offset: int, size_bytes: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Iterator[NDArray[Any]]:
    """The elements, a chunk row at a time, opened at the frame's place in the tar."""
    import blosc2

    try:
        one_thread = blosc2.DParams(nthreads=1)
        array = blosc2.open(str(path), mode="r", offset=offset, dparams=one_thread)
        if not isinstance(array, blosc2.NDArray):
            raise ValueError(f"the frame holds a {type(array).__name__}")
        if (array.shape, array.dtype) != (shape, dtype):
            raise ValueError(f"the frame holds {array.dtype} {array.shape}")
        row = np.empty((min(array.chunks[0], shape[0]), *shape[1:]), dtype)
        for first in range(0, shape[0], len(row)):
            part = row[: shape[0] - first]
            # What array[first : …] does too, but there with new memory for every part.
            array.get_slice_numpy(part, ((first, 0, 0), (first + len(part), *shape[1:])))
            yield part.reshape(-1)
    except (RuntimeError, OverflowError, SyntaxError, TypeError) as error:
        raise ValueError(f"Blosc2 frame is damaged: {error}") from error
