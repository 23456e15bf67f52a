"""Read the end of a zip file: one or two records that locate the directory, and a comment."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from ctrate_convert.errors import SampleError

IN_ZIP64 = 2**32 - 1
"""The value of a size or offset whose number is in the zip64 record or field."""

_MAX_COMMENT_BYTES = 2**16 - 1

_END = struct.Struct("<4s4H2LH")
_LOCATOR64 = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")


@dataclass(frozen=True)
class End:
    """The end of a zip file: the place of the directory, and the comment.

    ``prefix_bytes`` is the number of bytes before the zip, which its offsets do not count.
    """

    entries: int
    directory_offset: int
    directory_bytes: int
    prefix_bytes: int
    end_offset: int
    comment: bytes


def read_at(descriptor: int, offset: int, size_bytes: int) -> bytes:
    """Return ``size_bytes`` from ``offset`` on, or fewer if the file ends before."""
    pieces: list[bytes] = []
    while size_bytes > 0:
        piece = os.pread(descriptor, size_bytes, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        size_bytes -= len(piece)
    return b"".join(pieces)


def read_end(descriptor: int, where: object) -> End:
    """Return the place of the directory, from the end records.

    Raises:
        SampleError: there is no end record, or the records contradict each other.
    """
    file_bytes = os.fstat(descriptor).st_size
    place, tail = _find_end(descriptor, file_bytes, where)
    _, *numbers, comment_bytes = _END.unpack_from(tail)
    comment = tail[_END.size : _END.size + comment_bytes]
    if len(comment) < comment_bytes:
        raise unreadable("its comment is cut short", where)
    directory_end = place
    locator = read_at(descriptor, max(0, place - _LOCATOR64.size), _LOCATOR64.size)
    zip64_offset = None
    if place >= _LOCATOR64.size and locator[:4] == b"PK\x06\x07":
        directory_end = place - _LOCATOR64.size - _END64.size
        zip64_offset = _LOCATOR64.unpack(locator)[2]
        numbers = _read_end64(descriptor, directory_end, numbers, where)
    disk, first_disk, here, entries, size_bytes, offset = numbers
    if disk or first_disk or here != entries:
        raise unreadable("it is a part of several", where)
    start = directory_end - size_bytes
    if start < 0 or start < offset or zip64_offset not in (None, directory_end - start + offset):
        raise unreadable("its directory is not where it should be; its beginning is lost", where)
    end_offset = place + _END.size + comment_bytes
    return End(entries, start, size_bytes, start - offset, end_offset, comment)


def _find_end(descriptor: int, file_bytes: int, where: object) -> tuple[int, bytes]:
    """Return the place of the end record and all bytes from there on.

    The record is searched for in the way that all zip readers do.
    """
    last = read_at(descriptor, max(0, file_bytes - _END.size), _END.size)
    # The common case, in which no comment follows the record: one small read instead of 64 KiB.
    if len(last) == _END.size and last[:4] == b"PK\x05\x06" and last[-2:] == b"\0\0":
        return file_bytes - _END.size, last
    # Perhaps a comment follows: the record is the last signature in the longest possible tail.
    start = max(0, file_bytes - _END.size - _MAX_COMMENT_BYTES)
    tail = read_at(descriptor, start, file_bytes - start)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise unreadable("File is not a zip file", where)
    return start + place, tail[place:]


def _read_end64(descriptor: int, place: int, small: list[int], where: object) -> list[int]:
    """Return the six numbers of the zip64 end record."""
    raw = read_at(descriptor, place, _END64.size) if place >= 0 else b""
    if len(raw) < _END64.size or raw[:4] != b"PK\x06\x06":
        raise unreadable("it has no zip64 end record", where)
    _, record_bytes, _, _, *large = _END64.unpack(raw)
    unset = (2**16 - 1,) * 4 + (IN_ZIP64,) * 2
    agree = all(one in (no, other) for one, no, other in zip(small, unset, large, strict=True))
    # The record does not count its signature and this size field, 12 bytes.
    if record_bytes != _END64.size - 12 or not agree:
        raise unreadable("its two end records contradict each other", where)
    return large


def unreadable(why: str, where: object) -> SampleError:
    """Return the error for a file that is not a zip file, or a damaged one."""
    return SampleError(f"not a readable NPZ: {why}", where=where)
