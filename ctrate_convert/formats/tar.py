"""The shard being written: pure ustar, the same bytes each time, rolled back sample by sample."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass

import blake3

from ctrate_convert.durable import Bytes, PartialFile
from ctrate_convert.errors import SampleError

MAX_MEMBER_BYTES = 8**11 - 1
"""ustar writes a member's size in eleven octal digits: just under 8 GiB."""

_MAX_NAME_BYTES = 100


@dataclass(frozen=True)
class WrittenMember:
    """A member as it was written: where its payload lies, and the BLAKE3 of what was hashed."""

    name: str
    offset: int
    size_bytes: int
    blake3: str


class TarWriter:
    """Writes members of known size to a partial file, hashing as they pass.

    Source of the format: POSIX.1-1988 ustar; headers are made by ``tarfile``.
    """

    def __init__(self, partial: PartialFile) -> None:
        self._partial = partial
        self.position = 0
        self._open: tarfile.TarInfo | None = None
        self._offset = 0
        self._left_bytes = 0
        self._digest = blake3.blake3()

    def begin(self, name: str, size_bytes: int) -> None:
        """Start a member of exactly ``size_bytes``.

        Raises:
            SampleError: ustar cannot hold such a name or size.
        """
        if len(name) > _MAX_NAME_BYTES or not name.isascii() or "/" in name:
            raise SampleError("name does not fit a tar member that every reader opens", seen=name)
        if size_bytes > MAX_MEMBER_BYTES:
            raise SampleError(
                "array too large for one tar member",
                seen=f"{size_bytes} bytes",
                expected=f"≤ {MAX_MEMBER_BYTES}",
            )
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size_bytes, 0o444, 0
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        self._open, self._offset, self._left_bytes = info, self.position, size_bytes
        self._digest = blake3.blake3()

    def prefix(self, data: bytes) -> None:
        """Write payload that the member's digest leaves out."""
        self._left_bytes -= len(data)
        self._write(data)

    def put(self, data: Bytes) -> None:
        """Write payload."""
        view = memoryview(data).cast("B")
        self._left_bytes -= len(view)
        self._digest.update(view)
        self._write(view)

    def end(self) -> WrittenMember:
        """Finish the member.

        Raises:
            ValueError: it did not get the size it was begun with.
        """
        if self._open is None or self._left_bytes:
            raise ValueError(f"tar member ends with {self._left_bytes} bytes missing")
        self._write(bytes(-self.position % tarfile.BLOCKSIZE))
        member = WrittenMember(
            self._open.name, self._offset, self._open.size, self._digest.hexdigest()
        )
        self._open = None
        return member

    def add(self, name: str, data: bytes) -> WrittenMember:
        """Write a whole small member."""
        self.begin(name, len(data))
        self.put(data)
        return self.end()

    def rollback(self, position: int) -> None:
        """Forget everything after ``position``, a former value of `position`."""
        self._partial.truncate(position)
        self.position, self._open = position, None

    def finish(self) -> None:
        """Write the end-of-archive blocks."""
        end = 2 * tarfile.BLOCKSIZE
        self._write(bytes(end + -(self.position + end) % tarfile.RECORDSIZE))

    def _write(self, data: Bytes) -> None:
        self._partial.write(data)
        self.position += len(memoryview(data).cast("B"))
