"""Keep the headers that were read until their plan is published: an interrupted plan goes on there.

A header of the cache counts only for the file that it was read from: same path, size and times. The
cache is never evidence of anything, and a line that does not fit is as good as none.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ctrate_convert import __version__
from ctrate_convert.errors import DamageError
from ctrate_convert.store.durable import append_lines, open_regular
from ctrate_convert.store.records.base import Record, RelativePath, SizeBytes, parse
from ctrate_convert.store.records.plan import ArrayHeader

FILE = ".headers.jsonl"
LEAST_SAMPLES = 2_000
"""A plan of fewer samples reads them again as fast."""
EVERY_S = 10.0
_LENGTH_BITS = 32


class CachedHeader(Record):
    """One line: a header, the file that it is of, and what else the reading depended on."""

    source: RelativePath
    size_bytes: SizeBytes
    mtime_ns: int
    ctime_ns: int
    array_key: str | None
    program_version: str = __version__
    header: ArrayHeader


class HeaderCache:
    """The cache of the plan that is being made. Nothing is written in the first `EVERY_S`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[str] = []
        self._last = time.monotonic()

    def places(self) -> dict[str, int]:
        """Return where the newest line of each source is; empty if there is no cache."""
        places: dict[str, int] = {}
        with contextlib.suppress(OSError, DamageError), open_regular(self.path) as lines:
            offset = 0
            for line in lines:
                with contextlib.suppress(ValueError, RecursionError):
                    fields = json.loads(line)
                    if isinstance(fields, dict) and isinstance(fields.get("source"), str):
                        places[fields["source"]] = offset << _LENGTH_BITS | len(line)
                offset += len(line)
        return places

    def add(self, lines: Sequence[str]) -> None:
        """Add lines of `CachedHeader`; they are on disk some seconds later.

        Raises:
            OSError: they cannot be written.
        """
        self._waiting += lines
        if time.monotonic() - self._last >= EVERY_S:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            append_lines(self.path, self._waiting)
        self._waiting.clear()
        self._last = time.monotonic()

    def remove(self) -> None:
        """Remove the cache: its plan is published, or is not wanted."""
        self._waiting.clear()
        self.path.unlink(missing_ok=True)


def cached_headers(path: Path, places: Sequence[int]) -> Iterator[CachedHeader | None]:
    """Yield the line at each of ``places``; None for the place 0, and for what is no such line."""
    with contextlib.ExitStack() as stack:
        stream = None
        if any(places):
            with contextlib.suppress(OSError, DamageError):
                stream = stack.enter_context(open_regular(path))
        for place in places:
            found = None
            if stream is not None and place:
                size_bytes = place & (1 << _LENGTH_BITS) - 1
                with contextlib.suppress(OSError, DamageError):
                    data = os.pread(stream.fileno(), size_bytes, place >> _LENGTH_BITS)
                    found = parse(CachedHeader, data, path)
            yield found
