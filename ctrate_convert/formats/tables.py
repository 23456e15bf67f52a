"""Read CSV tables: every cell is the text in the file, and a missing cell is empty.

The csv module reads the rows and pandas compares them. pandas does not read them, because it loses
facts: it fills a short row with empty cells, though that row shows that the table was cut off; it
moves the cells of a row that follows an empty line of CR and starts with an empty cell; it drops
blanks at the start of a row where two of its buffers meet; its errors do not show the bad row.

Only this module imports pandas, which is slow to load. Import the module only to read tables.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path

import pandas as pd

from ctrate_convert.errors import SettingsError
from ctrate_convert.formats.members import LABEL_NAMES, REPORT_FIELDS
from ctrate_convert.formats.names import key_of_volume
from ctrate_convert.store.records.base import sha256_hex
from ctrate_convert.store.records.volume_list import ListOption, VolumeList

VOLUME_NAME = "VolumeName"

_REQUIRED: dict[str, tuple[str, ...]] = {
    "reports_file": (VOLUME_NAME, *REPORT_FIELDS),
    "labels_file": (VOLUME_NAME, *LABEL_NAMES),
    "meta_file": (VOLUME_NAME, "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"),
}
# pandas writes a column that had gaps as 0.0 and 1.0.
_LABEL_VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
_COLUMNS_SHOWN = 50


@dataclass(frozen=True)
class Table:
    """One table: its rows by sample key, with verbatim cells.

    ``conflicting`` says, by key, how rows of the same key differ; such keys are not in ``rows``.
    Exact repetitions of a row are dropped and counted in ``repeated_rows``.
    """

    path: Path
    sha256: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]
    conflicting: Mapping[str, str]
    repeated_rows: int

    def __contains__(self, key: str) -> bool:
        return key in self.rows or key in self.conflicting

    def __iter__(self) -> Iterator[str]:
        yield from self.rows
        yield from self.conflicting

    def __len__(self) -> int:
        return len(self.rows) + len(self.conflicting)

    def row(self, key: str) -> dict[str, str]:
        """Return the cells of a key's row by column.

        Raises:
            KeyError: the key has no row.
        """
        return dict(zip(self.columns, self.rows[key], strict=True))


@dataclass(frozen=True)
class Tables:
    """The three tables of one split."""

    reports: Table
    labels: Table
    metadata: Table

    @property
    def by_setting(self) -> dict[str, Table]:
        """The tables by the name of the setting that gives each one's path."""
        return {
            "reports_file": self.reports,
            "labels_file": self.labels,
            "meta_file": self.metadata,
        }

    def keys(self) -> set[str]:
        """Return every key that is in at least one table."""
        return {*self.reports, *self.labels, *self.metadata}

    def label_values(self, key: str) -> dict[str, int]:
        """Return the key's labels as numbers.

        Raises:
            ValueError: a cell is neither 0 nor 1; the message names it.
        """
        row = self.labels.row(key)
        for label, cell in row.items():
            if cell not in _LABEL_VALUES:
                raise ValueError(f"label {label!r} is {cell!r}, not 0 or 1")
        return {label: _LABEL_VALUES[cell] for label, cell in row.items()}


def read_tables(reports_file: Path, labels_file: Path, meta_file: Path) -> Tables:
    """Return the three tables; metadata keeps every column, the other two only the known ones.

    Raises:
        SettingsError: a file is missing, not such a table, or not UTF-8.
    """
    return Tables(
        reports=_read(reports_file, "reports_file", tuple(REPORT_FIELDS)),
        labels=_read(labels_file, "labels_file", LABEL_NAMES),
        metadata=_read(meta_file, "meta_file", None),
    )


def read_volume_list(path: Path, option: ListOption) -> tuple[VolumeList, frozenset[str]]:
    """Return the record and the keys of a list with one path or name a line.

    Only the base name counts, without ``.nii.gz`` or ``.npz``. Blank lines and lines that start
    with ``#`` are ignored. Keys and hash are of the same bytes, which are read once.

    Raises:
        SettingsError: the file cannot be read.
    """
    data = _read_bytes(path, option)
    keys = _keys_in(data)
    record = VolumeList(option=option, name=path.name, keys=len(keys), sha256=sha256_hex(data))
    return record, keys


def read_keys(path: Path, option: str) -> frozenset[str]:
    """Return the keys of a list as `read_volume_list` does.

    Raises:
        SettingsError: the file cannot be read.
    """
    return _keys_in(_read_bytes(path, option))


def _keys_in(data: bytes) -> frozenset[str]:
    # Only base names count, and these are ASCII, so folders may be in any encoding.
    text = data.decode("utf-8-sig", "surrogateescape")
    keys = set()
    for line in text.splitlines():
        entry = line.strip()
        if entry and not entry.startswith("#"):
            # The list may come from another machine, with its paths.
            name = entry.replace("\\", "/").rstrip("/").rpartition("/")[2]
            keys.add(name.removesuffix(".gz").removesuffix(".nii").removesuffix(".npz"))
    return frozenset(keys)


