"""Geometry is what the strongest evidence says, or empty; a contradiction claims nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert import Volumes
from ctrate_convert.errors import ExitCode
from ctrate_convert.formats.geometry import geometry_of, table_spacing_mm
from ctrate_convert.sources.kinds import read_array_header
from ctrate_convert.store.records.geometry import Geometry
from ctrate_convert.store.records.plan import ArrayHeader
from tests.support import convert_here, input_words, plan_words, run_here
from tests.unit.deleting.scenes import Make

NATIVE = [[0, -0.7, 0, 170], [-0.7, 0, 0, 160], [0, 0, 1.0, -300], [0, 0, 0, 1.0]]
RESAMPLED = [[0, -0.75, 0, 170], [-0.75, 0, 0, 160], [0, 0, 1.5, -300], [0, 0, 0, 1.0]]


def row(columns: int, rows: int, slices: int, xy: float = 0.7, z: float = 1.0) -> dict[str, str]:
    return {
        "Rows": str(rows), "Columns": str(columns), "NumberofSlices": str(slices),
        "XYSpacing": f"[{xy}, {xy}]", "ZSpacing": str(z),
    }  # fmt: skip


def header(shape: tuple[int, ...], geometry: Geometry | None = None) -> ArrayHeader:
    return ArrayHeader(
        array_key="data", dtype="<i2", shape=shape, fortran_order=False, compression="stored",
        geometry=geometry,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "axes", "spacing"),
    [
        ((512, 727, 300), "yxz", (0.7, 0.7, 1.0)),
        ((727, 512, 300), "xyz", (0.7, 0.7, 1.0)),
        ((300, 512, 727), "zyx", (1.0, 0.7, 0.7)),
        ((300, 727, 512), "", (1.0, 0.7, 0.7)),  # zxy, which has no name here
    ],
)
def test_unequal_sizes_tell_the_axes(
    shape: tuple[int, ...], axes: str, spacing: tuple[float, ...]
) -> None:
    found = geometry_of(header(shape), row(columns=727, rows=512, slices=300))
    assert (found.axes, found.spacing_axes_mm, found.grid) == (axes, spacing, "native")
    assert (found.spacing_mm, found.affine, found.contradiction) == ((0.7, 0.7, 1.0), (), "")


def test_equal_rows_and_columns_leave_the_axes_open() -> None:
    """The slices are known all the same, and with them the spacing."""
    found = geometry_of(header((300, 512, 512)), row(512, 512, 300))
    assert (found.axes, found.axes_from) == ("", "")
    assert found.spacing_axes_mm == (1.0, 0.7, 0.7)
    assert found.spacing_from == "XYSpacing and ZSpacing of the table"


def test_a_cube_leaves_the_spacing_open() -> None:
    found = geometry_of(header((300, 300, 300)), row(300, 300, 300))
    assert (found.axes, found.spacing_axes_mm, found.grid) == ("", (), "native")


def test_a_resampled_array_gets_no_spacing_of_the_table() -> None:
    """120 × 120 × 60 at 0.75, 0.75 and 1.5 mm once got the table's 1.0 mm: 60 mm for 90."""
    found = geometry_of(header((120, 120, 60)), row(512, 512, 305, 0.703, 1.0))
    assert (found.spacing_mm, found.spacing_axes_mm, found.grid) == ((), (), "unknown")
    assert found.contradiction == (
        "the table's columns, rows and slices are 512×512×305, the array's axes 120×120×60"
    )


@pytest.mark.parametrize(
    "broken",
    [
        {"Rows": ""}, {"NumberofSlices": "nan"}, {"Columns": "512.5"}, {"Rows": "many"},
        {"Rows": "0"},
    ],
)  # fmt: skip
def test_a_table_without_sizes_tells_nothing(broken: dict[str, str]) -> None:
    found = geometry_of(header((512, 512, 300)), row(512, 512, 300) | broken)
    assert found == Geometry()


@pytest.mark.parametrize(
    "broken", [{"ZSpacing": ""}, {"ZSpacing": "0"}, {"XYSpacing": "[]"}, {"XYSpacing": "[nan, 1]"}]
)
def test_a_table_without_spacing_tells_the_grid_alone(broken: dict[str, str]) -> None:
    found = geometry_of(header((512, 727, 300)), row(727, 512, 300) | broken)
    assert (found.grid, found.axes, found.spacing_mm) == ("native", "yxz", ())


