"""`unview`: a prediction on a view, put back on the grid of its volume."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert import Volumes, unview
from ctrate_convert.errors import ExitCode, SettingsError
from ctrate_convert.formats.affines import rows_of
from ctrate_convert.store.records.recipe import Size, as_toml
from ctrate_convert.synthetic import write_synthetic_ctrate
from ctrate_convert.views.described import view_facts
from ctrate_convert.views.presets import presets
from ctrate_convert.views.view import View
from tests.support import convert_here, run_here
from tests.unit.views.support import Array, Grid, facts, sized

AXES = ("zyx", "xyz", "yxz")
GRID = Grid((61, 47, 39), 0.7, 1.0, (48, 50, 24))
"""Cut along x and z of most presets, padded along y."""


@dataclass(frozen=True)
class Case:
    """A view, what a sample's JSON says of it, and the shape and affine of its volume."""

    view: View
    fields: dict[str, Any]
    shape: tuple[int, ...]
    affine: Array

    def ras(self, of_view: bool) -> Array:
        """RAS+ mm of each voxel's centre, (3, …), by one of the two affines and nothing else."""
        matrix = np.array(self.view.affine) if of_view else self.affine
        places = np.indices(self.view.shape if of_view else self.shape)
        found: Array = np.tensordot(matrix[:3, :3], places, 1)
        found += matrix[:3, 3][:, None, None, None]
        return found


def case(name: str, axes: str, grid: Grid = GRID, letters: str = "LPS", **more: Any) -> Case:
    """A view of a volume whose x, y and z grow towards ``letters``, all of them oblique to none."""
    recipe = sized(name, grid.size, **more)
    shape = tuple(grid.shape["xyz".index(axis)] for axis in axes)
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for place, axis in enumerate(axes):
        letter = letters["xyz".index(axis)]
        world = next(i for i, pair in enumerate(("RL", "AP", "SI")) if letter in pair)
        step = grid.z_mm if axis == "z" else grid.xy_mm
        affine[world, place] = step if letter in "RAS" else -step
    affine[:3, 3] = (30.0, -20.0, 100.0)
    told = facts(
        np.empty(shape, np.int16), axes, grid, affine=rows_of(affine),
        orientation="".join(letters["xyz".index(axis)] for axis in axes),
    )  # fmt: skip
    view = View(recipe, told)
    return Case(view, view_facts(view).as_json(), shape, affine)


def smooth(ras: Array) -> Array:
    x, y, z = ras
    found: Array = np.sin(x / 9) + np.cos(y / 11) + z / 40
    return found


def real(view: View) -> tuple[slice, ...]:
    """The part of a view that is no padding."""
    return tuple(
        slice(max(0, -origin), min(size, resampled - origin))
        for origin, size, resampled in zip(view.origin, view.shape, view.resampled, strict=True)
    )


@pytest.mark.parametrize("letters", ["LPS", "RAS", "RPI"])
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", presets())
def test_a_smooth_function_of_the_place_comes_back(name: str, axes: str, letters: str) -> None:
    """Predicted at the places that the view's affine tells, compared at those of the volume's."""
    one = case(name, axes, letters=letters)
    predicted = smooth(one.ras(of_view=True)).astype(np.float32)
    found = unview(predicted, one.fields, linear=True, fill=np.nan)
    assert found.shape == one.shape and found.dtype == np.float32 and found.flags.c_contiguous
    covered = np.isfinite(found)
    assert covered.mean() > 0.2
    error = np.abs(found - smooth(one.ras(of_view=False)))[covered]
    coarse = max(one.view.spacing_mm) > 2
    # The outermost half voxel repeats the last one; elsewhere only the curvature is lost.
    assert np.percentile(error, 70) < (0.05 if coarse else 0.02)
    assert error.max() < (0.35 if coarse else 0.2)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", presets())