def _read_bytes(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"--{setting} cannot be read: {error.strerror}",
            where=path,
            next_command=f"check the path given as --{setting}",
        ) from error


def _read(path: Path, setting: str, keep: Sequence[str] | None) -> Table:
    data = _read_bytes(path, setting)
    header, *cells = _parse(data, path, setting)
    _check_columns(header, path, setting)
    columns = header if keep is None else tuple(keep)
    name_place = header.index(VOLUME_NAME)
    keys = pd.Index([key_of_volume(row[name_place]) for row in cells], dtype=object)
    if keep is not None:
        cells = list(map(itemgetter(*map(header.index, keep)), cells))

    rows = pd.Series(cells, index=keys, dtype=object)
    again = keys.duplicated()
    first, later = rows[~again], rows[again]
    before = first.reindex(later.index)
    differs = later != before
    conflicting = {
        str(key): f"its rows in {path.name} differ in {_differing(columns, one, other)}"
        for (key, one), other in zip(before[differs].items(), later[differs], strict=True)
    }
    kept = {str(key): row for key, row in first.items() if key not in conflicting}
    return Table(path, sha256_hex(data), columns, kept, conflicting, int((~differs).sum()))


def _differing(columns: Sequence[str], one: Sequence[str], other: Sequence[str]) -> str:
    differing = (c for c, a, b in zip(columns, one, other, strict=True) if a != b)
    return ", ".join(islice(differing, 3))


def _parse(data: bytes, path: Path, setting: str) -> Iterator[tuple[str, ...]]:
    """Return the file's rows, the header first, all of one length."""
    save_again = "save the table again as comma-separated UTF-8 text"
    _check_text(data, path, setting, save_again)
    # csv itself must see the line ends, since a quoted cell may hold some.
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    shared: dict[str, str] = {}  # one string for all equal cells
    width = 0
    try:
        # The empty line at the end closes every row except one with an open quote.
        for number, row in enumerate(csv.reader(chain(text, [""])), start=1):
            width = width or len(row)
            if row and len(row) != width:
                # A table that was cut off while it was copied has such a row.
                raise SettingsError(
                    f"--{setting} has a row of another length than its header",
                    where=path,
                    seen=f"{len(row)} cells in row {number}: {', '.join(row)[:60]}",
                    expected=f"{width} cells",
                    next_command="fetch the table again; it may have been cut off",
                )
            if row:
                yield tuple(map(shared.setdefault, row, row))
        if row:
            raise csv.Error(f"a quote in row {number} is not closed")
    except csv.Error as error:
        raise SettingsError(
            f"--{setting} is not a comma-separated table: {error}",
            where=path,
            next_command=save_again,
        ) from error


def _check_text(data: bytes, path: Path, setting: str, next_command: str) -> None:
    if not data.removeprefix(codecs.BOM_UTF8).strip():
        raise SettingsError(
            f"--{setting} is empty", where=path, next_command="fetch the table again"
        )
    if b"\0" in data:
        raise SettingsError(
            f"--{setting} is not a text file",
            where=path,
            seen=f"a NUL byte at offset {data.index(0)}",
            expected="comma-separated text",
            next_command=next_command,
        )
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"--{setting} is not UTF-8 text",
            where=path,
            seen=f"byte 0x{data[error.start]:02x} in line {line}",
            expected="UTF-8",
            next_command=next_command,
        ) from error


def _check_columns(header: Sequence[str], path: Path, setting: str) -> None:
    required = _REQUIRED[setting]
    missing = [column for column in required if column not in header]
    if missing:
        seen = [f"{column!r}" for column in header[:_COLUMNS_SHOWN]]
        raise SettingsError(
            f"--{setting} has no column {', '.join(repr(column) for column in missing)}",
            where=path,
            seen=", ".join(seen) + (", …" if len(header) > _COLUMNS_SHOWN else ""),
            expected=", ".join(required),
            next_command=_advice(header, missing, setting),
        )
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise SettingsError(
            f"--{setting} has the column {repeated[0]!r} more than once",
            where=path,
            next_command="remove one of them",
        )


def _advice(header: Sequence[str], missing: Sequence[str], setting: str) -> str:
    for other, required in _REQUIRED.items():
        if other != setting and set(required) <= set(header):
            return f"this is the table for --{other}: are the two exchanged?"
    folded = {column.strip().casefold(): column for column in header}
    for column in missing:
        for near in difflib.get_close_matches(column.casefold(), folded, n=1):
            return f"rename the column {folded[near]!r} to {column!r}"
    return f"check that --{setting} names the right table"