ABSURD_CELLS = (
    "__import__('os')", "[0x" + "f" * 5000 + ", 1]", "[{[]: 1}, 2]", "[" * 3000, "[1e999, 1]", "\0",
    "0.7", "(0.7, 0.7)", "'0.7'", "[0.7]", "[0.7, 0.7, 1]", "[True, 1]", "[[0.7], 0.7]", "{0.7: 1}",
)  # fmt: skip
"""What Python's reader of lists trips over in many ways, and what is no list of two numbers."""


def test_spacing_is_a_list_or_nothing() -> None:
    for cell in ABSURD_CELLS:
        assert table_spacing_mm({"XYSpacing": cell, "ZSpacing": "1"}) == [], cell
    assert table_spacing_mm({"XYSpacing": "[0.7, 0.8]", "ZSpacing": "1.5"}) == [0.7, 0.8, 1.5]


OWN = Geometry(
    axes="zyx", spacing_axes_mm=(1.0, 0.7, 0.7), spacing_mm=(0.7, 0.7, 1.0), spacing_from="header"
)


def test_the_files_own_spacing_counts_before_the_tables() -> None:
    """Where both say the same it is native; where not, the file's own stays, and it is told."""
    agreeing = geometry_of(header((300, 512, 512), OWN), row(512, 512, 300, 0.701))
    assert (agreeing.grid, agreeing.contradiction) == ("native", "")
    other = geometry_of(header((300, 512, 512), OWN), row(512, 512, 300, 0.9))
    assert other.contradiction == "the table's spacing is 0.9×0.9×1 mm, the file's 0.7×0.7×1 mm"
    assert (other.spacing_mm, other.grid) == (OWN.spacing_mm, "unknown")
    smaller = geometry_of(header((200, 512, 512), OWN), row(512, 512, 300))
    assert (smaller.spacing_mm, smaller.grid) == (OWN.spacing_mm, "unknown")
    assert "512×512×300, the array's axes 200×512×512" in smaller.contradiction


# --- What stands beside the volume in an NPZ ----------------------------------------------------


def of_npz(folder: Path, shape: tuple[int, ...] = (6, 5, 4), **entries: Any) -> Geometry:
    path = folder / "train_1_a_1.npz"
    np.savez(path, volume=np.zeros(shape, np.int16), **entries)
    return geometry_of(read_array_header(path), row(50, 60, 40))


def as_entry(fields: object) -> Any:
    return np.array(json.dumps(fields).encode())


@pytest.mark.parametrize("flat", [False, True])
def test_a_metadata_entry(tmp_path: Path, flat: bool) -> None:
    """affine.final is the array's, affine.original tells that it is on another grid."""
    fields: dict[str, Any] = {"spacing": [1.5, 0.75, 0.75], "orientation": "LPS"}
    if flat:
        fields |= {"affine.original": NATIVE, "affine.final": RESAMPLED}
    else:
        fields["affine"] = {"original": NATIVE, "final": RESAMPLED}
    found = of_npz(tmp_path, metadata=as_entry(fields))
    assert found.affine == tuple(map(tuple, RESAMPLED))
    assert found.affine_from == found.axes_from == "entry metadata: affine.final"
    assert (found.axes, found.orientation) == ("yxz", "PLS")
    assert (found.spacing_axes_mm, found.spacing_mm) == ((0.75, 0.75, 1.5), (0.75, 0.75, 1.5))
    assert found.grid == "resampled"
    assert "another spacing than affine.original" in found.grid_from
    assert found.contradiction == ""  # the table describes the other grid, as the file says


@pytest.mark.parametrize(
    "fields",
    [
        {"affine": {"final": [[1, 2], [3, 4]]}},
        {"affine": {"final": [[float("nan")] * 4] * 4}},
        {"affine": {"final": np.zeros((4, 4)).tolist()}},
        {"affine": {"final": RESAMPLED}, "spacing": [1.0, 0.7, 0.7]},
        {"affine": {"final": RESAMPLED}, "spacing": "unknown"},
        {"affine": {"final": RESAMPLED}, "spacing": [10**400, 0.75, 0.75]},
        {"affine": {"final": [[10**400, 0, 0, 0], *RESAMPLED[1:]]}},
        {"affine": {"final": [[1e308, 1e308, 0, 0], [1e308, 0, 0, 0], *RESAMPLED[2:]]}},
        {"affine": {"final": "text"}},
        {"affine": 7},
        ["a", "list"],
    ],
)
def test_an_entry_that_states_no_affine(tmp_path: Path, fields: object) -> None:
    """Wrong shape, NaN, no volume, or a spacing that contradicts it: nothing is claimed."""
    found = of_npz(tmp_path, metadata=as_entry(fields))
    assert (found.affine, found.spacing_mm, found.axes) == ((), (), "")


