"""Read one zip member once from front to back: inflate it with igzip and check it."""

from __future__ import annotations

import os

from isal import igzip_lib, isal_zlib

from ctrate_convert.errors import SampleError
from ctrate_convert.sources.source import AHEAD_BYTES, fetch
from ctrate_convert.sources.zip_structure import DEFLATED, Entry

_COMPRESSED_BLOCK_BYTES = 2**18


class Member:
    """A member of an open zip file.

    Raises:
        SampleError: on construction, the entry cannot be read; on reading, its data are damaged.
    """

    def __init__(self, descriptor: int, entry: Entry, where: object) -> None:
        self.entry = entry
        self.where = where
        if entry.trouble:
            raise self._broken(entry.trouble)
        self.crc32 = 0
        self.produced_bytes = 0
        self._descriptor = descriptor
        self._position = self._asked_for = entry.data_offset
        self._end = entry.data_offset + entry.packed_bytes
        self._inflater = (
            igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
            if entry.method == DEFLATED
            else None
        )

    def _broken(self, what: str, seen: object = None, expected: object = None) -> SampleError:
        where = f"{self.where}: {self.entry.name}"
        return SampleError(what, where=where, seen=seen, expected=expected)

    @property
    def left_bytes(self) -> int:
        """The number of bytes still to come, according to the zip directory."""
        return self.entry.size_bytes - self.produced_bytes

    def read_into(self, buffer: memoryview) -> int:
        """Fill ``buffer`` as far as the member goes; return the number of bytes filled."""
        filled = (
            self._copy_into(buffer)
            if self._inflater is None
            else self._inflate_into(buffer, self._inflater)
        )
        self.crc32 = isal_zlib.crc32(buffer[:filled], self.crc32)
        self.produced_bytes += filled
        return filled

    def fetch_ahead(self) -> None:
        """Ask the kernel to fetch the next bytes in the background."""
        while self._asked_for < min(self._end, self._position + AHEAD_BYTES):
            self._asked_for = fetch(self._descriptor, self._asked_for)

    def read(self, size_bytes: int) -> bytes:
        """Return up to ``size_bytes`` further bytes."""
        buffer = bytearray(size_bytes)
        return bytes(buffer[: self.read_into(memoryview(buffer))])

    def _copy_into(self, buffer: memoryview) -> int:
        filled = 0
        wanted = min(len(buffer), self._end - self._position)
        while filled < wanted:
            got = os.preadv(self._descriptor, [buffer[filled:wanted]], self._position)
            if got == 0:
                raise self._broken("zip file cut short while it was read")
            filled += got
            self._position += got
        return filled

    def _inflate_into(self, buffer: memoryview, inflater: igzip_lib.IgzipDecompressor) -> int:
        filled = 0
        while filled < len(buffer) and not inflater.eof:
            block = b""
            if inflater.needs_input:
                wanted = min(_COMPRESSED_BLOCK_BYTES, self._end - self._position)
                block = os.pread(self._descriptor, wanted, self._position)
                if not block:
                    raise self._broken("deflated data ends early")
                self._position += len(block)
            try:
                piece = inflater.decompress(block, len(buffer) - filled)
            except isal_zlib.error as error:  # type: ignore[misc]
                raise self._broken(f"deflated data is damaged: {error}") from error
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def check_end(self) -> None:
        """Raise unless the member ends here with the directory's length and CRC-32.

        Raises:
            SampleError: data are left, or length or CRC-32 differ.
        """
        # Inflating one more byte also makes igzip read the end of the deflate stream.
        if self.read_into(memoryview(bytearray(1))):
            raise self._broken("zip member is longer than its array")
        if self.produced_bytes != self.entry.size_bytes:
            raise self._broken("zip member length", self.produced_bytes, self.entry.size_bytes)
        if self.crc32 != self.entry.crc32:
            raise self._broken("CRC-32 wrong", f"{self.crc32:08x}", f"{self.entry.crc32:08x}")
        unused = len(self._inflater.unused_data) if self._inflater else 0
        if unused := unused + self._end - self._position:
            raise self._broken("there are bytes after the end of the data", unused, 0)
