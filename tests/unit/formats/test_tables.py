"""The CSV tables are read verbatim, and a table that cannot be trusted is refused by name."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctrate_convert.errors import ExitCode, SettingsError
from ctrate_convert.formats.members import LABEL_NAMES, REPORT_FIELDS
from ctrate_convert.formats.tables import Tables, read_tables, read_volume_list

REPORTS = ("VolumeName", *REPORT_FIELDS)
LABELS = ("VolumeName", *LABEL_NAMES)
METADATA = ("VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing", "StudyDate")

A, B = "train_1_a_1.nii.gz", "train_1_a_2.nii.gz"
REPORT_ROW = ("Not given.", "Supine.", 'A "nodule", 4 × 3 mm.', "Stable.")
ZEROS = ("0",) * 18
META_ROW = ("1", "-1024", "[0.5, 0.5]", "1.0", "20180101")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], end: str = "\n") -> bytes:
    text = io.StringIO(newline="")
    # Some versions of the writer leave a lone carriage return unquoted, which no reader can undo.
    lone = any("\r" in cell for row in rows for cell in row)
    writer = csv.writer(
        text, lineterminator=end, quoting=csv.QUOTE_ALL if lone else csv.QUOTE_MINIMAL
    )
    writer.writerows([columns, *rows])
    return text.getvalue().encode()


class Files:
    """Three good tables of one row; a test replaces the bytes it is about."""

    def __init__(self, folder: Path) -> None:
        self.reports = folder / "train_reports.csv"
        self.labels = folder / "train_predicted_labels.csv"
        self.metadata = folder / "train_metadata.csv"
        self.reports.write_bytes(table(REPORTS, [(A, *REPORT_ROW)]))
        self.labels.write_bytes(table(LABELS, [(A, *ZEROS)]))
        self.metadata.write_bytes(table(METADATA, [(A, *META_ROW)], "\r\n"))

    def read(self) -> Tables:
        return read_tables(self.reports, self.labels, self.metadata)

    def refusal(self) -> SettingsError:
        with pytest.raises(SettingsError) as caught:
            self.read()
        assert caught.value.exit_code is ExitCode.USAGE
        assert caught.value.next_command
        return caught.value


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_rows_are_found_by_key(files: Files) -> None:
    """A row is found by its VolumeName without .nii.gz, whatever line end its table has."""
    tables = files.read()
    assert tables.reports.row("train_1_a_1") == dict(zip(REPORTS[1:], REPORT_ROW, strict=True))
    assert tables.metadata.row("train_1_a_1") == dict(zip(METADATA, (A, *META_ROW), strict=True))
    assert tables.label_values("train_1_a_1") == dict.fromkeys(LABEL_NAMES, 0)
    assert tables.keys() == {"train_1_a_1"}


def test_hash_is_of_the_files_bytes(files: Files) -> None:
    """A table's sha256 is the one that sha256sum prints."""
    digest = hashlib.sha256(files.metadata.read_bytes()).hexdigest()
    assert files.read().metadata.sha256 == digest


@pytest.mark.parametrize("text", ["nan", "NaN", "NA", "null", "None", "1.0", "007", "1e5", " x "])
def test_text_that_looks_like_something_else_stays_text(files: Files, text: str) -> None:
    """No cell is taken for a number or for a missing value."""
    files.reports.write_bytes(table(REPORTS, [(A, text, text, text, text)]))
    assert set(files.read().reports.row("train_1_a_1").values()) == {text}


def test_an_empty_cell_is_an_empty_text(files: Files) -> None:
    """An empty cell is "", never "nan"; so is an empty number such as ZSpacing."""
    files.reports.write_bytes(table(REPORTS, [(A, "", "", "", "")]))
    files.metadata.write_bytes(table(METADATA, [(A, "1", "-1024", "[0.5, 0.5]", "", "")]))
    tables = files.read()
    assert set(tables.reports.row("train_1_a_1").values()) == {""}
    assert tables.metadata.row("train_1_a_1")["ZSpacing"] == ""


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cells=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        min_size=4,
        max_size=4,
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_every_text_survives_reading(files: Files, cells: list[str], end: str, mark: bytes) -> None:
    """Quotes, commas, line ends and any other character in a cell come back as written."""
    files.reports.write_bytes(mark + table(REPORTS, [(A, *cells), (B, *cells)], end))
    reports = files.read().reports
    assert list(reports.row("train_1_a_1").values()) == cells
    assert list(reports.row("train_1_a_2").values()) == cells


