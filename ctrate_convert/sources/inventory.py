"""Every byte of an NPZ file: to which member it belongs, or that it belongs to none."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass

from ctrate_convert.errors import SampleError
from ctrate_convert.sources.zip_end import read_end
from ctrate_convert.sources.zip_structure import Entry, read_entries

BYTES_BEFORE = "bytes-before"
BYTES_BETWEEN = "bytes-between"
BYTES_AFTER = "bytes-after"
EXTRA_FIELD = "zip-extra-field"
NPY_HEADER = "npy-header"

_USER_ATTRIBUTE = "user."


@dataclass(frozen=True)
class LeftOut:
    """Something in a source that its shard does not hold.

    ``name`` is a member's as in the zip, an extended attribute's, or one of the fixed names above;
    ``what`` describes it for a person.
    """

    name: str
    what: str


@dataclass(frozen=True)
class Inventory:
    """The members of a zip file, its comment, and the bytes that belong to no member."""

    entries: tuple[Entry, ...]
    comment: bytes
    loose: tuple[LeftOut, ...]


def take_inventory(descriptor: int, where: object) -> Inventory:
    """Read the directory and each member's own header, and account for every byte.

    Raises:
        SampleError: it is no zip file, its directory is damaged, or members overlap.
        OSError: it cannot be read.
    """
    end = read_end(descriptor, where)
    entries = read_entries(descriptor, end, where)
    file_bytes = os.fstat(descriptor).st_size
    spans = [(one.header_offset, one.end_offset) for one in entries if one.has_place]
    spans += [(end.directory_offset, end.end_offset), (file_bytes, file_bytes)]
    first, *between, after = _gaps(sorted(spans), where)
    found = (
        (BYTES_BEFORE, first, "before the first member"),
        (BYTES_BETWEEN, sum(between), "between the members"),
        (BYTES_AFTER, after, "after the end of the zip"),
        (EXTRA_FIELD, sum(one.loose_bytes for one in entries), "of extra fields and comments"),
    )
    loose = tuple(LeftOut(name, f"{size:,} bytes {place}") for name, size, place in found if size)
    return Inventory(entries, end.comment, loose)


def _gaps(spans: list[tuple[int, int]], where: object) -> list[int]:
    """Return how many bytes before each span belong to no span."""
    gaps = []
    place = 0
    for start, stop in spans:
        if start < place:
            raise SampleError("zip members overlap", where=where, seen=f"bytes {start}–{place}")
        gaps.append(start - place)
        place = stop
    return gaps


def user_attributes(descriptor: int) -> list[LeftOut]:
    """Return the file's extended attributes that a person or program has set.

    Raises:
        OSError: they cannot be listed on a file system that has them.
    """
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return []
        raise
    return [_attribute(descriptor, name) for name in names if name.startswith(_USER_ATTRIBUTE)]


def _attribute(descriptor: int, name: str) -> LeftOut:
    what = "extended attribute"
    with contextlib.suppress(OSError):
        what += f", {len(os.getxattr(descriptor, name)):,} bytes"
    return LeftOut(os.fsencode(name).decode("utf-8", "backslashreplace"), what)
