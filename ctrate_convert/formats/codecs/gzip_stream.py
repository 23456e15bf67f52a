"""Write gzip data, and inflate them no further than they are read: no size is a surprise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from isal import igzip_lib, isal_zlib

_LEVEL = 1
_GZIP_CONTAINER = 31  # zlib's wbits: 16 for a gzip header and trailer, plus 15
_PIECE_BYTES = 2**20


def new_deflater() -> Any:
    """Return a compressor that writes one gzip member (igzip, level 1, no time stamp)."""
    return isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_CONTAINER)


class GzipStream:
    """The content of a gzip file whose bytes come in ``pieces``.

    Raises:
        ValueError: on reading, the bytes are damaged, or the content is shorter than what is asked.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

    def read(self, size_bytes: int) -> bytes:
        """Return the next ``size_bytes``, or fewer if the content ends."""
        found = bytearray()
        while len(found) < size_bytes and (piece := self._next(size_bytes - len(found))):
            found += piece
        return bytes(found)

    def fill(self, view: memoryview) -> None:
        """Fill ``view`` with the next bytes."""
        while view:
            piece = self._next_of(len(view))
            view[: len(piece)] = piece
            view = view[len(piece) :]

    def skip(self, size_bytes: int) -> None:
        """Skip the next ``size_bytes`` bytes."""
        while size_bytes:
            size_bytes -= len(self._next_of(size_bytes))

    def check_end(self) -> None:
        """Raise unless nothing is left and the trailer has been read, which checks the CRC-32.

        Raises:
            ValueError: there is more, or the trailer is missing.
        """
        if self._next(1):
            raise ValueError("gzip data holds more bytes than it should")
        if not self._inflater.eof:
            raise ValueError("gzip data is cut short")

    def _next_of(self, size_bytes: int) -> bytes:
        piece = self._next(min(size_bytes, _PIECE_BYTES))
        if not piece:
            raise ValueError(f"gzip data ends {size_bytes} bytes early")
        return piece

    def _next(self, most_bytes: int) -> bytes:
        """Return up to ``most_bytes``; an empty string at the end of the content."""
        inflater = self._inflater
        while not inflater.eof:
            # The limit on the output may leave input inside the inflater: give it more only when it
            # asks.
            given = next(self._pieces, b"") if inflater.needs_input else b""
            if inflater.needs_input and not given:
                break
            try:
                piece: bytes = inflater.decompress(given, most_bytes)
            except isal_zlib.error as error:  # type: ignore[misc]
                raise ValueError(f"gzip data is damaged: {error}") from error
            if piece:
                return piece
        return b""
