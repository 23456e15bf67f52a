"""A phantom whose left, head and front are marked is hung right, however its file lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from ctrate_convert.looking.cuts import cut
from ctrate_convert.looking.look import Known, Look
from ctrate_convert.looking.picture import planes_image
from ctrate_convert.looking.planes import planes_of
from ctrate_convert.sources.look import look_at_file

LEFT, HEAD, FRONT = 3000, 2000, 1000
SPACING_MM = (1.0, 2.0, 3.0)  # to the right, to the front, to the head


def marked() -> nibabel.Nifti1Image:
    """A volume in RAS+: its left, front and head sides are marked by planes of their own."""
    voxels = np.zeros((20, 16, 12), np.int16)
    voxels[:, -2:, :] = FRONT
    voxels[:, :, -2:] = HEAD
    voxels[:2, :, :] = LEFT
    return nibabel.Nifti1Image(voxels, np.diag([*SPACING_MM, 1.0]))


def saved_as(codes: str, path: Path) -> Path:
    """The phantom in a file whose axes lead to ``codes``."""
    image = marked()
    now = nibabel.orientations.io_orientation(image.affine)
    wanted = nibabel.orientations.axcodes2ornt(tuple(codes))
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(now, wanted))
    assert nibabel.aff2axcodes(turned.affine) == tuple(codes)
    nibabel.save(turned, path)
    return path


def edges(values: NDArray[np.float32]) -> dict[str, float]:
    """The commonest value at each edge of an image, away from its corners."""
    values = values - values.min()  # whatever the voxels are taken for
    rows, columns = values.shape
    middle_rows, middle_columns = slice(4, rows - 4), slice(4, columns - 4)
    return {
        "left": float(np.median(values[middle_rows, 0])),
        "right": float(np.median(values[middle_rows, -1])),
        "top": float(np.median(values[0, middle_columns])),
        "bottom": float(np.median(values[-1, middle_columns])),
    }


@pytest.mark.parametrize(
    "codes", ["RAS", "LPS", "LAS", "RPI", "PIR", "SAL", "IPL", "ASR", "LSA", "PRS"]
)
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_left_head_and_front_are_where_they_belong(codes: str, suffix: str, tmp_path: Path) -> None:
    look = look_at_file(saved_as(codes, tmp_path / f"phantom.{suffix}"))
    axial, coronal, sagittal = planes_of(look.known, look.cuts)
    assert [one.name for one in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]
    assert edges(axial.values) == {"left": 0, "right": LEFT, "top": FRONT, "bottom": 0}
    assert axial.letters == "RLAP"
    assert edges(coronal.values) == {"left": 0, "right": LEFT, "top": HEAD, "bottom": 0}
    assert coronal.letters == "RLSI"
    assert edges(sagittal.values) == {"left": FRONT, "right": 0, "top": HEAD, "bottom": 0}
    assert sagittal.letters == "APSI"
    assert axial.mm == pytest.approx((2.0, 1.0))
    assert coronal.mm == pytest.approx((3.0, 1.0))
    assert sagittal.mm == pytest.approx((3.0, 2.0))


def known(**more: Any) -> Known:
    return Known("key", "file", "int16", **more)


def test_without_an_orientation_nothing_is_claimed() -> None:
    """Axes alone name the planes, and give no letters; without them not even that."""
    voxels = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    cuts = cut(voxels.shape, [voxels])
    planes = planes_of(known(axes="zyx"), cuts)
    assert [(one.name, one.values.shape, one.letters) for one in planes] == [
        ("axial", (3, 4), ""), ("coronal", (2, 4), ""), ("sagittal", (2, 3), ""),
    ]  # fmt: skip
    assert np.array_equal(planes[0].values, voxels[1])
    planes = planes_of(known(axes="yxz"), cuts)
    assert [one.values.shape for one in planes] == [(2, 3), (4, 3), (4, 2)]
    planes = planes_of(known(), cuts)
    assert [one.name for one in planes] == ["across axis 0", "across axis 1", "across axis 2"]
    assert {one.letters for one in planes} == {""}


@pytest.mark.parametrize("at_once", [1, 2, 3, 7])
def test_cuts_do_not_depend_on_the_slabs(at_once: int) -> None:
    voxels = np.random.default_rng(0).integers(-1000, 1000, (7, 5, 6), dtype=np.int16)
    cuts = cut(voxels.shape, [voxels[at : at + at_once] for at in range(0, 7, at_once)])
    assert np.array_equal(cuts.planes[0], voxels[3])
    assert np.array_equal(cuts.planes[1], voxels[:, 2])
    assert np.array_equal(cuts.planes[2], voxels[:, :, 3])
    assert np.array_equal(cuts.values, voxels.ravel())
    turned = cuts.reversed()
    assert np.array_equal(turned.planes[0], voxels.transpose(2, 1, 0)[3])
    with pytest.raises(ValueError, match="6 of 7 planes"):
        cut(voxels.shape, [voxels[:6]])


def test_a_large_volume_is_counted_in_part() -> None:
    shape = (40, 300, 400)
    slab = np.zeros((8, *shape[1:]), np.int16)
    cuts = cut(shape, (slab + number for number in range(5)))
    assert 2**18 < cuts.values.size <= 2**20
    counts = np.unique(cuts.values, return_counts=True)[1]
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("shape", [(100, 20, 30), (20, 100, 30), (30, 20, 200)])
def test_the_aspect_is_true(shape: tuple[int, int, int]) -> None:
    """A millimetre is as long in rows as in columns, however flat the plane."""
    voxels = np.zeros(shape, np.int16)
    spacing = (0.7, 1.5, 3.0)
    look = Look(known(axes="zyx", spacing_mm=spacing), cut(shape, [voxels]))
    strip = planes_image(look, look.cuts, ("", -1.0, 1.0), height=120)  # zero is grey: 128
    columns = (np.asarray(strip) == 128).any(axis=0)
    edges_at = np.flatnonzero(np.diff(np.concatenate([[False], columns, [False]]).astype(int)))
    parts = np.asarray(strip)
    axes = [(1, 2), (0, 2), (0, 1)]
    for number, (rows, wide) in enumerate(axes):
        left, right = edges_at[2 * number : 2 * number + 2]
        high = (parts[:, left] == 128).sum()
        expected = (shape[wide] * spacing[wide]) / (shape[rows] * spacing[rows])
        assert (right - left) / high == pytest.approx(expected, rel=0.1)
