"""``b2nd``: a Blosc2 NDArray frame, from which a crop is read without decoding the whole volume.

The filters SHUFFLE and BYTEDELTA before zstd level 1 measured best on CT for their speed. Use at
most two filters: with three, Blosc2 4.14.1 overwrites the caller's array. The writer builds the
frame in a scratch file, one row of chunks at a time, and then copies it into the tar. A row has a
bounded size for any shape.

Source of the format: https://github.com/Blosc/c-blosc2/blob/main/README_B2ND_METALAYER.rst
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.codecs.codec import Array, ArrayPlace, Codec, RequireRoom
from ctrate_convert.formats.codecs.npy import keep
from ctrate_convert.formats.codecs.target import ArrayTarget, ArrayWriter
from ctrate_convert.formats.tar import WrittenMember
from ctrate_convert.formats.tiling import (
    Box,
    Shape,
    box_elements,
    box_shape,
    c_order_boxes,
    without_overlap,
)
from ctrate_convert.store.durable import open_scratch_file, scratch_directory, write_all
from ctrate_convert.store.records.plan import ChunkShape

ATTRIBUTES = "ctrate"
"""The frame's metalayer that holds the scale of the stored integers."""

_BLOCK_ROWS, _BLOCK_ACROSS = 16, 32
_BLOCK_ALONG: dict[ChunkShape, int] = {"cube": 100, "slab": 300}
_BLOCK_VOXELS = 2**15
_ROW_BYTES = 2**24
_CHUNK_BYTES = 2**22
_COPY_BYTES = 2**20
_AT_ONCE_BYTES = 2**25
"""The bytes that one chunk of a frame and the frame's index may take beside the array."""

_DAMAGED = (RuntimeError, ValueError, TypeError, OverflowError, SyntaxError)
"""Errors that python-blosc2 raises for damaged bytes, as it parses the frame's metadata."""


