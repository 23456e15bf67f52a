"""Views against the original code's arithmetic in float64, on grids of every kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ctrate_convert.views.view import View
from tests.unit.views import reference
from tests.unit.views.support import Array, Grid, facts, grids, noise, read, sized, stored_as

GRIDS = grids(64)
Size = tuple[int, int, int]
_ORDERS = ("zyx", "xyz", "yxz")

MOST_DIFFERENT = 0.0005
"""The part of the voxels that may differ from the original's, rounded: ties."""


def volume_of(number: int) -> tuple[Grid, Array, str]:
    grid = GRIDS[number]
    return grid, noise(grid.shape, number), _ORDERS[number % len(_ORDERS)]


def view_of(name: str, grid: Grid, xyz: Array, axes: str, **more: object) -> Array:
    stored = stored_as(xyz, axes)
    view = View(sized(name, grid.size, **more), facts(stored, axes, grid))
    found = read(view, stored)
    assert found.shape == view.shape and found.flags.c_contiguous and found.flags.writeable
    return found


@pytest.mark.parametrize(("name", "clip"), [("ctclip", "after"), ("ctclip-inference", "before")])
def test_ctclip_is_the_original_within_rounding(name: str, clip: str) -> None:
    """64 grids each: int16 within 0.501 HU, float16 within 0.25, uint8 within 3.93."""
    different = voxels = 0
    for number in range(len(GRIDS)):
        grid, xyz, axes = volume_of(number)
        expected = reference.ctclip(xyz, grid.xy_mm, grid.z_mm, clip=clip, target=grid.size)
        found = view_of(name, grid, xyz, axes)
        assert found.dtype == np.int16 and found.shape == expected.shape
        assert np.abs(found - expected).max() <= 0.501
        different += int((found != np.rint(expected)).sum())
        voxels += found.size
        half = view_of(name, grid, xyz, axes, output="float16")
        assert half.dtype == np.float16
        assert np.abs(half.astype(np.float64) * 1000 - expected).max() <= 0.25
        byte = view_of(name, grid, xyz, axes, output="uint8")
        assert byte.dtype == np.uint8
        assert np.abs(byte * (2000 / 255) - 1000 - expected).max() <= 3.93
    assert different <= MOST_DIFFERENT * voxels


def test_ctclip_modern_is_the_original_within_rounding() -> None:
    for number in range(len(GRIDS)):
        grid, xyz, axes = volume_of(number)
        expected = reference.modern(xyz, grid.xy_mm, grid.z_mm, target=grid.size)
        found = view_of("ctclip-modern", grid, xyz, axes)
        assert found.dtype == np.float16 and found.shape == expected.shape
        assert np.abs(found - expected).max() * 1000 <= 0.25


def test_hlip_is_the_original_within_rounding() -> None:
    different = voxels = 0
    for number in range(len(GRIDS)):
        grid, xyz, axes = volume_of(number)
        x, y, z = grid.size
        expected = reference.hlip(
            xyz.transpose(2, 1, 0), grid.xy_mm, grid.xy_mm, grid.z_mm, (z, y, x)
        )
        found = view_of("hlip", grid, xyz, axes)
        assert found.dtype == np.int16 and found.shape == expected.shape
        hu = expected * 1500 - 1150
        assert np.abs(found - hu).max() <= 0.501
        different += int((found != np.rint(hu)).sum())
        voxels += found.size
    assert different <= MOST_DIFFERENT * voxels


def test_merlin_is_the_original_within_rounding() -> None:
    different = voxels = 0
    for number in range(len(GRIDS)):
        grid, xyz, axes = volume_of(number)
        size = tuple(one - one % 2 for one in grid.size)
        expected = reference.merlin(xyz, grid.xy_mm, grid.z_mm, size) * 2000 - 1000  # type: ignore[arg-type]
        stored = stored_as(xyz, axes)
        letters = dict(zip("xyz", "LPS", strict=True))
        told = facts(stored, axes, grid, orientation="".join(letters[axis] for axis in axes))
        found = read(View(sized("merlin", size), told), stored)  # type: ignore[arg-type]
        assert found.dtype == np.int16 and found.shape == expected.shape
        assert np.abs(found - expected).max() <= 0.501
        different += int((found != np.rint(expected)).sum())
        voxels += found.size
    assert different <= MOST_DIFFERENT * voxels


