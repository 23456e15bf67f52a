"""Read a CSV file row by row, and read any of its rows again by its place in the file.

The file is read several times, so it must stay what it was: a file that changed is refused.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ctrate_convert.errors import DamageError, SettingsError
from ctrate_convert.store.durable import open_regular

Row = Sequence[str]

_BLOCK_BYTES = 2**20
_SAVE_AGAIN = "save the table again as comma-separated UTF-8 text"
_LENGTH_BITS = 32


@dataclass(frozen=True)
class TableFile:
    """A table's file as it was when it was read first.

    A *place* is the offset and the length of a row's text, in one number.
    """

    path: Path
    setting: str
    identity: tuple[int, ...]

    @classmethod
    def of(cls, path: Path, setting: str) -> TableFile:
        """Return the file ``path`` that the option ``setting`` names.

        Raises:
            SettingsError: it cannot be read, or is no regular file.
        """
        with cls(path, setting, ())._open() as stream:
            return cls(path, setting, _identity(os.fstat(stream.fileno())))

    def checked_sha256(self) -> str:
        """Return the file's SHA-256 after a check that it is text.

        Raises:
            SettingsError: it is empty, binary or not UTF-8, or has changed.
        """
        digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
        is_empty = True
        with self.opened() as stream:
            for block in iter(lambda: stream.read(_BLOCK_BYTES), b""):
                digest.update(block)
                try:
                    text = decoder.decode(block)
                except UnicodeDecodeError:
                    self._refuse_text()
                    raise
                is_empty = is_empty and not text.removeprefix("\ufeff").strip()
                if b"\0" in block:
                    self._refuse_text()
        if is_empty or decoder.getstate()[0]:
            self._refuse_text()
        return digest.hexdigest()

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield the place and the cells of each row, the header first, all of one length.

        Raises:
            SettingsError: the file is no table, or has changed.
        """
        width = 0
        last: tuple[int, Row] | None = None
        try:
            for number, (place, row) in enumerate(self._parsed(), start=1):
                width = width or len(row)
                if row and len(row) != width:
                    # A table that was cut off while it was copied has such a row.
                    raise SettingsError(
                        f"--{self.setting} has a row of another length than its header",
                        where=self.path,
                        seen=f"{len(row)} cells in row {number}: {', '.join(row)[:60]}",
                        expected=f"{width} cells",
                        next_command="fetch the table again; it may have been cut off",
                    )
                if last:
                    yield last
                last = (place, row) if row else None
            if last:  # the line that was added at the end has not closed it
                raise csv.Error(f"a quote in row {number} is not closed")
        except csv.Error as error:
            raise SettingsError(
                f"--{self.setting} is not a comma-separated table: {error}",
                where=self.path,
                next_command=_SAVE_AGAIN,
            ) from error

    def _parsed(self) -> Iterator[tuple[int, Row]]:
        with self.opened() as stream:
            lines = _Lines(stream)
            start = 0
            for row in csv.reader(lines):
                yield start << _LENGTH_BITS | lines.end - start, row
                start = lines.end

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open the file for reading; check before and after that it is what it was.

        Raises:
            SettingsError: it has changed, or cannot be read.
        """
        with self._open() as stream:
            self._check(stream)
            yield stream
            self._check(stream)

    def _open(self) -> BinaryIO:
        try:
            return open_regular(self.path)
        except OSError as error:
            raise SettingsError(
                f"--{self.setting} cannot be read: {error.strerror}",
                where=self.path,
                next_command=f"check the path given as --{self.setting}",
            ) from error
        except DamageError as error:
            raise SettingsError(
                f"--{self.setting} is {error.what}",
                where=self.path,
                expected="a file, since it is read more than once",
                next_command=f"check the path given as --{self.setting}",
            ) from error

    def _check(self, stream: BinaryIO) -> None:
        if _identity(os.fstat(stream.fileno())) != self.identity:
            raise SettingsError(
                f"--{self.setting} was changed while it was read",
                where=self.path,
                next_command="give the same command again when the table is complete",
            )

    def _refuse_text(self) -> None:
        """Raise if the file is not text, with the place that shows it."""
        with self.opened() as stream:
            data = stream.read()
        if not data.removeprefix(codecs.BOM_UTF8).strip():
            raise SettingsError(
                f"--{self.setting} is empty", where=self.path, next_command="fetch the table again"
            )
        if b"\0" in data:
            raise SettingsError(
                f"--{self.setting} is not a text file",
                where=self.path,
                seen=f"a NUL byte at offset {data.index(0)}",
                expected="comma-separated text",
                next_command=_SAVE_AGAIN,
            )
        try:
            data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise SettingsError(
                f"--{self.setting} is not UTF-8 text",
                where=self.path,
                seen=f"byte 0x{data[error.start]:02x} in line {line}",
                expected="UTF-8",
                next_command=_SAVE_AGAIN,
            ) from error


class _Lines:
    """The lines of a file as text; ``end`` is the offset after the last one that was given."""

    def __init__(self, stream: BinaryIO) -> None:
        self.end = 0
        self._lines = _lines(stream)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        # A byte order mark is no part of the first column's name.
        text = line.decode() if self.end else line.decode("utf-8-sig")
        self.end += len(line)
        return text


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield lines that end as csv wants them: in CR, LF or both, kept for cells that hold some."""
    for line in stream:
        if b"\r" in line:
            yield from line.splitlines(keepends=True)
        else:
            yield line
    # The empty line at the end closes every row except one with an open quote.
    yield b""


def row_at(stream: BinaryIO, place: int) -> Row:
    """Return the cells of the row at ``place`` in an open table."""
    size_bytes = place & (1 << _LENGTH_BITS) - 1
    offset = place >> _LENGTH_BITS
    data = os.pread(stream.fileno(), size_bytes, offset)
    lines = [data.decode()]
    if b"\n" in data[:-1] or b"\r" in data[:-2]:
        lines = [line.decode() for line in data.splitlines(keepends=True)]
    if offset == 0:
        lines[0] = lines[0].removeprefix("\ufeff")
    # An empty line between two rows counts to the one after it.
    return next(row for row in csv.reader(lines) if row)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