def chunks_and_blocks(
    shape: tuple[int, ...], itemsize: int, chunk_shape: ChunkShape
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the chunk and block shapes. A row of chunks from `_chunk_rows` fits into 16 MiB.

    Reading a crop decodes the blocks that it touches. ``cube`` gives blocks that keep crops cheap.
    ``slab`` gives longer blocks, which are smaller and faster to read from front to back.
    """
    _, height, width = shape
    rows, block_rows = _depths(shape, itemsize)
    across = height
    while across > _BLOCK_ACROSS and across * rows * width * itemsize > _CHUNK_BYTES:
        across = -(-across // 2)
    while across > 1 and across * width * itemsize > _ROW_BYTES:
        across = -(-across // 2)
    along = -(-width // max(1, round(width / _BLOCK_ALONG[chunk_shape])))
    columns = _BLOCK_ACROSS
    while 2 * columns <= across and block_rows * columns * along < _BLOCK_VOXELS:
        columns *= 2
    columns = min(across, columns)
    most_along = _CHUNK_BYTES // (rows * across * itemsize)
    if width > most_along:  # longer than any scan, so crops need no short blocks
        along *= max(1, _BLOCK_VOXELS // (block_rows * columns * along))
        width = min(width, _evenly(width, most_along // along * along, along))
    return (rows, across, width), (block_rows, columns, along)


def block_depth(shape: tuple[int, ...], itemsize: int) -> int:
    """Return the depth of a block. Boxes of so many planes, or a multiple, decode no block twice.

    So many planes take at most 16 MiB, or are one plane.
    """
    return _depths(shape, itemsize)[1]


def _depths(shape: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """Return the depth of a chunk and of a block."""
    depth, height, width = shape
    plane_bytes = height * width * itemsize
    block_rows = min(_BLOCK_ROWS, depth)
    while block_rows > 1 and block_rows * plane_bytes > _ROW_BYTES:
        block_rows //= 2
    # Each chunk costs overhead, so chunks are as large as 4 MiB allow, and of even depth.
    most_rows = block_rows * max(1, _CHUNK_BYTES // (block_rows * plane_bytes))
    return min(depth, _evenly(depth, most_rows, block_rows)), block_rows


def _evenly(length: int, most: int, unit: int) -> int:
    """Return the size, in units, of as few equal parts as possible; the rest is padding."""
    parts = -(-length // most)
    return -(-length // (parts * unit)) * unit


def _chunk_rows(shape: tuple[int, ...], chunk: tuple[int, ...], itemsize: int) -> Iterator[Box]:
    """Yield boxes in C order, each at most 16 MiB and one chunk high if the planes allow it.

    Otherwise boxes are one chunk wide, or else one chunk long. No chunk of `chunks_and_blocks` is
    in two boxes.
    """
    depth, height, width = shape
    rows, across, along = chunk
    most = _ROW_BYTES // itemsize
    sizes = (rows * height * width, across * width, min(along, most))
    return c_order_boxes((depth, height, width), next(size for size in sizes if size <= most))


class _Writer(ArrayWriter):
    def __init__(self, target: ArrayTarget) -> None:
        # Blosc2 compresses the index of a frame file again after every chunk, on four new threads
        # whatever CParams say. These threads would wait for cores that other workers use.
        os.environ["BLOSC_NTHREADS"] = "1"
        self._target = target
        itemsize = target.dtype.itemsize
        chunk, self._block = chunks_and_blocks(target.shape, itemsize, target.chunk_shape)
        self._chunk = chunk
        self._boxes = _chunk_rows(target.shape, chunk, itemsize)
        self._box = next(self._boxes, None)
        largest = box_elements(self._box) if self._box else 0
        self._values = np.empty(largest, target.dtype)
        self._filled = 0
        with contextlib.ExitStack() as scratch:
            folder = scratch.enter_context(scratch_directory(target.scratch / target.name))
            self._path = folder / "frame"
            with self._telling_why_not():
                self._array = self._empty(urlpath=str(self._path), contiguous=True, mode="w")
            self._scratch = scratch.pop_all()  # nothing failed: keep the folder until `close`

    def _empty(self, **storage: Any) -> Any:
        import blosc2  # imported late: it takes half a second, and only this encoding needs it

        return blosc2.empty(
            self._target.shape,
            dtype=self._target.dtype,
            chunks=self._chunk,
            blocks=self._block,
            cparams=blosc2.CParams(
                codec=blosc2.Codec.ZSTD,
                clevel=1,
                nthreads=1,
                filters=[blosc2.Filter.SHUFFLE, blosc2.Filter.BYTEDELTA],
                filters_meta=[0, 0],
                # Each byte of an element in a stream of its own: smaller, by benchmarks/RESULTS.md.
                splitmode=blosc2.SplitMode.ALWAYS_SPLIT,
            ),
            dparams=blosc2.DParams(nthreads=1),
            meta={ATTRIBUTES: dict(self._target.attributes)},
            **storage,
        )

    def put(self, block: NDArray[Any]) -> None:
        while len(block) and self._box:
            wanted = box_elements(self._box)
            taken = block[: wanted - self._filled]
            self._values[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            block = block[len(taken) :]
            if self._filled == wanted:
                self._flush(self._box)

    def _flush(self, box: Box) -> None:
        with self._telling_why_not():
            self._store(self._array, box)
        self._filled = 0
        self._box = next(self._boxes, None)

    def _store(self, array: Any, box: Box) -> None:
        # As array[box] = values, without the extra work that __setitem__ does.
        array.set_slice(_corners(box), self._values[: self._filled].reshape(box_shape(box)))

    @contextlib.contextmanager
    def _telling_why_not(self) -> Iterator[None]:
        """Replace Blosc2's error, which gives no reason, by an error that names the cause.

        Raises:
            OSError: the storage refuses a write, or Blosc2 fails only when it writes there.
            SampleError: Blosc2 fails in memory too, so no storage would help this volume.
        """
        try:
            yield
        except (RuntimeError, ValueError, OverflowError) as error:
            self._write_plainly()
            self._try_in_memory()
            raise OSError(errno.EIO, "Blosc2 cannot write its frame", str(self._path)) from error

    def _write_plainly(self) -> None:
        probe = open_scratch_file(self._path.parent)
        try:
            write_all(probe, self._values.data.cast("B"))
            os.fsync(probe)
        finally:
            os.close(probe)

    def _try_in_memory(self) -> None:
        try:
            array = self._empty()
            if self._filled and self._box:
                self._store(array, self._box)
        except (RuntimeError, ValueError, OverflowError) as error:
            target = self._target
            raise SampleError(
                "b2nd cannot hold this volume; another --encoding may",
                seen=f"{target.dtype.name} {'×'.join(map(str, target.shape))} ({error})",
            ) from error

    def finish(self) -> WrittenMember:
        tar = self._target.tar
        del self._array  # closes the frame
        with self._telling_why_not():
            self._require_whole()
        tar.begin(self._target.name, self._path.stat().st_size)
        with self._path.open("rb", buffering=0) as stream:
            while data := stream.read(_COPY_BYTES):
                tar.put(data)
        return tar.end()

    def _require_whole(self) -> None:
        """Raise unless the frame opens and has every chunk, as a failed write may go unreported.

        Raises:
            RuntimeError: the frame cannot be read, or a chunk is missing.
            ValueError: the frame has another shape.
        """
        import blosc2

        array = blosc2.open(str(self._path), mode="r", dparams=blosc2.DParams(nthreads=1))
        if not isinstance(array, blosc2.NDArray) or array.shape != self._target.shape:
            raise ValueError("the frame is not the one that was written")
        for number in range(array.schunk.nchunks):
            # This reads little of a chunk and finds one that is missing. Wrong bytes are found when
            # the shard is read back.
            array.schunk.get_lazychunk(number)

    def close(self) -> None:
        self._scratch.close()


class B2nd(Codec):
    """A Blosc2 NDArray frame, whose blocks are decoded one by one."""

    def writer(self, target: ArrayTarget) -> ArrayWriter:
        """Return a writer that uses Blosc2."""
        return _Writer(target)

    def read_blocks(
        self, path: Path, offset: int, size_bytes: int, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> Iterator[Array]:
        """Yield the elements, one row of chunks at a time, from the frame inside the tar."""
        import blosc2

        try:
            one_thread = blosc2.DParams(nthreads=1)
            array = blosc2.open(str(path), mode="r", offset=offset, dparams=one_thread)
            if not isinstance(array, blosc2.NDArray):
                raise ValueError(f"the frame holds a {type(array).__name__}")
            if (array.shape, array.dtype) != (shape, dtype):
                raise ValueError(f"the frame holds {array.dtype} {array.shape}")
            values = np.empty(0, dtype)
            for box in _chunk_rows(shape, array.chunks, dtype.itemsize):
                if not len(values):  # no later box is larger than the first
                    values = np.empty(box_elements(box), dtype)
                part = values[: box_elements(box)]
                # As array[box], without allocating new memory for every part.
                array.get_slice_numpy(part, _corners(box))
                yield part
        except (RuntimeError, OverflowError, SyntaxError, TypeError) as error:
            raise ValueError(f"Blosc2 frame is damaged: {error}") from error

    def read_box(self, stored: ArrayPlace, box: Box, into: Array | None = None) -> Array:
        """Open the frame at its place in the file, and decode the blocks that the box touches."""
        frame = _open(stored)
        found = np.empty(box_shape(box), stored.dtype) if into is None else into
        with _damage_as_value_error():
            frame.get_slice_numpy(found, _corners(box))
        return found

    def read_crops(self, stored: ArrayPlace, boxes: Sequence[Box], into: Sequence[Array]) -> None:
        """Decode each block that a box touches once, in as few calls as there are parts of them."""
        frame = _open(stored)
        whole_blocks = [_in_whole_blocks(box, frame) for box in boxes]
        for part in without_overlap(whole_blocks):
            values = np.empty(box_shape(part), stored.dtype)
            with _damage_as_value_error():
                frame.get_slice_numpy(values, _corners(part))
            for box, found in zip(boxes, into, strict=True):
                keep(found, box, part, values)

    def decode(self, data: bytes, require_room: RequireRoom) -> Array:
        """Return the array of a frame."""
        import blosc2

        try:
            frame = blosc2.ndarray_from_cframe(data)
            # More threads would wait for cores that other workers use.
            frame.schunk.dparams = blosc2.DParams(nthreads=1)
            _check_size(frame)
            what = f"{frame.dtype.name} {'×'.join(map(str, frame.shape))}"
            require_room(what, _decoding_bytes(frame))
            found: Array = frame[...]
        except _DAMAGED as error:
            raise ValueError(str(error)) from error
        return found

    def voxels_in_a_row_of_chunks(
        self, shape: Shape, itemsize: int, chunk_shape: ChunkShape
    ) -> int | None:
        """Return the voxels in a row of chunks: boxes of that size decode each block once."""
        chunk, _ = chunks_and_blocks(shape, itemsize, chunk_shape)
        return chunk[0] * shape[1] * shape[2]


def _open(stored: ArrayPlace) -> Any:
    """Return the frame, opened at its place in the file."""
    import blosc2

    # One thread: a data loader's workers read in parallel, and threads do not survive a fork.
    one_thread = blosc2.DParams(nthreads=1)
    with _damage_as_value_error():
        frame = blosc2.open(stored.path, mode="r", offset=stored.offset, dparams=one_thread)
    if not isinstance(frame, blosc2.NDArray):
        raise ValueError(f"the frame holds a {type(frame).__name__}")
    if (frame.shape, frame.dtype) != (stored.shape, stored.dtype):
        raise ValueError(f"the frame holds {frame.dtype} {frame.shape}")
    return frame


def _in_whole_blocks(box: Box, frame: Any) -> Box:
    """Return the smallest box of whole blocks that holds ``box``; each chunk begins a new block."""
    z, y, x = (
        slice(
            _block_start(part.start, chunk, block),
            min(
                _block_start(part.stop - 1, chunk, block) + block,
                (part.stop - 1) // chunk * chunk + chunk,
                size,
            ),
        )
        for part, size, chunk, block in zip(
            box, frame.shape, frame.chunks, frame.blocks, strict=True
        )
    )
    return z, y, x


def _block_start(place: int, chunk: int, block: int) -> int:
    return place - place % chunk % block


@contextlib.contextmanager
def _damage_as_value_error() -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise ValueError(f"Blosc2 frame is damaged: {error}") from error


def _check_size(frame: Any) -> None:
    """Raise ValueError unless the data are the whole chunks of the frame's padded shape.

    Call it before memory is allocated.
    """
    chunk_bytes = math.prod(frame.ext_chunks) * frame.dtype.itemsize
    padded, chunk = math.prod(frame.ext_shape), math.prod(frame.chunks)
    if padded * chunk_bytes != frame.schunk.nbytes * chunk:
        raise ValueError(f"its data is not that of an array of shape {frame.shape}")


def _decoding_bytes(frame: Any) -> int:
    """Return the array's bytes, and how far a chunk and the index exceed `_AT_ONCE_BYTES`."""
    itemsize = frame.dtype.itemsize
    # Eight bytes for the offset of each chunk.
    index_bytes = 8 * (math.prod(frame.ext_shape) // math.prod(frame.chunks))
    beside = math.prod(frame.ext_chunks) * itemsize + index_bytes
    return int(math.prod(frame.shape) * itemsize + max(0, beside - _AT_ONCE_BYTES))


def _corners(box: Box) -> tuple[list[int], list[int]]:
    """Return the first index of a box and the index after its last, in the form Blosc2 takes."""
    return [part.start for part in box], [part.stop for part in box]
