"""The kernel: any box, any order of axes, flips, origins and paddings."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.affines import rows_of
from ctrate_convert.store.records.recipe import Recipe, SpacingMm
from ctrate_convert.views.grid import centred, resampled_voxels
from ctrate_convert.views.presets import presets
from ctrate_convert.views.view import View
from tests.unit.views import reference
from tests.unit.views.support import Array, Grid, facts, grids, noise, read, sized, stored_as

GRID = Grid((61, 47, 39), 0.7, 1.0, (48, 50, 24))
_AXES = ("zyx", "xyz", "yxz")


@pytest.mark.parametrize("output", ["int16", "uint8", "float16"])
def test_a_box_is_a_part_of_the_whole(output: str) -> None:
    """Bit for bit, wherever it lies, also where it is only padding, for elements of any size."""
    rng = np.random.default_rng(3)
    for number, grid in enumerate(grids(12)):
        axes = _AXES[number % 3]
        stored = stored_as(noise(grid.shape, number), axes)
        view = View(sized("ctclip-modern", grid.size, output=output), facts(stored, axes, grid))
        whole = read(view, stored)
        for _ in range(8):
            edges = [np.sort(rng.integers(0, size + 1, 2)) for size in view.shape]
            x, y, z = (slice(int(low), int(high)) for low, high in edges)
            assert np.array_equal(read(view, stored, 4, (x, y, z)), whole[x, y, z])


@pytest.mark.parametrize("axes", _AXES)
@pytest.mark.parametrize("view_axes", ["xyz", "xzy", "yxz", "yzx", "zxy", "zyx"])
def test_orientation_turns_the_volume_and_nothing_else(axes: str, view_axes: str) -> None:
    """A view of a flipped volume, turned back, is the view of the volume: enlarged and reduced."""
    for spacing in (0.3, 0.75, 2.0):
        recipe = sized("ctclip", GRID.size, axes=view_axes, orientation="LPS").model_copy(
            update={"spacing_mm": SpacingMm(x=spacing, y=spacing, z=spacing)}
        )
        xyz = noise(GRID.shape, 6)
        stored = stored_as(xyz, axes)
        letters = {"x": "L", "y": "P", "z": "S"}
        told = facts(stored, axes, GRID, orientation="".join(letters[axis] for axis in axes))
        flipped = stored_as(xyz[::-1, :, ::-1], axes)
        letters = {"x": "R", "y": "P", "z": "I"}
        other = facts(stored, axes, GRID, orientation="".join(letters[axis] for axis in axes))
        expected = read(View(recipe, told), stored)
        assert np.array_equal(read(View(recipe, other), flipped), expected)
        plain = recipe.model_copy(update={"orientation": ""})
        assert np.array_equal(read(View(plain, told), stored), expected)


def test_an_orientation_that_is_not_known_is_refused() -> None:
    stored = noise((9, 9, 9), 0)
    for orientation in ("", "SPL"):
        with pytest.raises(SampleError, match="directions"):
            View(
                sized("hlip", (9, 9, 9), orientation="RAS"),
                facts(stored, "xyz", GRID, orientation=orientation),
            )


def test_origin_keeps_the_first_voxel() -> None:
    """The centre of voxel 0 stays, and what lies beyond the last one repeats it."""
    ramp = np.broadcast_to((np.arange(10, dtype=np.int16) * 100)[:, None, None], (10, 4, 4))
    recipe = presets()["ctclip"].model_copy(
        update={
            "coordinates": "origin", "size": None, "pad_hu": None, "axes": "xyz",
            "spacing_mm": SpacingMm(x=0.5, y=1, z=1), "window_hu": None, "values": None,
        }
    )  # fmt: skip
    view = View(recipe, facts(ramp, "xyz", Grid((10, 4, 4), 1.0, 1.0, (1, 1, 1))))
    found = read(view, ramp)
    assert found.shape == (20, 4, 4)
    assert found[:, 1, 2].tolist() == [*range(0, 950, 50), 900]
    assert view.spacing_mm == (0.5, 1.0, 1.0)


def test_the_affine_puts_a_view_back_into_the_patient() -> None:
    """A volume that holds its own place along an axis says where each voxel of the view lies."""
    affine = np.array([[0, 0, -0.7, 90], [0, -0.7, 0, 80], [1.0, 0, 0, -50], [0, 0, 0, 1]])
    shape = (39, 47, 61)
    index = np.indices(shape)
    ras = np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3][:, None, None, None]
    for coordinates, orientation in (("half_pixel", ""), ("origin", ""), ("half_pixel", "RAS")):
        recipe = sized(
            "ctclip", (48, 50, 24), coordinates=coordinates, orientation=orientation,
            window_hu=None, values=None, pad_hu=-3000.0,
        )  # fmt: skip
        told = facts(
            np.empty(shape), "zyx", GRID, orientation="SPL", affine=rows_of(affine), slope=0.01
        )
        view = View(recipe, told)
        assert np.allclose(
            np.linalg.norm(np.array(view.affine)[:3, :3], axis=0), view.spacing_mm, rtol=1e-12
        )
        places = np.indices(view.shape)
        matrix = np.array(view.affine)
        expected = np.tensordot(matrix[:3, :3], places, 1) + matrix[:3, 3][:, None, None, None]
        for world in range(3):
            found = read(view, np.rint(ras[world] * 100_00).astype(np.int32))
            # Voxels at the volume's edges repeat it, so only those within are compared.
            inside = np.ones(view.shape, bool)
            for axis in range(3):
                edge = [slice(None)] * 3
                edge[axis] = slice(2 + max(0, -view.origin[axis]), 44 if axis else 20)
                keep = np.zeros(view.shape, bool)
                keep[tuple(edge)] = True
                inside &= keep & (found != -3000)
            assert inside.sum() > 1000
            assert np.abs(found - expected[world] * 100)[inside].max() <= 0.52


@pytest.mark.parametrize(("spacing", "target"), [(0.8, 1.5), (0.7, 0.75), (0.6, 0.75), (0.3, 1.5)])
def test_size_rules(spacing: float, target: float) -> None:
    for voxels in range(1, 700):
        assert resampled_voxels("int(n*(c/t))", voxels, spacing, target) == int(
            voxels * (spacing / target)
        )
        assert resampled_voxels("int(n*c/t)", voxels, spacing, target) == int(
            voxels * spacing / target
        )
        assert resampled_voxels("round(n*c/t)", voxels, spacing, target) == round(
            voxels * spacing / target
        )
        assert resampled_voxels("round((n-1)*c/t+1)", voxels, spacing, target) == round(
            (voxels - 1) * spacing / target + 1
        )


def test_the_odd_voxel() -> None:
    """After the middle it is where the original has it; before the middle on the other side."""
    for size, wanted in itertools.product(range(1, 12), repeat=2):
        line = np.arange(1.0, size + 1).reshape(-1, 1, 1)
        expected = reference.crop_or_pad(line, (wanted, 1, 1), 0.0).ravel()
        for odd, golden in (("after", expected), ("before", expected_mirrored(line, wanted))):
            origin = centred(size, wanted, "after" if odd == "after" else "before")
            found = [
                line[origin + i, 0, 0] if 0 <= origin + i < size else 0.0 for i in range(wanted)
            ]
            assert found == golden.tolist()


def expected_mirrored(line: Array, wanted: int) -> Array:
    return reference.crop_or_pad(line[::-1], (wanted, 1, 1), 0.0).ravel()[::-1]


def test_voxels_that_are_no_numbers_are_refused() -> None:
    for bad in (np.nan, np.inf):
        stored = noise(GRID.shape, 0).astype(np.float16)
        stored[30, 20, 20] = bad
        view = View(sized("ctclip", GRID.size), facts(stored, "xyz", GRID))
        with pytest.raises(SampleError, match="no finite number"):
            read(view, stored)


def test_a_volume_of_one_voxel_and_of_none() -> None:
    recipe: Recipe = sized("ctclip", (4, 4, 4))
    one = np.full((1, 1, 1), 37, np.int16)
    grid = Grid((1, 1, 1), 0.75, 1.5, (4, 4, 4))
    found = read(View(recipe, facts(one, "zyx", grid)), one)
    assert np.sort(found.ravel())[-2:].tolist() == [-1000, 37]
    with pytest.raises(SampleError, match="nothing is left"):
        View(recipe, facts(one, "zyx", Grid((1, 1, 1), 0.7, 1.5, (4, 4, 4))))


def test_memory_is_the_output_and_a_few_planes() -> None:
    stored = noise((80, 256, 256), 1)
    grid = Grid((256, 256, 80), 0.7, 1.0, (240, 240, 60))
    for name in ("ctclip", "hlip", "ctclip-modern"):
        view = View(sized(name, grid.size), facts(stored, "zyx", grid))
        tracemalloc.start()
        found = read(view, stored)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        planes = (peak - found.nbytes) / (256 * 256 * 4)
        assert planes <= (28 if name == "ctclip-modern" else 10)