def test_an_affine_entry(tmp_path: Path) -> None:
    found = of_npz(tmp_path, affine=np.array(NATIVE))
    assert found.affine == tuple(map(tuple, np.array(NATIVE, np.float64).tolist()))
    assert (found.affine_from, found.axes) == ("entry affine", "yxz")
    assert of_npz(tmp_path, affine=np.eye(3)).affine == ()
    assert of_npz(tmp_path, affine=np.full((4, 4), np.nan)).affine == ()
    assert of_npz(tmp_path, affine=np.array(["text"])).affine == ()
    beyond = np.eye(4, dtype=np.longdouble) * np.longdouble("1e4000")
    assert of_npz(tmp_path, affine=beyond).affine == ()


# --- What plan says, and what samples hold --------------------------------------------------------


def test_plan_says_which_volumes_the_table_contradicts(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(9, shape=(20, 24, 12), kinds=("bare", "data", "resampled"))
    done = run_here(*plan_words(made, tmp_path / "out"))
    bare = [key for key in made.keys if made.kinds[key] == "bare"]
    assert (
        "the metadata table contradicts the arrays of 3 of 9 volumes, and no spacing is claimed "
        f"for them: {', '.join(bare)}"
    ) in done.text.replace("\n", " ")


def test_an_absurd_entry_or_cell_costs_only_its_own_geometry(
    make_ctrate: Make, tmp_path: Path
) -> None:
    """Neither ends the plan, nor fails the sample. The table itself has one blank spacing."""
    made = make_ctrate(4, shape=(20, 24, 12), kinds=("data",))
    fields = {"affine": {"final": RESAMPLED}, "spacing": [10**400, 1, 1]}
    np.savez(made.sources[made.keys[0]], data=np.zeros((20, 24, 12)), metadata=as_entry(fields))
    with made.meta_file.open(newline="") as stream:
        head, *rows = csv.reader(stream)
    cells = dict(zip(made.keys[1:3], ABSURD_CELLS[1:], strict=False))
    for one in rows:
        key = one[0].split(".")[0]
        one[head.index("XYSpacing")] = cells.get(key, one[head.index("XYSpacing")])
    with made.meta_file.open("w", newline="") as stream:
        csv.writer(stream).writerows([head, *rows])
    converted = convert_here(made, tmp_path / "out", samples_per_shard=4)
    assert tuple(one.key for one in converted.record().converted) == made.keys
    for key, sample in Volumes(converted.out).items():
        assert (sample.affine is None, sample.axes) == (True, "yxz"), key
        assert bool(sample.spacing) == (key == made.keys[3])


def test_samples_hold_what_is_known(make_ctrate: Make, tmp_path: Path) -> None:
    """JSON and record say the same, for every kind of source."""
    kinds = ("bare", "data", "resampled", "arr")
    made = make_ctrate(4, shape=(20, 24, 12), kinds=kinds)
    converted = convert_here(made, tmp_path / "out", samples_per_shard=4)
    volumes = Volumes(converted.out)
    for sample in converted.record().converted:
        fields, geometry = volumes[sample.key].json, sample.geometry
        told = json.loads(geometry.to_json())
        told.pop("contradiction")
        assert {name: fields[name] for name in told} == told
        kind = made.kinds[sample.key]
        assert geometry.grid == {"bare": "unknown", "resampled": "resampled"}.get(kind, "native")
        assert bool(geometry.affine) == (kind == "resampled")
        assert bool(geometry.contradiction) == (kind == "bare")
        assert fields["source_kind"] == "npz"


def test_both_kinds_under_one_folder(make_ctrate: Make, tmp_path: Path) -> None:
    """Nobody guesses which count: the plan is refused, and --source settles it."""
    made = make_ctrate(4, kinds=("data", "nii.gz"))
    out = tmp_path / "out"
    done = run_here(*plan_words(made, out))
    assert done.code == ExitCode.USAGE
    assert "2 NPZ, 2 NIfTI" in done.text
    assert "--source npz or --source nifti" in done.text
    assert not out.exists()
    done = run_here(*plan_words(made, out, "--source", "nifti"))
    assert done.code == ExitCode.DONE
    assert "2 NPZ files lie in the data folder too" in done.text
    assert "left out: 3 no volume" in done.text


def test_an_array_of_a_nifti_file_has_no_key(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(1, kinds=("nii",))
    words = input_words(made, tmp_path / "out")
    done = run_here("plan", *words, "--source", "nifti", "--array_key", "data")
    assert done.code == ExitCode.USAGE
    assert "a NIfTI file holds one volume" in done.text