def test_columns_are_taken_by_name(files: Files) -> None:
    """Labels in another column order keep their values and come out in CT-RATE's order."""
    row = dict.fromkeys(LABEL_NAMES, "0") | {"Emphysema": "1", "VolumeName": A}
    turned = tuple(reversed(LABELS))
    files.labels.write_bytes(table(turned, [[row[column] for column in turned]]))
    values = files.read().label_values("train_1_a_1")
    assert tuple(values) == LABEL_NAMES
    assert [name for name, value in values.items() if value] == ["Emphysema"]


def test_the_metadata_table_keeps_unknown_columns(files: Files) -> None:
    """A further metadata column is kept; a further report column is not part of the report."""
    files.metadata.write_bytes(table((*METADATA, "Extra"), [(A, *META_ROW, "x")]))
    files.reports.write_bytes(table((*REPORTS, "Extra"), [(A, *REPORT_ROW, "x")]))
    tables = files.read()
    assert tables.metadata.row("train_1_a_1")["Extra"] == "x"
    assert "Extra" not in tables.reports.row("train_1_a_1")


@pytest.mark.parametrize(("cell", "value"), [("0", 0), ("1", 1), ("0.0", 0), ("1.0", 1)])
def test_labels_are_zero_or_one(files: Files, cell: str, value: int) -> None:
    """0 and 1 are taken, also as pandas writes them after a column had gaps."""
    files.labels.write_bytes(table(LABELS, [(A, cell, *ZEROS[1:])]))
    assert files.read().label_values("train_1_a_1")["Medical material"] == value


@pytest.mark.parametrize("cell", ["", "2", "nan", "yes", "-1", "0.5", " 1"])
def test_any_other_label_is_named(files: Files, cell: str) -> None:
    """A label that is neither 0 nor 1 is named with its column."""
    files.labels.write_bytes(table(LABELS, [(A, *ZEROS[1:], cell)]))
    with pytest.raises(ValueError, match="Interlobular septal thickening"):
        files.read().label_values("train_1_a_1")


def test_repeated_rows_collapse(files: Files) -> None:
    """Rows that are the same word for word count once."""
    files.reports.write_bytes(table(REPORTS, [(A, *REPORT_ROW)] * 3))
    reports = files.read().reports
    assert (len(reports), reports.repeated_rows, dict(reports.conflicting)) == (1, 2, {})


def test_differing_rows_conflict(files: Files) -> None:
    """Rows of one volume that differ give no row at all, and name the column."""
    other = (*REPORT_ROW[:3], "Worse.")
    files.reports.write_bytes(
        table(REPORTS, [(A, *REPORT_ROW), (A, *other), (A, *REPORT_ROW), (B, *REPORT_ROW)])
    )
    reports = files.read().reports
    assert set(reports.rows) == {"train_1_a_2"}
    assert "Impressions_EN" in reports.conflicting["train_1_a_1"]
    assert "train_1_a_1" in reports


def test_a_missing_column_is_named_with_its_likely_misspelling(files: Files) -> None:
    """A missing column is named, with those seen, and with the one that was probably meant."""
    wrong = tuple("findings_en" if column == "Findings_EN" else column for column in REPORTS)
    files.reports.write_bytes(table(wrong, [(A, *REPORT_ROW)]))
    error = files.refusal()
    assert "'Findings_EN'" in error.what
    assert "findings_en" in str(error.seen)
    assert error.next_command == "rename the column 'findings_en' to 'Findings_EN'"


def test_exchanged_tables_are_recognised(files: Files) -> None:
    """Two options with each other's file are told apart from a broken table."""
    files.labels, files.metadata = files.metadata, files.labels
    assert "--meta_file" in str(files.refusal().next_command)


def test_a_repeated_column_is_refused(files: Files) -> None:
    """Of two columns with one name none can be trusted."""
    files.reports.write_bytes(table((*REPORTS, "Findings_EN"), [(A, *REPORT_ROW, "other")]))
    assert "more than once" in files.refusal().what


def test_bytes_that_are_not_utf8_are_located(files: Files) -> None:
    """A cell in another encoding is refused with its line."""
    files.reports.write_bytes(files.reports.read_bytes() + b"x.nii.gz,a,b,c,caf\xe9\n")
    error = files.refusal()
    assert (error.where, error.seen) == (str(files.reports), "byte 0xe9 in line 3")


def test_a_byte_order_mark_does_not_move_the_byte_that_is_named(files: Files) -> None:
    """The byte that is not UTF-8 is the one in the file, also after a byte order mark."""
    files.reports.write_bytes(b"\xef\xbb\xbf" + files.reports.read_bytes() + b"\xe9\n")
    assert files.refusal().seen == "byte 0xe9 in line 3"


