"""Decode the members that plain ``webdataset`` cannot, for people who write their own pipeline."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from ctrate_convert.errors import DamageError, SampleError
from ctrate_convert.formats.codecs import CODECS
from ctrate_convert.store.records.base import MAX_ARRAY_BYTES, Encoding

_HANDLED: dict[Encoding, str] = {"b2nd": "Blosc2 array", "npy.gz": "gzipped npy array"}
"""The encodings that `decoder` handles, and what they are called in errors."""


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

    def require_room(what: object, size_bytes: int) -> None:
        if size_bytes > max_bytes:
            raise DamageError(
                "an array larger than the decoder may make; decoder(max_bytes=…) allows more",
                where=name,
                seen=f"{size_bytes} bytes for {what}",
                expected=f"≤ {max_bytes} bytes",
            )

    for encoding, kind in _HANDLED.items():
        if name.endswith(f".{encoding}"):
            try:
                return CODECS[encoding].decode(data, require_room)
            except (ValueError, SampleError) as error:
                raise DamageError(f"no {kind}: {error}", where=name) from error
    return None
