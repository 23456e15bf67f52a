"""What readers are told of geometry and units: as nibabel and SimpleITK have it, or an error."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

import ctrate_convert
from ctrate_convert import SampleError, Volumes, open_dataset
from ctrate_convert.reading.volumes import Sample
from ctrate_convert.store.records.geometry import Axes
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from tests.support import Array, Converted, convert_here, run_here
from tests.unit.deleting.scenes import Make

SHAPE = (20, 24, 12)
"""Rows, columns, slices."""


@pytest.fixture(scope="module", params=["npy", "npy.gz", "b2nd"])
def nifti(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """Four NIfTI volumes."""
    folder = tmp_path_factory.mktemp("nifti")
    made = write_synthetic_ctrate(folder / "in", samples=4, shape=SHAPE, kinds=("nii.gz", "nii"))
    return convert_here(made, folder / "out", encoding=request.param)


@pytest.fixture
def npz(make_ctrate: Make, tmp_path: Path) -> Converted:
    """One NPZ of each kind, with and without an affine."""
    kinds = ("volume", "arr_0", "data", "resampled", "bare")
    return convert_here(make_ctrate(5, shape=SHAPE, kinds=kinds), tmp_path / "out")


def image_of(made: SyntheticCtRate, key: str) -> Any:
    return nibabel.load(made.sources[key])


def affine_of(sample: Sample) -> Array:
    assert sample.affine is not None
    return sample.affine


def test_as_stored(nifti: Converted) -> None:
    """Affine, spacing and axes are those of the array that is given."""
    for key, sample in Volumes(nifti.out).items():
        image = image_of(nifti.made, key)
        assert sample.axes == "zyx"
        assert np.allclose(affine_of(sample)[:, [2, 1, 0, 3]], image.affine)
        assert np.allclose(sample.spacing[::-1], image.header.get_zooms())
        assert np.array_equal(np.asarray(sample.array).T, np.asanyarray(image.dataobj))


@pytest.mark.parametrize("axes", ["xyz", "yxz", "zyx"])
def test_other_axes(nifti: Converted, axes: Any) -> None:
    """Array, slices, affine and spacing are turned alike."""
    order = ["xyz".index(axis) for axis in axes]
    for key, sample in Volumes(nifti.out, axes=axes).items():
        image = image_of(nifti.made, key)
        expected = np.asanyarray(image.dataobj).transpose(order)
        assert sample.axes == axes
        assert sample.array.shape == expected.shape
        assert np.array_equal(sample.array, expected)
        assert np.array_equal(sample.array[3:9:2, -4, ::-1], expected[3:9:2, -4, ::-1])
        assert np.asarray(sample.array).flags["C_CONTIGUOUS"]
        assert np.allclose(affine_of(sample), image.affine[:, [*order, 3]])
        assert np.allclose(sample.spacing, np.array(image.header.get_zooms())[order])


@pytest.mark.parametrize("axes", ["", "xyz", "yxz"])
def test_images(nifti: Converted, axes: Any) -> None:
    """A voxel lies at the same place, with the same value, whatever the axes are."""
    for key, sample in Volumes(nifti.out, axes=axes).items():
        image = image_of(nifti.made, key)
        ours = sample.to_nibabel()
        assert np.allclose(ours.affine, affine_of(sample))
        assert np.array_equal(ours.get_fdata(), sample.hu())
        # SimpleITK resamples ours onto the file's grid: nearest neighbours are the voxels.
        theirs = SimpleITK.ReadImage(str(nifti.made.sources[key]))
        turned = SimpleITK.Resample(
            sample.to_sitk(), theirs, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor
        )
        assert np.array_equal(
            SimpleITK.GetArrayFromImage(turned), SimpleITK.GetArrayFromImage(theirs)
        )
        if not axes:
            assert np.allclose(sample.to_sitk().GetOrigin(), theirs.GetOrigin(), atol=1e-4)
            assert np.allclose(sample.to_sitk().GetDirection(), theirs.GetDirection(), atol=1e-6)
        assert np.array_equal(image.get_fdata().min(), sample.hu().min())


def test_a_metatensor(nifti: Converted) -> None:
    for name in ("torch", "monai"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    for key, sample in Volumes(nifti.out).items():
        tensor = sample.to_metatensor()
        assert tensor.shape == (1, *sample.array.shape), key
        assert np.allclose(tensor.affine, affine_of(sample))
        assert np.array_equal(tensor[0].numpy(), sample.hu())


def hounsfield(made: SyntheticCtRate, key: str) -> Array:
    """The volume in HU, from its file and what the kind means."""
    kind = made.kinds[key]
    with np.load(made.sources[key]) as arrays:
        name = {"resampled": "volume", "bare": "arr_0"}.get(kind, kind)
        stored: Array = arrays[name].astype(np.float64)
    if kind in ("arr_0", "bare"):
        return stored * 1000
    if kind == "data":
        intercept = float(Volumes(made.data_folder.parents[1] / "out")[key].json["metadata"][
            "RescaleIntercept"
        ])  # fmt: skip
        return stored + intercept
    return stored


def test_hounsfield_units(npz: Converted) -> None:
    """Raw values, HU and HU/1000 all become HU, for the evidence that the JSON names."""
    for key, sample in Volumes(npz.out, units="hu").items():
        expected = hounsfield(npz.made, key)
        assert sample.array.dtype == np.float32
        assert np.allclose(sample.array, expected, atol=0.3), npz.made.kinds[key]
        assert np.array_equal(sample.hu(), sample.array)
        fields = sample.json
        stored = np.asarray(Volumes(npz.out)[key].array, np.float64)
        assert np.allclose(stored * fields["hu_slope"] + fields["hu_intercept"], sample.array)
        assert fields["hu_from"].startswith("the voxels")


def test_what_is_not_known_is_refused(npz: Converted) -> None:
    """No affine, no axes, no HU: an error that names the sample, never a guess."""
    made = npz.made
    keys = {kind: key for key, kind in made.kinds.items()}
    bare = Volumes(npz.out)[keys["bare"]]
    assert (bare.affine, bare.spacing, bare.axes) == (None, (), "")
    for give in (bare.to_nibabel, bare.to_sitk, bare.to_metatensor):
        with pytest.raises(SampleError, match=r"place and orientation are not known \(train_"):
            give()
    with pytest.raises(SampleError, match="not known what this volume's axes are"):
        _ = Volumes(npz.out, axes="zyx")[keys["bare"]].array
    with pytest.raises(SampleError, match="axes are"):
        list(open_dataset(npz.out, axes="zyx", keys=[keys["bare"]]))


def test_units_that_the_voxels_do_not_show(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(1, kinds=("data",))
    noise = np.random.default_rng(1).integers(5000, 6000, SHAPE).astype(np.int16)
    np.savez(made.sources[made.keys[0]], data=noise)
    converted = convert_here(made, tmp_path / "out")
    sample = Volumes(converted.out)[made.keys[0]]
    fields = sample.json
    assert (fields["hu_slope"], fields["hu_intercept"], fields["hu_from"]) == (0.0, 0.0, "")
    with pytest.raises(SampleError, match="become Hounsfield units"):
        sample.hu()
    with pytest.raises(SampleError, match="become Hounsfield units"):
        list(open_dataset(converted.out, units="hu"))


def test_crops_in_units_and_axes(nifti: Converted) -> None:
    """A crop has its place and its padding in the axes and the unit that were asked for."""
    axes: Axes
    for axes in ("", "xyz"):
        for one in open_dataset(nifti.out, units="hu", axes=axes, crop=(8, 40, 10), seed=1):
            whole = Volumes(nifti.out, axes=axes)[one["__key__"]].hu()
            padded = np.pad(whole, 40, constant_values=whole.min())
            start = one["origin"] + 40
            place = tuple(slice(at, at + size) for at, size in zip(start, (8, 40, 10), strict=True))
            assert one["array"].dtype == np.float32
            assert np.array_equal(one["array"], padded[place])


def test_earlier_records_tell_units_by_their_intensity(npz: Converted) -> None:
    """A record without the new fields: HU from the scale that the voxels showed; no axes."""
    for index in range(len(npz.plan.shards)):
        path = npz.dataset.record(index)
        record = json.loads(path.read_bytes())
        for sample in record["samples"]:
            del sample["geometry"]
            for name in ("hu_slope", "hu_intercept", "hu_from"):
                del sample["array"][name]
        path.write_bytes(json.dumps(record).encode())
    npz.dataset.manifest.unlink()
    assert run_here("merge", npz.out).code == 0
    for key, sample in Volumes(npz.out).items():
        assert sample.axes == ""
        assert np.allclose(sample.hu(), hounsfield(npz.made, key), atol=0.3)


def _in_a_process(data: bytes, key: str) -> float:
    return float(pickle.loads(data)[key].hu().sum())  # noqa: S301 - made by this test


def test_pickled_and_read_elsewhere(nifti: Converted) -> None:
    volumes = Volumes(nifti.out, units="hu", axes="xyz")
    key = next(iter(volumes))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_in_a_process, (pickle.dumps(volumes), key)) == float(
            volumes[key].hu().sum()
        )


def test_label_names_are_exported() -> None:
    assert len(ctrate_convert.LABEL_NAMES) == 18
    assert ctrate_convert.LABEL_NAMES[0] == "Medical material"
