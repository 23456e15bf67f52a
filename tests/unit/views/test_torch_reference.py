"""Views against torch, MONAI and TorchIO themselves; skipped where they are not installed.

The other tests compare with the same arithmetic in numpy, `reference`. These prove both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.unit.views import reference
from tests.unit.views.support import Array, Grid, noise
from tests.unit.views.test_golden import GRIDS, even, oriented, view_of, volume_of

NEAR = 0.501
_SOME = range(0, len(GRIDS), 2)


def torch() -> Any:
    return pytest.importorskip("torch")


def transforms() -> Any:
    torch()
    return pytest.importorskip("monai.transforms")


def interpolated(volume: Array, size: tuple[int, ...]) -> Array:
    """Torch's own, in double precision."""
    tensor = torch().from_numpy(np.array(volume, np.float64))[None, None]
    found = torch().nn.functional.interpolate(
        tensor, size=size, mode="trilinear", align_corners=False
    )
    return np.asarray(found[0, 0])


def image(lps: Array, grid: Grid) -> Any:
    """A MONAI image of a volume whose axes grow left, back, up."""
    torch()
    data = pytest.importorskip("monai.data")
    affine = np.diag([-grid.xy_mm, -grid.xy_mm, grid.z_mm, 1.0])
    return data.MetaTensor(torch().from_numpy(lps.astype(np.float64))[None], affine=affine)


def at_a_tie(grid: Grid, wanted: tuple[float, float, float]) -> bool:
    """Return True if MONAI decides a size by the rounding of its matrices."""
    own = grid.xy_mm, grid.xy_mm, grid.z_mm
    sizes = [(n - 1) * c / t + 1 for n, c, t in zip(grid.shape, own, wanted, strict=True)]
    return any(abs(one % 1 - 0.5) < 1e-6 for one in sizes)


def test_the_reference_is_torchs_interpolate() -> None:
    for number in _SOME:
        grid, xyz, _ = volume_of(number)
        expected = interpolated(xyz, grid.size)
        found = reference.interpolate(xyz.astype(np.float64), grid.size)
        assert np.abs(found - expected).max() <= 1e-9


@pytest.mark.parametrize(("name", "clip"), [("ctclip", "after"), ("ctclip-inference", "before")])
def test_ctclip_is_torchs_within_rounding(
    name: str, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch()
    monkeypatch.setattr(reference, "interpolate", interpolated)
    for number in _SOME:
        grid, xyz, axes = volume_of(number)
        expected = reference.ctclip(xyz, grid.xy_mm, grid.z_mm, clip=clip, target=grid.size)
        found = view_of(name, grid, xyz, axes)
        assert found.shape == expected.shape and np.abs(found - expected).max() <= NEAR


def test_hlip_is_torchs_within_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    torch()
    monkeypatch.setattr(reference, "interpolate", interpolated)
    for number in _SOME:
        grid, xyz, axes = volume_of(number)
        x, y, z = grid.size
        zyx = xyz.transpose(2, 1, 0)
        expected = reference.hlip(zyx, grid.xy_mm, grid.xy_mm, grid.z_mm, (z, y, x)) * 1500 - 1150
        found = view_of("hlip", grid, xyz, axes)
        assert found.shape == expected.shape and np.abs(found - expected).max() <= NEAR


def test_merlin_is_monais_within_rounding() -> None:
    monai, compared = transforms(), 0
    for number in _SOME:
        grid, xyz, axes = volume_of(number)
        if at_a_tie(grid, (1.5, 1.5, 3.0)):
            continue
        grid = replace(grid, size=even(grid.size))
        made = monai.Compose(
            [
                monai.Orientationd(keys="image", axcodes="RAS"),
                monai.Spacingd(keys="image", pixdim=(1.5, 1.5, 3.0), mode="bilinear"),
                monai.SpatialPadd(keys="image", spatial_size=grid.size, value=-1000.0),
                monai.CenterSpatialCropd(keys="image", roi_size=grid.size),
            ]
        )({"image": image(xyz, grid)})["image"]
        expected = np.clip(np.asarray(made[0], np.float64), -1000, 1000)
        found = oriented("merlin", grid, xyz, axes)
        # Spacingd gives single precision.
        assert found.shape == expected.shape and np.abs(found - expected).max() <= NEAR
        compared += 1
    assert compared >= len(_SOME) // 2


def test_spectre_is_monais_within_rounding() -> None:
    monai, compared = transforms(), 0
    for number in _SOME:
        grid, xyz, axes = volume_of(number)
        if at_a_tie(grid, (0.75, 0.75, 1.5)):
            continue
        grid = replace(grid, size=even(grid.size))
        window = {"a_min": -1000, "a_max": 1000, "b_min": -1000.0, "b_max": 1000.0, "clip": True}
        made = monai.Compose(
            [
                monai.ScaleIntensityRanged(keys="image", **window),
                monai.Orientationd(keys="image", axcodes="RAS"),
                monai.Spacingd(keys="image", pixdim=(0.75, 0.75, 1.5), mode="bilinear"),
                monai.ResizeWithPadOrCropd(keys="image", spatial_size=grid.size, value=-1000.0),
            ]
        )({"image": image(xyz, grid)})["image"]
        expected = np.asarray(made[0], np.float64)
        found = oriented("spectre", grid, xyz, axes)
        assert found.shape == expected.shape and np.abs(found - expected).max() <= NEAR
        compared += 1
    assert compared >= len(_SOME) // 2


def test_fvlm_is_monais_within_rounding() -> None:
    monai = transforms()
    for number in _SOME:
        grid, xyz, axes = volume_of(number)
        own, wanted = (grid.xy_mm, grid.xy_mm, grid.z_mm), (1.0, 1.0, 3.0)
        size = [int(n * (c / t)) for n, c, t in zip(grid.shape, own, wanted, strict=True)]
        x, y, z = grid.size
        made = monai.Compose(
            [
                monai.Resized(
                    keys="image", spatial_size=size, mode="trilinear", dtype=torch().float64
                ),
                monai.Transposed(keys="image", indices=(0, 3, 2, 1)),
                monai.SpatialPadd(keys="image", spatial_size=(z, y, x), value=-1150.0),
            ]
        )({"image": image(xyz, grid)})["image"]
        expected = np.clip(np.asarray(made[0], np.float64), -1150, 350)
        found = view_of("fvlm", grid, xyz, axes)
        assert found.shape == expected.shape and np.abs(found - expected).max() <= NEAR


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_colipri_is_torchios_within_rounding(dtype: str) -> None:
    """Of integers TorchIO cuts each resampled voxel's fraction, so these are up to 1 HU apart."""
    torch()
    tio = pytest.importorskip("torchio")
    for number in _SOME:
        grid = GRIDS[number]
        # In axes that grow right, front, up: TorchIO's ToOrientation and ToCanonical only flip.
        xyz = noise(grid.shape, number)
        xyz[:12, :12] = -1500
        made = tio.Compose(
            [
                tio.Resample(2),
                tio.Clamp(-1000, 1000),
                tio.CropOrPad(grid.size, padding_mode="minimum"),
            ]
        )(
            tio.ScalarImage(
                tensor=torch().from_numpy(xyz.astype(dtype))[None],
                affine=np.diag([grid.xy_mm, grid.xy_mm, grid.z_mm, 1.0]),
            )
        )
        expected = np.asarray(made.data[0], np.float64)
        found = oriented("colipri", grid, xyz[::-1, ::-1], "zyx")
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= (NEAR if dtype == "float32" else 1.001)