def test_a_quote_that_stays_open_is_refused_with_its_row(files: Files) -> None:
    """A table that was cut off in its last cell is not taken for a whole one."""
    whole = files.reports.read_bytes()
    files.reports.write_bytes(whole + b'\ntrain_1_a_2.nii.gz,a,b,c,"cut off')
    error = files.refusal()
    assert "not a comma-separated table" in error.what
    assert "row 4" in error.what
    files.reports.write_bytes(whole + b'train_1_a_2.nii.gz,a,b,c,"""whole"""')
    assert files.read().reports.row("train_1_a_2")["Impressions_EN"] == '"whole"'


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_empty_lines_move_no_cell(files: Files, end: str) -> None:
    """A row that starts with an empty cell keeps its cells in place after an empty line."""
    lines = [",".join(("Note", *METADATA)), "", ",".join(("", A, *META_ROW[:2], "", "1.0", "x"))]
    files.metadata.write_bytes(end.join([*lines, "", ""]).encode())
    row = files.read().metadata.row("train_1_a_1")
    assert list(row.values()) == ["", A, *META_ROW[:2], "", "1.0", "x"]


def test_blanks_survive_everywhere_in_a_long_table(files: Files) -> None:
    """Blanks at the start of a row are part of its first cell, however far into the file it is."""
    columns = ("Note", *METADATA)
    full = [(100_000 * "y", B, *[""] * 5)] * 2
    for start in range(262_140, 262_146):
        filler = (start - len(table(columns, [*full, ("", B, *[""] * 5)]))) * "y"
        rows = [*full, (filler, B, *[""] * 5), ("   x", A, *[""] * 5)]
        files.metadata.write_bytes(table(columns, rows))
        assert files.read().metadata.row("train_1_a_1")["Note"] == "   x"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"PK\x03\x04\0\0\0", "not a text file"),
        ("VolumeName,Findings_EN\n".encode("utf-16"), "not a text file"),
        (b"\x1f\x8b\x08abc", "not UTF-8"),
        (b'VolumeName,"Findings_EN\nx', "not a comma-separated table"),
        (b"VolumeName;Findings_EN\nx;y\n", "no column"),
        (b"just words\n", "no column"),
    ],
)
def test_what_is_no_table_is_refused(files: Files, content: bytes, words: str) -> None:
    """A file that is empty, binary or not comma-separated is refused with its path."""
    files.reports.write_bytes(content)
    error = files.refusal()
    assert words in error.what
    assert error.where == str(files.reports)


@pytest.mark.parametrize("row", ["train_2_a_1.nii.gz,a,b", "train_2_a_1.nii.gz,a,b,c,d,e"])
@pytest.mark.parametrize("last", [True, False])
def test_a_row_of_another_length_is_refused(files: Files, row: str, last: bool) -> None:
    """A row that was cut off is not completed with empty cells, and a longer one not shortened."""
    good = table(REPORTS, [(B, *REPORT_ROW)]).splitlines(keepends=True)[1]
    lines = [row.encode()] if last else [row.encode() + b"\n", good]
    files.reports.write_bytes(files.reports.read_bytes() + b"".join(lines))
    error = files.refusal()
    assert "row 3" in str(error.seen)
    assert error.expected == "5 cells"


def test_a_missing_table_is_named_with_its_option(files: Files) -> None:
    """A path that does not exist is named together with the option that gave it."""
    files.metadata.unlink()
    error = files.refusal()
    assert "--meta_file" in error.what
    assert error.where == str(files.metadata)


def test_exclusion_lists_hold_paths_of_any_machine(tmp_path: Path) -> None:
    """Only base names count; suffixes, blank lines and comments fall away."""
    path = tmp_path / "no_chest.txt"
    path.write_bytes(
        b"\xef\xbb\xbf# not chests\r\n"
        b"/anvme/x/caf\xe9/train/train_1/train_1_a/train_1_a_1.nii.gz\r\n"
        b"\r\n"
        b"train_2_a_1.npz\n"
        b"  D:\\data\\train_3_a_1.nii.gz  \n"
        b"train_4_a_1"
    )
    expected = {f"train_{number}_a_1" for number in (1, 2, 3, 4)}
    record, keys = read_volume_list(path, "exclude_file")
    assert keys == expected
    assert (record.name, record.keys, record.sha256) == (
        "no_chest.txt", 4, hashlib.sha256(path.read_bytes()).hexdigest(),
    )  # fmt: skip


def test_a_missing_exclusion_list_is_refused(tmp_path: Path) -> None:
    """A list that was named but is not there never means that nothing is excluded."""
    with pytest.raises(SettingsError, match="--exclude_file"):
        read_volume_list(tmp_path / "none.txt", "exclude_file")
    with pytest.raises(SettingsError, match="--keep_file"):
        read_volume_list(tmp_path / "none.txt", "keep_file")
