"""Read the members of a zip file: directory, local headers, data descriptors.

Facts count only if the file states them twice: the directory's entry and the member's own header
must agree. Source: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, version 6.3.10.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ctrate_convert.errors import SampleError
from ctrate_convert.sources.zip_end import IN_ZIP64, End, read_at, unreadable

MAX_ENTRIES = 1000
STORED, DEFLATED = 0, 8
ENCRYPTED_FLAG = 0x1

_MAX_DIRECTORY_BYTES = 2**22
_DESCRIPTOR_FLAG, _UTF8_FLAG = 0x8, 0x800

_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_EXTRA = struct.Struct("<2H")
_ZIP64 = 0x0001
# 0x5455 are extended time stamps; 0x5855 and 0x7875 are Info-ZIP's Unix fields, old and new.
_LARGEST_EXTRA_BYTES = {_ZIP64: 28, 0x5455: 13, 0x5855: 12, 0x7875: 19}
"""The largest sizes of extra fields without user data: zip64 sizes, times, Unix ids."""


class Broken(Exception):
    """An error for a member that cannot be read, with the reason."""


@dataclass(frozen=True)
class Entry:
    """One member. All bytes from ``header_offset`` to ``end_offset`` belong to it.

    ``trouble`` says why the member cannot be read. If its own header contradicts the directory, no
    bytes of the file belong to it. ``loose_bytes`` counts its comment and its unknown extra fields.
    """

    name: str
    method: int
    crc32: int
    packed_bytes: int
    size_bytes: int
    header_offset: int
    data_offset: int
    end_offset: int
    loose_bytes: int
    trouble: str = ""

    @property
    def has_place(self) -> bool:
        """True if the member lies where the directory says."""
        return self.end_offset > self.header_offset


@dataclass(frozen=True)
class _Listed:
    """A member as the directory lists it."""

    raw_name: bytes
    flags: int
    method: int
    crc32: int
    packed_bytes: int
    size_bytes: int
    offset: int
    loose_bytes: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.crc32, self.packed_bytes, self.size_bytes


def read_entries(descriptor: int, end: End, where: object) -> tuple[Entry, ...]:
    """Return the members, from the directory and each member's own header.

    Raises:
        SampleError: the directory is damaged or too large.
    """
    if end.entries > MAX_ENTRIES or end.directory_bytes > _MAX_DIRECTORY_BYTES:
        raise SampleError(
            "too many entries in one NPZ",
            where=where,
            seen=f"{end.entries} in a directory of {end.directory_bytes} bytes",
            expected=f"≤ {MAX_ENTRIES} in {_MAX_DIRECTORY_BYTES} bytes",
        )
    raw = read_at(descriptor, end.directory_offset, end.directory_bytes)
    try:
        listed = list(_parse_directory(raw, end.prefix_bytes))
    except (struct.error, UnicodeDecodeError, Broken) as error:
        raise unreadable(f"its directory is damaged ({error})", where) from error
    if len(listed) != end.entries:
        raise unreadable("its directory has another number of entries than it says", where)
    return tuple(_entry(descriptor, one) for one in listed)


def _parse_directory(raw: bytes, prefix_bytes: int) -> Iterator[_Listed]:
    place = 0
    while place < len(raw):
        fields = _ENTRY.unpack_from(raw, place)
        if fields[0] != b"PK\x01\x02":
            raise Broken("an entry has no signature")
        flags, method = fields[3:5]
        crc32, packed_bytes, size_bytes, *lengths, disk, _, _, offset = fields[7:]
        name, extra, comment = _cut(raw, place + _ENTRY.size, lengths)
        # Only so that a name that cannot be decoded is found here, as damage of the directory.
        _decoded(name, flags)
        sizes64, loose_bytes = _read_extra(extra)
        size_bytes, packed_bytes, offset = _widened((size_bytes, packed_bytes, offset), sizes64)
        # 2**16 - 1 says that the number is in the zip64 field.
        if disk not in (0, 2**16 - 1):
            raise Broken("an entry lies on another disk")
        yield _Listed(
            name,
            flags,
            method,
            crc32,
            packed_bytes,
            size_bytes,
            offset + prefix_bytes,
            loose_bytes + len(comment),
        )
        place += _ENTRY.size + sum(lengths)


def _cut(raw: bytes, place: int, lengths: list[int]) -> list[bytes]:
    pieces = []
    for length in lengths:
        pieces.append(raw[place : place + length])
        place += length
    if place > len(raw):
        raise Broken("an entry is cut short")
    return pieces


def _read_extra(extra: bytes) -> tuple[list[int], int]:
    """Return the numbers of the zip64 field, and the number of bytes in no known field."""
    sizes64: list[int] = []
    known: set[int] = set()
    place = loose_bytes = 0
    while place + _EXTRA.size <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, place)
        body = extra[place + _EXTRA.size : place + _EXTRA.size + length]
        if len(body) < length:
            break
        if kind in known or length > _LARGEST_EXTRA_BYTES.get(kind, -1):
            loose_bytes += _EXTRA.size + length
        elif kind == _ZIP64:
            sizes64 = list(struct.unpack_from(f"<{length // 8}Q", body))
        known.add(kind)
        place += _EXTRA.size + length
    return sizes64, loose_bytes + len(extra) - place


def _widened(values: tuple[int, ...], sizes64: list[int]) -> list[int]:
    """Return the values, with each that refers to the zip64 field replaced by its number there."""
    # The field holds only the numbers that are referred to it, in this order.
    rest = iter(sizes64)
    try:
        return [next(rest) if value == IN_ZIP64 else value for value in values]
    except (StopIteration, RuntimeError) as error:
        raise Broken("a zip64 size is missing") from error


def _decoded(raw_name: bytes, flags: int) -> str:
    return raw_name.decode("utf-8" if flags & _UTF8_FLAG else "cp437")


def _entry(descriptor: int, listed: _Listed) -> Entry:
    data_offset = end_offset = listed.offset
    loose_bytes, trouble = listed.loose_bytes, ""
    try:
        flags, data_offset, more_loose_bytes = _read_local(descriptor, listed)
        end_offset = _end_of(descriptor, listed, flags, data_offset)
        loose_bytes += more_loose_bytes
        if (flags | listed.flags) & ENCRYPTED_FLAG:
            trouble = "zip member is encrypted"
        elif listed.method not in (STORED, DEFLATED):
            trouble = f"zip member uses another compression: {listed.method}"
    except Broken as error:
        trouble = str(error)
    return Entry(
        name=_decoded(listed.raw_name, listed.flags),
        method=listed.method,
        crc32=listed.crc32,
        packed_bytes=listed.packed_bytes,
        size_bytes=listed.size_bytes,
        header_offset=listed.offset,
        data_offset=data_offset,
        end_offset=end_offset,
        loose_bytes=loose_bytes,
        trouble=trouble,
    )


_USUAL_EXTRA_BYTES = 20
"""The zip64 field, which numpy writes into every local header."""


def _read_local(descriptor: int, listed: _Listed) -> tuple[int, int, int]:
    """Return the flags, the offset of the data and the unknown extra bytes of a local header."""
    if not listed.offset < os.fstat(descriptor).st_size:
        raise Broken("zip member lies outside its file")
    # One read for what a header mostly takes: name and extra fields tell their lengths in it.
    raw = read_at(
        descriptor, listed.offset, _LOCAL.size + len(listed.raw_name) + _USUAL_EXTRA_BYTES
    )
    if len(raw) < _LOCAL.size or raw[:4] != b"PK\x03\x04":
        raise Broken("zip member has no local header")
    fields = _LOCAL.unpack_from(raw)
    flags, method = fields[2:4]
    crc32, packed_bytes, size_bytes, *lengths = fields[6:]
    after = raw[_LOCAL.size : _LOCAL.size + sum(lengths)]
    if len(after) < sum(lengths):
        after = read_at(descriptor, listed.offset + _LOCAL.size, sum(lengths))
    name, extra = _cut(after, 0, lengths)
    sizes64, loose_bytes = _read_extra(extra)
    size_bytes, packed_bytes = _widened((size_bytes, packed_bytes), sizes64)
    sizes = (crc32, packed_bytes, size_bytes)
    # A streaming writer leaves zeros here, and states the sizes in a data descriptor afterwards.
    later = (0, 0, 0) if flags & _DESCRIPTOR_FLAG else listed.sizes
    agree = all(one in pair for one, *pair in zip(sizes, later, listed.sizes, strict=True))
    if (name, method) != (listed.raw_name, listed.method) or not agree:
        raise Broken("zip member's local header and the zip directory disagree")
    return flags, listed.offset + _LOCAL.size + sum(lengths), loose_bytes


def _end_of(descriptor: int, listed: _Listed, flags: int, data_offset: int) -> int:
    """Return the offset of the first byte after the member, including its data descriptor."""
    end = data_offset + listed.packed_bytes
    if end > os.fstat(descriptor).st_size:
        raise Broken("zip file cut short")
    if not flags & _DESCRIPTOR_FLAG:
        return end
    raw = read_at(descriptor, end, 24)
    # The size fields have 4 or 8 bytes, and the signature is optional.
    for form in ("<4sL2Q", "<4s3L", "<L2Q", "<3L"):
        size_bytes = struct.calcsize(form)
        if len(raw) < size_bytes:
            continue
        seen = struct.unpack_from(form, raw)
        if seen[-3:] == listed.sizes and seen[:-3] in ((), (b"PK\x07\x08",)):
            return end + size_bytes
    raise Broken("zip member's data descriptor and the zip directory disagree")
