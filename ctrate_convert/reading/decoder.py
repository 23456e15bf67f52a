"""Decode the members that plain ``webdataset`` cannot, for people who write their own pipeline."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import DamageError, SampleError
from ctrate_convert.formats.npy_header import read_header
from ctrate_convert.reading.gzip_stream import GzipStream

MAX_ARRAY_BYTES = 2**31
"""The default limit. The largest volume of CT-RATE takes 0.8 GiB at two bytes a voxel."""

_PIECE_BYTES = 2**20
_AT_ONCE_BYTES = 2**25
"""The bytes that one chunk of a b2nd frame and the frame's index may take beside the array."""


def decoder(max_bytes: int = MAX_ARRAY_BYTES) -> Callable[[str, bytes], NDArray[Any] | None]:
    """Return a handler for ``webdataset.WebDataset(…).decode(ctrate_convert.decoder())``.

    The handler turns members that end in ``.b2nd`` or ``.npy.gz`` into arrays, 3-D in C order, in
    the stored type (int16, float16, or int32 if the integers do not fit int16). An element times
    the JSON's ``value_scale`` is in the source's unit. The handler leaves every other member to the
    handlers that follow.

    A few bytes can stand for an array of any size, so the handler refuses an array of more than
    ``max_bytes`` before it allocates memory. ``webdataset`` unpacks ``.gz`` itself before it asks
    any handler; ``.decode(decoder(), pre=[])`` leaves that to this handler, which is faster and
    keeps the limit.

    Raises:
        DamageError: on decoding, the bytes are not such an array, or it is too large.
    """
    return functools.partial(decode_member, max_bytes=max_bytes)


def decode_member(name: str, data: bytes, max_bytes: int = MAX_ARRAY_BYTES) -> NDArray[Any] | None:
    """Return the array in a ``.b2nd`` or ``.npy.gz`` member; None for any other member.

    Raises:
        DamageError: the bytes are not such an array, or it takes more than ``max_bytes``.
    """
    if name.endswith(".b2nd"):
        return _b2nd(name, data, max_bytes)
    if name.endswith(".npy.gz"):
        return _npy_gz(name, data, max_bytes)
    return None


def _check_bytes(name: str, what: object, size_bytes: int, max_bytes: int) -> None:
    """Raise DamageError if an array takes more than ``max_bytes``."""
    if size_bytes > max_bytes:
        raise DamageError(
            "an array larger than the decoder may make; decoder(max_bytes=…) allows more",
            where=name,
            seen=f"{size_bytes} bytes for {what}",
            expected=f"≤ {max_bytes} bytes",
        )


def _b2nd(name: str, data: bytes, max_bytes: int) -> NDArray[Any]:
    import blosc2  # imported here: it takes half a second

    try:
        frame = blosc2.ndarray_from_cframe(data)
        # One thread: the data loader's workers read in parallel, and threads do not survive a fork.
        frame.schunk.dparams = blosc2.DParams(nthreads=1)
        _check_size(frame)
        what = f"{frame.dtype.name} {'×'.join(map(str, frame.shape))}"
        _check_bytes(name, what, _decoding_bytes(frame), max_bytes)
        array: NDArray[Any] = frame[...]
    # python-blosc2 parses the frame's metadata: damaged bytes raise any of these.
    except (RuntimeError, ValueError, TypeError, OverflowError, SyntaxError) as error:
        raise DamageError(f"no Blosc2 array: {error}", where=name) from error
    return array


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


def _npy_gz(name: str, data: bytes, max_bytes: int) -> NDArray[Any]:
    try:
        stream = GzipStream(_pieces(data))
        npy = read_header(stream.read)
        _check_bytes(name, npy, npy.data_bytes, max_bytes)
        values = np.empty(math.prod(npy.shape), npy.dtype)
        stream.fill(values.view(np.uint8).data)
        stream.check_end()
        return values.reshape(npy.shape, order="F" if npy.fortran_order else "C")
    except (ValueError, SampleError) as error:
        raise DamageError(f"no gzipped npy array: {error}", where=name) from error


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _PIECE_BYTES):
        yield data[start : start + _PIECE_BYTES]
