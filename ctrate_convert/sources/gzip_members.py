"""Inflate a gzip file once from front to back: all its members, each checked at its end.

Source of the format: https://www.rfc-editor.org/rfc/rfc1952
"""

from __future__ import annotations

import os
import struct

from isal import igzip_lib, isal_zlib

from ctrate_convert.errors import SampleError
from ctrate_convert.sources.left_out import BYTES_AFTER, LeftOut

MAX_RATIO = 1032
"""The most bytes that one byte of deflated data can become."""

GZIP_FIELDS = "gzip-fields"

_MAGIC = b"\x1f\x8b\x08"
# The time, the deflater's own flags and the system are passed over: they are no content.
_HEADER = struct.Struct("<3sB4x2x")
_TRAILER = struct.Struct("<2L")
_HEADER_CRC_FLAG, _EXTRA_FLAG, _NAME_FLAG, _COMMENT_FLAG = 2, 4, 8, 16
_RESERVED_FLAGS = 0xE0
_MAX_TEXT_BYTES = 2**16
_FIRST_BLOCK_BYTES = 2**14
"""The first read of a file. A plan reads no more of it, for that holds the volume's header."""
_BLOCK_BYTES = 2**18

_BGZF_FIELD = b"BC\x02\x00"
"""The extra field of blocked gzip: the block's size, which follows from the data."""


class GzipMembers:
    """The inflated bytes of an open gzip file, as one stream.

    Zeros after the last member are padding. ``left_out`` names what is neither data nor framing:
    comments and unknown extra fields of members, and other bytes after the last one. It is complete
    once the stream has ended.
    """

    def __init__(self, descriptor: int, where: object) -> None:
        self._descriptor = descriptor
        self._where = where
        self._position = 0
        self._pending = b""
        self._inflater: igzip_lib.IgzipDecompressor | None = None
        self._crc32 = self._member_bytes = 0
        self._members = 0
        self._ended = False
        self._field_bytes = self._bytes_after = 0

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The parts of the file that the stream does not give, as far as it was read."""
        found = (
            (GZIP_FIELDS, self._field_bytes, "of gzip comments and extra fields"),
            (BYTES_AFTER, self._bytes_after, "after the end of the gzip data"),
        )
        return tuple(LeftOut(name, f"{size:,} bytes {what}") for name, size, what in found if size)

    def read_into(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with the next bytes and return their number; fewer only at the end.

        Raises:
            SampleError: the file is no gzip file, is damaged, or ends within a member.
            OSError: the file cannot be read.
        """
        filled = 0
        while filled < len(buffer) and not self._ended:
            if self._inflater is None and not self._begin_member():
                break
            filled += self._inflate_into(buffer[filled:])
        return filled

    def _inflate_into(self, buffer: memoryview) -> int:
        inflater = self._inflater
        if inflater is None:
            return 0
        if inflater.needs_input and not self._pending and not self._read_more():
            raise self._broken("gzip data ends early")
        block, self._pending = self._pending, b""
        try:
            piece = inflater.decompress(block, len(buffer))
        except isal_zlib.error as error:  # type: ignore[misc]
            raise self._broken(f"gzip data is damaged: {error}") from error
        buffer[: len(piece)] = piece
        self._crc32 = isal_zlib.crc32(piece, self._crc32)
        self._member_bytes += len(piece)
        if inflater.eof:
            self._pending = inflater.unused_data
            self._end_member()
        return len(piece)

    def _begin_member(self) -> bool:
        """Read a member's header; return False at the end of the file."""
        if self._members and not self._skip_padding():
            self._ended = True
            return False
        if self._members and not self._peek(len(_MAGIC)).startswith(_MAGIC[:2]):
            self._count_bytes_after()
            return False
        magic, flags = _HEADER.unpack(self._take(_HEADER.size, "header"))
        if magic != _MAGIC or flags & _RESERVED_FLAGS:
            raise self._broken("not a gzip file", seen=magic.hex(" "), expected=_MAGIC.hex(" "))
        if flags & _EXTRA_FLAG:
            field = self._take(int.from_bytes(self._take(2, "header"), "little"), "header")
            if not (field.startswith(_BGZF_FIELD) and len(field) == len(_BGZF_FIELD) + 2):
                self._field_bytes += len(field)
        if flags & _NAME_FLAG:  # the file's own name, which the record holds
            self._take_text()
        if flags & _COMMENT_FLAG:
            self._field_bytes += self._take_text()
        if flags & _HEADER_CRC_FLAG:
            self._take(2, "header")
        # Not DECOMP_GZIP, which would pass over the header's fields that `left_out` must name.
        self._inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
        self._crc32 = self._member_bytes = 0
        self._members += 1
        return True

    def _end_member(self) -> None:
        self._inflater = None
        crc32, size_bytes = _TRAILER.unpack(self._take(_TRAILER.size, "trailer"))
        if crc32 != self._crc32:
            raise self._broken("gzip CRC-32 wrong", f"{self._crc32:08x}", f"{crc32:08x}")
        # The format keeps the length modulo 2**32.
        if size_bytes != self._member_bytes % 2**32:
            raise self._broken("gzip length wrong", self._member_bytes % 2**32, size_bytes)

    def _skip_padding(self) -> bool:
        """Skip zeros; return False if nothing follows them."""
        while self._pending or self._read_more():
            self._pending = self._pending.lstrip(b"\0")
            if self._pending:
                return True
        return False

    def _count_bytes_after(self) -> None:
        self._bytes_after = os.fstat(self._descriptor).st_size - self._position
        self._bytes_after += len(self._pending)
        self._ended = True

    def _take_text(self) -> int:
        """Skip a text that ends with a zero, and return its length."""
        text, end, _ = self._peek(_MAX_TEXT_BYTES + 1).partition(b"\0")
        if not end and len(text) > _MAX_TEXT_BYTES:
            raise self._broken("gzip header too long", expected=f"≤ {_MAX_TEXT_BYTES} bytes")
        self._take(len(text) + 1, "header")
        return len(text)

    def _take(self, size_bytes: int, what: str) -> bytes:
        taken = self._peek(size_bytes)
        if len(taken) < size_bytes:
            raise self._broken(f"gzip {what} cut short")
        self._pending = self._pending[size_bytes:]
        return taken

    def _peek(self, size_bytes: int) -> bytes:
        while len(self._pending) < size_bytes and self._read_more():
            pass
        return self._pending[:size_bytes]

    def _read_more(self) -> bool:
        size_bytes = _BLOCK_BYTES if self._position else _FIRST_BLOCK_BYTES
        block = os.pread(self._descriptor, size_bytes, self._position)
        self._position += len(block)
        self._pending += block
        return bool(block)

    def _broken(self, what: str, seen: object = None, expected: object = None) -> SampleError:
        return SampleError(what, where=self._where, seen=seen, expected=expected)