def test_a_mask_lands_where_the_affines_say(name: str, axes: str) -> None:
    one = case(name, axes)
    inside, outside = one.ras(of_view=True), one.ras(of_view=False)
    i, j, k = (size // 2 for size in one.view.shape)
    middle = inside[:, i, j, k]
    radius = 9.0

    def distance(ras: Array) -> Array:
        found: Array = np.linalg.norm(ras - middle[:, None, None, None], axis=0)
        return found

    found = unview(distance(inside) < radius, one.fields)
    assert found.dtype == np.bool_ and found.shape == one.shape
    reach = np.linalg.norm(one.view.spacing_mm) / 2
    assert found[distance(outside) < radius - reach].all()
    assert not found[distance(outside) > radius + reach].any()
    ball = 4 / 3 * np.pi * radius**3
    assert found.sum() * GRID.xy_mm**2 * GRID.z_mm == pytest.approx(ball, rel=0.12)


@pytest.mark.parametrize("letters", ["LPS", "RAI"])
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", presets())
def test_each_voxel_takes_the_nearest_ones_label(name: str, axes: str, letters: str) -> None:
    """Each voxel of the view has a label of its own, and no other than those come back."""
    one = case(name, axes, letters=letters)
    labels = np.arange(1, np.prod(one.view.shape) + 1, dtype=np.int32).reshape(one.view.shape)
    found = unview(labels, one.fields)
    assert found.dtype == np.int32
    covered = found > 0
    there = one.ras(of_view=True).reshape(3, -1)[:, found[covered] - 1]
    here = one.ras(of_view=False)[:, covered]
    # The nearest: half a voxel of the view away at most, along each of its axes.
    world = [int(np.abs(column).argmax()) for column in np.array(one.view.affine)[:3, :3].T]
    for place, spacing in zip(world, one.view.spacing_mm, strict=True):
        assert np.abs(there - here)[place].max() <= spacing / 2 + 1e-9


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("name", presets())
def test_what_was_predicted_for_padding_is_left_out(name: str, linear: bool) -> None:
    for axes, size in zip(AXES, ((48, 50, 24), (70, 70, 50), (12, 10, 6)), strict=True):
        one = case(name, axes, Grid(GRID.shape, 0.7, 1.0, size))
        predicted = np.full(one.view.shape, 99, np.uint8)
        predicted[real(one.view)] = 5
        found = unview(predicted, one.fields, linear=linear, fill=7)
        assert found.dtype == np.uint8
        # COLIPRI's new extent is rounded down, by less than a voxel of 2 mm.
        cut = name == "colipri" or any(origin > 0 for origin in one.view.origin)
        assert np.unique(found).tolist() == ([5, 7] if cut else [5])


def test_a_resampled_volume_comes_back_whole() -> None:
    """No voxel is lost where the view cuts nothing, at half-pixel coordinates and others."""
    for name in presets():
        one = case(name, "zyx", Grid((40, 42, 30), 0.7, 1.0, (100, 100, 60)))
        found = unview(np.ones(one.view.shape, np.uint8), one.fields)
        lost = 1 - found.mean()
        assert lost == 0 if name != "colipri" else lost < 0.25


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64"])
def test_the_type_stays(dtype: str) -> None:
    one = case("ctclip", "zyx")
    predicted = np.ones(one.view.shape, dtype)
    assert unview(predicted, one.fields).dtype == np.dtype(dtype)
    if dtype != "bool":
        found = unview(predicted, one.fields, linear=True)
        assert found.dtype == np.dtype(dtype) and set(np.unique(found)) == {0, 1}


def test_what_is_no_prediction_is_refused() -> None:
    one = case("ctclip", "zyx")
    good = np.zeros(one.view.shape, np.float32)
    holed = good.copy()
    holed[10, 20, 20] = np.nan
    for prediction, more, why in (
        (good[:-1], {}, "expected \\(24, 48, 50\\), the axes zxy"),
        (good[None], {}, "not a prediction on this view"),
        (good.astype(complex), {}, "cannot be put back"),
        (good.astype(bool), {"linear": True}, "cannot be put back"),
        (holed, {"linear": True}, "no finite number"),
        (good.astype(np.uint8), {"fill": -1}, "fill does not fit"),
        (good.astype(np.int16), {"fill": 0.5}, "fill does not fit"),
        (good.astype(np.int16), {"fill": np.nan}, "fill does not fit"),
        (good.astype(np.int16), {"fill": 10**400}, "fill does not fit"),
        (good.astype(np.float16), {"fill": 70_000}, "fill does not fit"),
        (good, {"fill": -1e39}, "fill does not fit"),
        (good, {"fill": "0"}, "fill is no number"),
        (good, {"fill": None}, "fill is no number"),
        (good.astype(np.int64) + 2**24 + 1, {"linear": True}, "too large to interpolate"),
        (good.astype(np.uint64) + 2**63, {"linear": True}, "too large to interpolate"),
    ):
        with pytest.raises(SettingsError, match=why):
            unview(prediction, one.fields, **more)
    assert np.isnan(unview(holed, one.fields)).any()
    assert np.isneginf(unview(good, one.fields, fill=-np.inf)).any()
    for fields in (
        {}, {"view": one.fields}, {**one.fields, "native_step": None},
        {**one.fields, "native_step": [0, 1, 1]}, {**one.fields, "native_axes": ""},
        {**one.fields, "axes": ""},
    ):  # fmt: skip
        with pytest.raises(SettingsError, match="describe no view"):
            unview(good, fields)


def test_memory_is_the_result_and_a_few_planes() -> None:
    grid = Grid((256, 256, 80), 0.7, 1.0, (240, 240, 60))
    for axes, linear in (("zyx", False), ("zyx", True), ("xyz", False)):
        one = case("ctclip", axes, grid)
        predicted = np.ones(one.view.shape, np.int16)
        tracemalloc.start()
        found = unview(predicted, one.fields, linear=linear)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (peak - found.nbytes) / (256 * 256 * 4) <= 12


def test_of_a_dataset_on_the_fly_and_stored(tmp_path: Path) -> None:
    """A threshold on the view, put back, is that of the volume but at its edges."""
    made = write_synthetic_ctrate(tmp_path / "ctrate", samples=2, shape=(60, 56, 25))
    native = convert_here(made, tmp_path / "out")
    recipe = presets()["ctclip"].model_copy(update={"size": Size(x=64, y=60, z=30)})
    path = tmp_path / "own.toml"
    path.write_text(as_toml(recipe), encoding="utf-8")
    stored, words = tmp_path / "views", ("--view", path, "--from", native.out)
    assert run_here("plan", *words, "--output_dir", stored).code == ExitCode.DONE
    assert run_here("run", stored, "--num_workers", 1).code == ExitCode.DONE
    volumes = Volumes(native.out)
    for views in (Volumes(native.out, view=path), Volumes(stored)):
        for key in Volumes(stored):
            sample = views[key]
            found = unview(sample.hu() > -400, sample.json["view"])
            expected = volumes[key].hu() > -400
            assert found.shape == expected.shape
            assert (found == expected).mean() > 0.9
