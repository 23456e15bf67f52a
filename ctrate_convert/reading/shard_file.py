"""Open a published shard and read members at their recorded places."""

from __future__ import annotations

import os
import tarfile

from ctrate_convert.errors import environment_problem
from ctrate_convert.reading.index import ArrayMember, Member, Shard


class ShardFile:
    """A shard open for reading, with the length that its record says. A context manager.

    Raises:
        DamageError: the file is missing, or not what its record says; on opening and on reading.
        EnvironmentProblem: the file cannot be opened or read.
    """

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        try:
            # Non-blocking, so that a FIFO under a shard's name cannot hang a reader.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            self._descriptor = os.open(shard.path, flags)
        except FileNotFoundError as error:
            raise shard.damage("a published shard is missing") from error
        except OSError as error:
            raise environment_problem(error, "opening a shard") from error
        # A shard of another length was cut short or replaced, and recorded places in it may hold
        # anything.
        size_bytes = os.fstat(self._descriptor).st_size
        if size_bytes != shard.size_bytes:
            os.close(self._descriptor)
            raise shard.damage(
                "a shard has another length than its record says",
                seen=f"{size_bytes} bytes",
                expected=f"{shard.size_bytes} bytes",
            )

    def __enter__(self) -> ShardFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def member(self, member: Member) -> bytes:
        """Return a small member's content."""
        self.check_header(member)
        return self.read(member.offset, member.size_bytes)

    def check_header(self, member: ArrayMember | Member) -> None:
        """Check that the tar header in front of a member names it and its size.

        Raises:
            DamageError: it does not.
        """
        raw = self.read(member.offset - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)
        try:
            info = tarfile.TarInfo.frombuf(raw, "utf-8", "surrogateescape")
            seen = f"{info.name}, {info.size} bytes"
        except tarfile.HeaderError as error:
            seen = f"no tar header ({error})"
        expected = f"{member.name}, {member.size_bytes} bytes"
        if seen != expected:
            raise self.shard.damage(
                f"the shard has another member at byte {member.offset} than its record says",
                seen=seen,
                expected=expected,
            )

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return all ``size_bytes`` bytes from ``offset`` on."""
        data = bytearray(size_bytes)
        self.read_into(memoryview(data), offset)
        return bytes(data)

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view``, a view of bytes, with the file's bytes from ``offset`` on."""
        while view:
            try:
                got = self._read_some(view, offset)
            except OSError as error:
                raise environment_problem(error, "reading a shard", self.shard.path) from error
            if not got:
                raise self.shard.damage(f"a shard was cut short at byte {offset} while it was read")
            view, offset = view[got:], offset + got

    def _read_some(self, view: memoryview, offset: int) -> int:
        """Fill a part of ``view`` and return its length; 0 at the end of the file."""
        return os.preadv(self._descriptor, [view], offset)
