"""Find the rows of CSV tables by sample key: every cell is the text in the file.

The csv module reads the rows. pandas does not, because it loses facts: it fills a short row with
empty cells, though that row shows that the table was cut off; it moves the cells of a row that
follows an empty line of CR and starts with an empty cell; it drops blanks at the start of a row
where two of its buffers meet; its errors do not show the bad row.
"""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from ctrate_convert.errors import SettingsError
from ctrate_convert.formats.members import LABEL_NAMES, REPORT_FIELDS
from ctrate_convert.formats.names import key_of_volume
from ctrate_convert.formats.tables.rows import Row, TableFile, row_at

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
class Columns:
    """The columns of a table that are kept, and their places in its rows."""

    names: tuple[str, ...]
    places: tuple[int, ...]

    def of(self, row: Row) -> dict[str, str]:
        """Return the kept cells of ``row`` by column."""
        return dict(zip(self.names, [row[place] for place in self.places], strict=True))


@dataclass(frozen=True)
class Table:
    """One table: the places of its rows by sample key; the cells are read from the file again.

    ``conflicting`` says, by key, how rows of the same key differ; such keys are not in ``rows``.
    Exact repetitions of a row are dropped and counted in ``repeated_rows``. ``unusable`` says, by
    key, what is wrong with a row's cells.
    """

    file: TableFile
    sha256: str
    columns: Columns
    rows: Mapping[str, int]
    conflicting: Mapping[str, str]
    repeated_rows: int
    unusable: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The table's file."""
        return self.file.path

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
            SettingsError: the file has changed.
        """
        place = self.rows[key]
        with self.file.opened() as stream:
            return self.columns.of(row_at(stream, place))


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

    @property
    def cells(self) -> Cells:
        """What reads the tables' cells; a process of its own can do it."""
        return Cells(
            *((one.file, one.columns) for one in (self.reports, self.labels, self.metadata))
        )

    def places(self, key: str) -> tuple[int, int, int]:
        """Return where the key's report, labels and metadata are.

        Raises:
            KeyError: a table has no row for it.
        """
        return self.reports.rows[key], self.labels.rows[key], self.metadata.rows[key]

    def label_values(self, key: str) -> dict[str, int]:
        """Return the key's labels as numbers.

        Raises:
            ValueError: a cell is neither 0 nor 1; the message names it.
        """
        return _label_values(self.labels.row(key))


@dataclass(frozen=True)
class SampleRows:
    """What the three tables hold of one sample."""

    report: dict[str, str]
    labels: dict[str, int]
    metadata: dict[str, str]


@dataclass(frozen=True)
class Cells:
    """The three files and their kept columns, without the places of the rows."""

    reports: tuple[TableFile, Columns]
    labels: tuple[TableFile, Columns]
    metadata: tuple[TableFile, Columns]

    @contextlib.contextmanager
    def opened(self) -> Iterator[Callable[[tuple[int, int, int]], SampleRows]]:
        """Open the files; yield the function that reads the rows at three places.

        Raises:
            SettingsError: a file has changed, also in the meantime.
        """
        with contextlib.ExitStack() as stack:
            pairs = (self.reports, self.labels, self.metadata)
            streams = [stack.enter_context(file.opened()) for file, _ in pairs]

            def cells(number: int, place: int) -> dict[str, str]:
                return pairs[number][1].of(row_at(streams[number], place))

            def rows_at(places: tuple[int, int, int]) -> SampleRows:
                return SampleRows(
                    report=cells(0, places[0]),
                    labels=_label_values(cells(1, places[1])),
                    metadata=cells(2, places[2]),
                )

            yield rows_at


def _label_values(row: Mapping[str, str]) -> dict[str, int]:
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
        labels=_read(labels_file, "labels_file", LABEL_NAMES, frozenset(_LABEL_VALUES)),
        metadata=_read(meta_file, "meta_file", None),
    )


def _read(
    path: Path,
    setting: str,
    keep: Sequence[str] | None,
    check: frozenset[str] | None = None,
) -> Table:
    """Return the table; ``check`` holds the cells that it may have, if that is known."""
    file = TableFile.of(path, setting)
    sha256 = file.checked_sha256()
    rows: dict[str, int] = {}
    unusable: dict[str, str] = {}
    later: list[tuple[str, int]] = []
    all_rows = file.rows()
    _, header = next(all_rows)
    _check_columns(header, path, setting)
    names = tuple(header) if keep is None else tuple(keep)
    columns = Columns(names, tuple(map(header.index, names)))
    name_place = header.index(VOLUME_NAME)
    for place, row in all_rows:
        # One string for a key, which three tables and a file have.
        key = sys.intern(key_of_volume(row[name_place]))
        if rows.setdefault(key, place) != place:
            later.append((key, place))
        elif check is not None and not check.issuperset([row[place] for place in columns.places]):
            try:
                _label_values(columns.of(row))
            except ValueError as error:
                unusable[key] = str(error)
    conflicting, repeated = {}, 0
    with file.opened() as stream:
        for key, place in later:
            one, other = (columns.of(row_at(stream, where)) for where in (rows[key], place))
            if one == other:
                repeated += 1
            else:
                columns_of = _differing(names, tuple(one.values()), tuple(other.values()))
                conflicting[key] = f"its rows in {path.name} differ in {columns_of}"
    for key in conflicting:
        del rows[key]
    return Table(file, sha256, columns, rows, conflicting, repeated, unusable)


def _differing(columns: Sequence[str], one: Sequence[str], other: Sequence[str]) -> str:
    differing = (c for c, a, b in zip(columns, one, other, strict=True) if a != b)
    return ", ".join(islice(differing, 3))


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
