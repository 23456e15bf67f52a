"""Write a shard as pure ustar with reproducible bytes; a failed sample can be rolled back."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass

import blake3

from ctrate_convert.errors import SampleError
from ctrate_convert.store.durable import Bytes, PartialFile

MAX_MEMBER_BYTES = 8**11 - 1
"""The largest size that ustar can store, in eleven octal digits: just under 8 GiB."""

_MAX_NAME_BYTES = 100


@dataclass(frozen=True)
class WrittenMember:
    """A member that was written: the place of its payload, and the BLAKE3 of the payload.

    The digest is empty if the member was begun without hashing.
    """

    name: str
    offset: int
    size_bytes: int
    blake3: str


class TarWriter:
    """A writer of tar members to a partial file that hashes them on the way.

    Source of the format: POSIX.1-1988 ustar; ``tarfile`` makes the headers.
    """

    def __init__(self, partial: PartialFile) -> None:
        self._partial = partial
        self.position = 0
        self._open: tarfile.TarInfo | None = None
        self._offset = 0
        self._known_bytes: int | None = None
        self._digest: blake3.blake3 | None = None

    def begin(self, name: str, size_bytes: int | None, *, hashed: bool = True) -> None:
        """Begin a member; if ``size_bytes`` is None, `end` sets the size to what was written.

        Raises:
            SampleError: ustar cannot hold such a name or size.
        """
        if len(name) > _MAX_NAME_BYTES or not name.isascii() or "/" in name:
            raise SampleError("name does not fit a tar member that every reader opens", seen=name)
        info = tarfile.TarInfo(name)
        # Fixed mode and time: the same samples give the same bytes on every run.
        info.size, info.mode, info.mtime = size_bytes or 0, 0o444, 0
        self._write(_header(info))
        self._open, self._offset, self._known_bytes = info, self.position, size_bytes
        self._digest = blake3.blake3() if hashed else None

    def put(self, data: Bytes) -> None:
        """Write the next bytes of the member's payload."""
        view = memoryview(data).cast("B")
        if self._digest is not None:
            self._digest.update(view)
        self._write(view)

    def end(self) -> WrittenMember:
        """Finish the member.

        Raises:
            SampleError: ustar cannot hold its size.
            ValueError: the member did not get as many bytes as `begin` was told.
        """
        info, size_bytes = self._open, self.position - self._offset
        if info is None or self._known_bytes not in (None, size_bytes):
            raise ValueError(f"tar member got {size_bytes} bytes, not {self._known_bytes}")
        if self._known_bytes is None:
            info.size = size_bytes
            # The header stands right before the payload; only now is the size known.
            self._partial.rewrite(self._offset - tarfile.BLOCKSIZE, _header(info))
        self._write(bytes(-self.position % tarfile.BLOCKSIZE))
        self._open = None
        digest = self._digest.hexdigest() if self._digest else ""
        return WrittenMember(info.name, self._offset, size_bytes, digest)

    def add(self, name: str, data: bytes) -> WrittenMember:
        """Write a small member at once."""
        self.begin(name, len(data))
        self.put(data)
        return self.end()

    def rollback(self, position: int) -> None:
        """Remove everything after ``position``, an earlier value of the attribute ``position``."""
        self._partial.truncate(position)
        self.position, self._open = position, None

    def finish(self) -> None:
        """Write the end-of-archive blocks."""
        end = 2 * tarfile.BLOCKSIZE
        self._write(bytes(end + -(self.position + end) % tarfile.RECORDSIZE))

    def _write(self, data: Bytes) -> None:
        self._partial.write(data)
        self.position += len(memoryview(data).cast("B"))


def _header(info: tarfile.TarInfo) -> bytes:
    if info.size > MAX_MEMBER_BYTES:
        raise SampleError(
            "array too large for one tar member",
            seen=f"{info.size} bytes",
            expected=f"≤ {MAX_MEMBER_BYTES}",
        )
    return info.tobuf(tarfile.USTAR_FORMAT)
