"""MONAI: its datasets and transforms over ``Volumes``."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

import ctrate_convert
from tests.readers.conftest import ENCODINGS, Convert
from tests.readers.documented import run_lines

monai = pytest.importorskip("monai", reason="monai is not installed", exc_type=ImportError)
torch = pytest.importorskip("torch", reason="torch is not installed", exc_type=ImportError)

NIFTI = ("nii.gz", "nii")


@pytest.mark.parametrize("kind", ["Dataset", "CacheDataset"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_transforms(convert: Convert, encoding: str, kind: str) -> None:
    """Oriented and scaled as nibabel and numpy have it from the source files."""
    converted = convert(encoding, NIFTI)
    names = run_lines("MONAI")
    dataset = names["dataset"]
    if kind == "CacheDataset":
        dataset = monai.data.CacheDataset(dataset.data, dataset.transform, num_workers=1)
    assert len(dataset) == 8
    for key, item in zip(names["volumes"], dataset, strict=True):
        image = nibabel.as_closest_canonical(nibabel.load(converted.made.sources[key]))
        tensor = item["image"]
        assert isinstance(tensor, monai.data.MetaTensor)
        assert np.allclose(tensor.affine, image.affine, atol=1e-4)
        stored = ctrate_convert.Volumes(converted.out)[key].json
        hu = image.get_fdata() * (stored["hu_slope"] or 1) + stored["hu_intercept"]
        expected = np.clip(hu / 1000, -1, 1)
        assert np.allclose(tensor[0].numpy(), expected, atol=1e-6)
        assert item["labels"].tolist() == list(stored["labels"].values())


def test_a_loader_with_workers(convert: Convert) -> None:
    """In worker processes, in batches."""
    convert("b2nd", NIFTI)
    dataset = run_lines("MONAI")["dataset"]
    loader = monai.data.DataLoader(dataset, batch_size=2, num_workers=2)
    assert sum(len(batch["labels"]) for batch in loader) == 8


def test_a_volume_without_affine(convert: Convert) -> None:
    """Its trap: an affine is never guessed, and MONAI calls it an error of the transform."""
    convert(kinds=("data",))
    with pytest.raises(RuntimeError, match="applying transform") as raised:
        _ = run_lines("MONAI")["dataset"][0]
    assert isinstance(raised.value.__cause__, ctrate_convert.SampleError)
