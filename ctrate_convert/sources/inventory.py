"""Assign every byte of an NPZ file to a member, or report it as part of none."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ctrate_convert.errors import SampleError
from ctrate_convert.sources.left_out import BYTES_AFTER, BYTES_BEFORE, BYTES_BETWEEN, LeftOut
from ctrate_convert.sources.zip_end import read_end
from ctrate_convert.sources.zip_structure import Entry, read_entries

EXTRA_FIELD = "zip-extra-field"


@dataclass(frozen=True)
class Inventory:
    """The members of a zip file, its comment, and the bytes that belong to no member."""

    entries: tuple[Entry, ...]
    comment: bytes
    loose: tuple[LeftOut, ...]


def take_inventory(descriptor: int, where: object) -> Inventory:
    """Read the directory and each member's own header, and account for every byte.

    Raises:
        SampleError: the file is no zip file, its directory is damaged, or members overlap.
        OSError: the file cannot be read.
    """
    end = read_end(descriptor, where)
    entries = read_entries(descriptor, end, where)
    file_bytes = os.fstat(descriptor).st_size
    spans = [(one.header_offset, one.end_offset) for one in entries if one.has_place]
    # The empty span at the end of the file makes the bytes after the zip a gap.
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
    """Return the number of bytes before each span that belong to no span.

    Raises:
        SampleError: two spans overlap.
    """
    gaps = []
    place = 0
    for start, stop in spans:
        if start < place:
            raise SampleError("zip members overlap", where=where, seen=f"bytes {start}–{place}")
        gaps.append(start - place)
        place = stop
    return gaps
