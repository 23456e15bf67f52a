"""Read an untrusted ``.npy`` header, and write one of version 1.0."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.literals import literal

MAX_HEADER_BYTES = 10_000
"""The limit of ``numpy.lib.format``: a longer header may exhaust ``literal_eval``."""

_COMMON_BYTES = 256
"""The length of headers as numpy writes them; a longer one is not worth remembering."""

_NUMERIC_KINDS = "biuf"
_WRONG_TYPE = (
    TypeError, ValueError, SyntaxError, LookupError, AttributeError, ArithmeticError,
    RecursionError, MemoryError,
)  # fmt: skip
"""The exceptions that numpy raises for an invalid type description."""


@dataclass(frozen=True)
class NpyHeader:
    """The fields of an ``.npy`` header. ``size_bytes`` is the header's own length, magic included.

    ``says_more`` is True if the header holds more than its three fields and blanks, such as a
    comment.
    """

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    fortran_order: bool
    size_bytes: int
    says_more: bool = False

    @property
    def data_bytes(self) -> int:
        """The number of bytes of elements that must follow the header; exact for any size."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_volume(self) -> bool:
        """True if the array is numeric, has three dimensions and is not empty."""
        return (
            self.dtype.kind in _NUMERIC_KINDS
            and self.dtype.itemsize <= 8
            and len(self.shape) == 3
            and 0 not in self.shape
        )

    @property
    def may_be_volume(self) -> bool:
        """True if a person could take the array for the volume: numbers, 3-D or more."""
        kind = self.dtype.kind
        return kind in _NUMERIC_KINDS + "c" and len(self.shape) >= 3 and 0 not in self.shape

    def __str__(self) -> str:
        if self.dtype.hasobject:
            return "holds pickled Python objects, which are never loaded"
        if self.dtype.kind == "V":
            return "array of records, not of numbers"
        size = "×".join(map(str, self.shape)) or "scalar"
        return f"{self.dtype.name} {size}"


def read_header(read: Callable[[int], bytes]) -> NpyHeader:
    """Return the header of version 1, 2 or 3 that ``read(size_bytes)`` gives.

    Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

    Raises:
        SampleError: not an ``.npy`` header.
    """
    magic = read(8)
    if len(magic) < 8 or magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
        raise SampleError("not an npy array", seen=magic.hex(" "), expected="93 4e 55 4d 50 59 …")
    length_size = 2 if magic[6] == 1 else 4
    length = int.from_bytes(read(length_size), "little")
    if length > MAX_HEADER_BYTES:
        raise SampleError("npy header too long", seen=length, expected=f"≤ {MAX_HEADER_BYTES}")
    raw = read(length)
    if len(raw) < length:
        raise SampleError("npy header cut short", seen=len(raw), expected=f"{length} bytes")
    # Version 3 differs from version 2 in this encoding alone.
    text = raw.decode("utf-8" if magic[6] == 3 else "latin-1", "replace")
    size_bytes = 8 + length_size + length
    return _known(text, size_bytes) if length <= _COMMON_BYTES else _header(text, size_bytes)


def _header(text: str, size_bytes: int) -> NpyHeader:
    fields = _fields(text)
    return NpyHeader(
        _dtype(fields["descr"]),
        fields["shape"],
        fields["fortran_order"],
        size_bytes=size_bytes,
        says_more=_without_blanks(text) != _without_blanks(repr(fields)),
    )


# Most volumes of a set have one of a few headers, and a syntax tree takes longer than all else.
_known = lru_cache(maxsize=1024)(_header)


def small_array(data: bytes) -> np.ndarray[Any, Any]:
    """Return the array of a whole ``.npy`` file in memory, as ``numpy.load`` does.

    numpy's own readers evaluate the header in the calling thread, see `literal`.

    Raises:
        SampleError: not an ``.npy`` file of numbers, or of another size than its header says.
    """
    header = read_header(io.BytesIO(data).read)
    content = data[header.size_bytes :]
    # numpy allocates what a header asks for before it looks at what follows.
    if header.dtype.hasobject or header.data_bytes != len(content):
        raise SampleError("an array of another size than its header says", seen=str(header))
    order: Any = "F" if header.fortran_order else "C"
    # A copy, since a view of bytes cannot be written to.
    return np.frombuffer(content, header.dtype).reshape(header.shape, order=order).copy(order)


def _without_blanks(text: str) -> str:
    """Return the text of the fields without differences in quotes, blanks and the last comma."""
    return "".join(text.split()).replace('"', "'").replace(",}", "}")


def _fields(text: str) -> dict[str, Any]:
    try:
        fields = literal(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise SampleError("npy header is not a literal", seen=repr(text[:80])) from error
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise SampleError("npy header has other fields", seen=repr(text[:80]))
    # Errors show the text, since Python refuses to print an integer of thousands of digits.
    shape, fortran_order = fields["shape"], fields["fortran_order"]
    if not isinstance(fortran_order, bool):
        raise SampleError("npy header: fortran_order is no truth value", seen=repr(text[:80]))
    # Not isinstance, which takes True for an int.
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise SampleError("npy header: shape is no tuple of sizes", seen=repr(text[:80]))
    return fields


def _dtype(descr: Any) -> np.dtype[np.generic]:
    try:
        dtype = np.dtype(descr) if isinstance(descr, str) else np.lib.format.descr_to_dtype(descr)
    except _WRONG_TYPE as error:
        raise SampleError("npy header: unknown type", seen=repr(type(descr).__name__)) from error
    if dtype.itemsize < 0:  # numpy before 2.0 takes "S-1" for a type
        raise SampleError("npy header: unknown type", seen=repr(descr))
    return dtype


@lru_cache(maxsize=1024)
def header_bytes(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """Return the version 1.0 header of a little-endian C-order array."""
    return header_of(dtype.newbyteorder("<"), shape, fortran_order=False)


def header_of(dtype: np.dtype[np.generic], shape: tuple[int, ...], *, fortran_order: bool) -> bytes:
    """Return the version 1.0 header of an array; its length is a multiple of 64."""
    stream = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    fields = {"descr": descr, "fortran_order": fortran_order, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()