def test_fvlm_is_the_original_within_rounding() -> None:
    """Views are as large as the size, or as the volume where that is larger."""
    different = voxels = larger = 0
    for number in range(len(GRIDS)):
        grid, xyz, axes = volume_of(number)
        x, y, z = grid.size
        expected = reference.fvlm(xyz, grid.xy_mm, grid.z_mm, (z, y, x)) * 1500 - 1150
        found = view_of("fvlm", grid, xyz, axes)
        assert found.dtype == np.int16 and found.shape == expected.shape
        assert np.abs(found - expected).max() <= 0.501
        different += int((found != np.rint(expected)).sum())
        voxels += found.size
        larger += found.shape != (z, y, x)
    assert different <= MOST_DIFFERENT * voxels
    assert 0 < larger < len(GRIDS)


def even(size: Size) -> Size:
    x, y, z = (max(2, one - one % 2) for one in size)
    return x, y, z


def oriented(name: str, grid: Grid, xyz: Array, axes: str, **more: object) -> Array:
    """The view of a volume whose axes grow left, back, up."""
    stored = stored_as(xyz, axes)
    letters = dict(zip("xyz", "LPS", strict=True))
    told = facts(stored, axes, grid, orientation="".join(letters[axis] for axis in axes))
    return read(View(sized(name, grid.size, **more), told), stored)


def test_spectre_is_the_original_within_rounding() -> None:
    """Where a voxel differs, the original's lies at a tie: both integers are as near.

    0.053 % of these voxels do: the first voxel stays, and with a step such as 15/14 many places are
    multiples of 1/14. Float64's own rounding decides their ties, and no other arithmetic follows.
    """
    different = voxels = 0
    for number in range(len(GRIDS)):
        grid, xyz, axes = volume_of(number)
        grid = replace(grid, size=even(grid.size))  # MONAI cuts odd ones elsewhere
        expected = reference.spectre(xyz, grid.xy_mm, grid.z_mm, grid.size) * 2000 - 1000
        found = oriented("spectre", grid, xyz, axes)
        assert found.dtype == np.int16 and found.shape == expected.shape
        assert np.abs(found - expected).max() <= 0.501
        differs = found != np.rint(expected)
        assert np.abs(np.abs(found - expected)[differs] - 0.5).max(initial=0) <= 1e-3
        different += int(differs.sum())
        voxels += found.size
        half = oriented("spectre", grid, xyz, axes, output="float16", values=(-1.0, 1.0))
        assert np.abs(half.astype(np.float64) * 1000 - expected).max() <= 0.25
        byte = oriented("spectre", grid, xyz, axes, output="uint8")
        assert np.abs(byte * (2000 / 255) - 1000 - expected).max() <= 3.93
    assert different <= 0.0006 * voxels


def test_colipri_is_the_original_within_rounding() -> None:
    """The volume's minimum is the padding there; a CT has air, and so has each volume here."""
    different = voxels = 0
    for number in range(len(GRIDS)):
        grid, xyz, axes = volume_of(number)
        xyz[:12, :12] = -1500
        expected = reference.colipri(xyz, grid.xy_mm, grid.z_mm, grid.size) * 1000
        found = oriented("colipri", grid, xyz, axes)
        assert found.dtype == np.int16 and found.shape == expected.shape
        assert np.abs(found - expected).max() <= 0.501
        different += int((found != np.rint(expected)).sum())
        voxels += found.size
        half = oriented("colipri", grid, xyz, axes, output="float16")
        assert np.abs(half.astype(np.float64) * 1000 - expected).max() <= 0.25
        byte = oriented("colipri", grid, xyz, axes, output="uint8")
        assert np.abs(byte * (2000 / 255) - 1000 - expected).max() <= 3.93
    assert different <= MOST_DIFFERENT * voxels


def test_the_reference_is_linear_interpolation() -> None:
    """A ramp stays a ramp of the other spacing, and its ends stay: half a voxel in, not beyond."""
    ramp = np.broadcast_to(np.arange(10.0)[:, None, None], (10, 3, 3))
    found = reference.interpolate(ramp, (20, 3, 3))[:, 1, 1]
    assert np.allclose(found, np.clip((np.arange(20) + 0.5) / 2 - 0.5, 0, 9))
