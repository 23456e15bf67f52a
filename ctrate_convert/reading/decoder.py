"""What plain ``webdataset`` cannot decode, for those who write their own pipeline."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from ctrate_convert.errors import DamageError

_GZIP_CONTAINER = 31  # zlib's window bits for a gzip header and trailer


def decoder() -> Callable[[str, bytes], NDArray[Any] | None]:
    """A handler for ``webdataset.WebDataset(…).decode(ctrate_convert.decoder())``.

    It turns members that end in ``.b2nd`` or ``.npy.gz`` into arrays, 3-D in C order, in the stored
    type (int16, float16, or int32 where integers do not fit): an element times the JSON's
    ``value_scale`` is in the source's unit. Every other member is left to the handlers that follow.
    ``webdataset`` unpacks ``.gz`` itself before it asks any handler; ``.decode(decoder(), pre=[])``
    leaves that to this one, which is faster.

    Raises:
        DamageError: on decoding, the bytes are not such an array.
    """
    return decode_member


def decode_member(name: str, data: bytes) -> NDArray[Any] | None:
    """The array in a ``.b2nd`` or ``.npy.gz`` member; None for any other member.

    Raises:
        DamageError: the bytes are not such an array.
    """
    if name.endswith(".b2nd"):
        return _b2nd(name, data)
    if name.endswith(".npy.gz"):
        return _npy_gz(name, data)
    return None


def _b2nd(name: str, data: bytes) -> NDArray[Any]:
    import blosc2  # takes half a second, which only this encoding should cost

    try:
        frame = blosc2.ndarray_from_cframe(data)
        # One thread: parallel reading is the workers' part, and threads do not survive a fork.
        frame.schunk.dparams = blosc2.DParams(nthreads=1)
        _check_size(frame)
        array: NDArray[Any] = frame[...]
    except (RuntimeError, ValueError, TypeError, OverflowError, SyntaxError) as error:
        raise DamageError(f"no Blosc2 array: {error}", where=name) from error
    return array


def _check_size(frame: Any) -> None:
    """Before memory is asked for: whole chunks of the frame's shape, padded, must be its data."""
    chunk_bytes = math.prod(frame.ext_chunks) * frame.dtype.itemsize
    padded, chunk = math.prod(frame.ext_shape), math.prod(frame.chunks)
    if padded * chunk_bytes != frame.schunk.nbytes * chunk:
        raise ValueError(f"its data is not that of an array of shape {frame.shape}")


def _npy_gz(name: str, data: bytes) -> NDArray[Any]:
    try:
        inflated = isal_zlib.decompress(data, _GZIP_CONTAINER)
        array: NDArray[Any] = np.load(io.BytesIO(inflated), allow_pickle=False)
    except (isal_zlib.error, ValueError, EOFError) as error:  # type: ignore[misc]
        raise DamageError(f"no gzipped npy array: {error}", where=name) from error
    return array
