"""NIfTI through the command line: HU, affine and axes as nibabel and SimpleITK have them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK

from ctrate_convert import Volumes
from ctrate_convert.errors import ExitCode
from ctrate_convert.reading.volumes import Sample
from ctrate_convert.synthetic import SyntheticCtRate
from ctrate_convert.synthetic.phantom import chest_phantom
from tests.support import convert_words, run_here
from tests.unit.sources.made_nifti import MADE, RAS, Made

Make = Callable[..., SyntheticCtRate]

CHEST = np.ascontiguousarray(
    chest_phantom((40, 44, 20), np.random.default_rng(3), padding_hu=-1024).transpose(1, 0, 2)
)
"""In HU, with the axes (x, y, z): the scale of voxels that are no chest is not known."""

NAMES = (
    "i2", "u2", "i4", "f4", "f8", "i8", "big-endian i2", "big-endian f4", "NIfTI-2",
    "NIfTI-2 big-endian", "RAS", "sagittal", "coronal", "oblique by 8°", "oblique by 40°",
    "upside down", "left-handed", "qform alone, oblique", "sform and qform", "sform unlike qform",
    "slope 0", "slope NaN", "intercept -1024", "slope 2", "slope 0.5, unsigned", "an extension",
    "voxels later", "not compressed", "not compressed, big-endian", "three members", "bgzip",
    "zeros after the end",
)  # fmt: skip
"""Of `MADE`: those that state an affine, and can hold a chest."""


def of_chest(made: Made) -> Made:
    """The same header before the chest, whose stored elements are as its slope asks."""
    dtype = made.voxels.dtype
    if dtype.kind == "u":
        made = replace(made, scl=(made.scl[0], -1024.0))
    asks = made.scl[0] != 0 and np.isfinite(made.scl[0])
    slope, intercept = made.scl if asks else (1.0, 0.0)
    stored = (CHEST - intercept) / slope
    return replace(made, voxels=(stored if dtype.kind == "f" else np.round(stored)).astype(dtype))


def check_nibabel(sample: Sample, path: Path, exact: bool) -> None:
    image: Any = nibabel.load(path)
    values = sample.hu()
    assert np.allclose(values, image.get_fdata(), rtol=0 if exact else 1e-3, atol=1e-3)
    assert sample.axes == "xyz"
    assert sample.affine is not None
    assert np.allclose(sample.affine, image.affine, rtol=0, atol=1e-4)
    assert np.allclose(sample.spacing, nibabel.affines.voxel_sizes(image.affine))
    letters = "".join(nibabel.aff2axcodes(image.affine))
    assert sample.json["orientation"] == letters[::-1]  # of the stored array: z, y, x
    assert "".join(nibabel.aff2axcodes(sample.to_nibabel().affine)) == letters


def check_simpleitk(sample: Sample, path: Path, exact: bool) -> None:
    theirs, ours = SimpleITK.ReadImage(os.fspath(path)), sample.to_sitk()
    assert np.allclose(ours.GetOrigin(), theirs.GetOrigin(), atol=1e-3)
    assert np.allclose(ours.GetSpacing(), theirs.GetSpacing(), atol=1e-4)
    assert np.allclose(ours.GetDirection(), theirs.GetDirection(), atol=1e-4)
    values = SimpleITK.GetArrayFromImage(ours)
    expected = SimpleITK.GetArrayFromImage(theirs)
    assert np.allclose(values, expected, rtol=0 if exact else 1e-3, atol=1e-3)


def test_as_nibabel_and_simpleitk_have_it(make_ctrate: Make, tmp_path: Path) -> None:
    """All headers in one conversion, each read twice: as (x, y, z), and as it is stored."""
    made = make_ctrate(len(NAMES), kinds=("nii.gz",))
    paths = {}
    for name, (key, path) in zip(NAMES, made.sources.items(), strict=True):
        one = of_chest(MADE[name])
        path.unlink()
        paths[key] = path.with_name(f"{key}{one.suffix}")
        paths[key].write_bytes(one.file())
    done = run_here(*convert_words(made, tmp_path / "out", "--probe", 0))
    assert done.code == ExitCode.DONE, done.text
    as_stored, turned = Volumes(tmp_path / "out"), Volumes(tmp_path / "out", axes="xyz")
    for name, key in zip(NAMES, made.keys, strict=True):
        exact = MADE[name].voxels.dtype.kind != "f"  # floats become float16
        fields = as_stored[key].json
        assert fields["hu_slope"], name
        assert as_stored[key].axes == fields["axes"] == "zyx"
        check_nibabel(turned[key], paths[key], exact)
        if MADE[name].sitk:
            check_simpleitk(as_stored[key], paths[key], exact)


def test_a_header_without_codes_gives_readers_no_affine(make_ctrate: Make, tmp_path: Path) -> None:
    """nibabel makes an affine up from the shape; no reader here gets one."""
    made = make_ctrate(1, kinds=("nii.gz",))
    ((key, path),) = made.sources.items()
    path.write_bytes(of_chest(Made(sform=0, qform=0)).file())
    invented: Any = nibabel.load(path)
    assert np.isfinite(invented.affine).all()
    assert run_here(*convert_words(made, tmp_path / "out", "--probe", 0)).code == ExitCode.DONE
    sample = Volumes(tmp_path / "out")[key]
    assert sample.affine is None
    assert np.allclose(sample.spacing, (1.5, 0.7, 0.7))
    assert np.array_equal(sample.hu().T, invented.get_fdata())
    assert (sample.json["affine_from"], sample.json["orientation"]) == ("", "")


def test_real_scans_as_nifti_and_as_npz(make_ctrate: Make, tmp_path: Path, real_ct: Path) -> None:
    """Each real scan, converted from both kinds of source, gives the same voxels and HU."""
    scans = sorted(real_ct.glob("*.npz"))
    found = {}
    for kind in ("nii.gz", "data"):
        made = make_ctrate(len(scans), kinds=(kind,))
        for scan, path in zip(scans, made.sources.values(), strict=True):
            with np.load(scan) as arrays:
                volume = next(arrays[name] for name in arrays.files if arrays[name].ndim == 3)
            if kind == "data":
                np.savez_compressed(path, data=volume)
            else:
                nibabel.Nifti1Image(volume, RAS).to_filename(path)
        out = tmp_path / kind
        assert run_here(*convert_words(made, out, "--probe", 0)).code == ExitCode.DONE
        samples = Volumes(out)
        found[kind] = [(np.asarray(samples[key].array), samples[key].hu()) for key in made.keys]
        for path in made.sources.values():
            path.unlink()
    for (nifti, nifti_hu), (npz, npz_hu) in zip(found["nii.gz"], found["data"], strict=True):
        assert nifti.dtype == npz.dtype
        assert np.array_equal(nifti.T, npz)
        assert np.array_equal(nifti_hu.T, npz_hu)
