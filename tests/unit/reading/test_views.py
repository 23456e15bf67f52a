"""Views while reading: the arrays are those of the recipe, for every encoding and layout."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from ctrate_convert import SampleError, SettingsError, Volumes, open_dataset
from ctrate_convert.formats.geometry import table_spacing_mm
from ctrate_convert.store.records.plan import Encoding
from ctrate_convert.store.records.recipe import Recipe, Size
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from ctrate_convert.views.presets import presets
from ctrate_convert.views.view import facts_of
from tests.support import Array, Converted, convert_here
from tests.unit.views import reference

Make = Callable[..., SyntheticCtRate]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
SHAPE = (90, 84, 37)
SIZE = Size(x=70, y=72, z=30)


def small(name: str, **more: Any) -> Recipe:
    return presets()[name].model_copy(update={"size": SIZE, **more})


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCtRate:
    """Volumes in HU, raw and as HU/1000; one of them has no spacing."""
    return write_synthetic_ctrate(tmp_path_factory.mktemp("ctrate"), samples=5, shape=SHAPE)


@pytest.fixture(scope="module", params=[(e, "webdataset") for e in ENCODINGS] + [("npy", "ctclip")])
def way(
    request: pytest.FixtureRequest, both: SyntheticCtRate, tmp_path_factory: pytest.TempPathFactory
) -> Converted:
    encoding, layout = request.param
    out = tmp_path_factory.mktemp("out") / "out"
    return convert_here(both, out, encoding=encoding, layout=layout, samples_per_shard=3)


def known(converted: Converted) -> list[str]:
    """The samples that there is a view of."""
    return [key for key in converted.made.keys if key != converted.made.without_spacing]


def expected(converted: Converted, key: str, clip: str) -> Array:
    """CT-CLIP's array in float64, from the voxels by `hu` and from the table."""
    sample = Volumes(converted.out)[key]
    hu = np.asarray(sample.hu(), np.float64)
    xyz = hu.transpose([sample.axes.index(axis) for axis in "xyz"])
    x_mm, _, z_mm = table_spacing_mm(sample.json["metadata"])
    return reference.ctclip(xyz, x_mm, z_mm, clip=clip, target=(SIZE.x, SIZE.y, SIZE.z))


def test_a_view_is_the_original_array(way: Converted) -> None:
    """For every kind of source, encoding and layout, by key and through the pipeline."""
    for name, clip in (("ctclip", "after"), ("ctclip-inference", "before")):
        volumes = Volumes(way.out, view=small(name))
        dataset = open_dataset(way.out, view=small(name), keys=known(way))
        piped = {sample["__key__"]: sample for sample in dataset}
        assert list(piped) == known(way)
        for key in known(way):
            golden = expected(way, key, clip)
            array = volumes[key].array
            found = np.asarray(array)
            assert array.shape == found.shape == golden.shape
            assert array.dtype == found.dtype == np.int16
            assert np.abs(found - golden).max() <= 0.501
            assert np.array_equal(piped[key]["array"], found)
            assert piped[key]["origin"].tolist() == [0, 0, 0]


def test_an_index_and_a_crop_are_parts_of_the_view(way: Converted) -> None:
    volumes = Volumes(way.out, view=small("ctclip-modern"))
    key = known(way)[0]
    array = volumes[key].array
    whole = np.asarray(array)
    assert np.array_equal(array[5], whole[5])
    assert np.array_equal(array[2:60:7, ::-3, 4], whole[2:60:7, ::-3, 4])
    assert array[1:1].shape == whole[1:1].shape
    for crop in ((20, 24, 16), (80, 24, 40)):
        dataset = open_dataset(
            way.out, view=small("ctclip-modern"), crop=crop, seed=3, keys=known(way)
        )
        for sample in dataset:
            view = np.pad(np.asarray(volumes[sample["__key__"]].array), 50, constant_values=-1.0)
            place = tuple(
                slice(50 + start, 50 + start + size)
                for start, size in zip(sample["origin"].tolist(), crop, strict=True)
            )
            assert sample["array"].shape == crop
            assert np.array_equal(sample["array"], view[place])


def test_a_view_tells_its_place(way: Converted) -> None:
    volumes = Volumes(way.out, view=small("hlip"))
    for key in known(way):
        sample = volumes[key]
        told = sample.json["view"]
        assert sample.axes == told["axes"] == "zyx"
        assert sample.spacing == tuple(told["spacing_axes_mm"])
        assert told["recipe_id"] == small("hlip").recipe_id
        assert tuple(told["shape"]) == sample.array.shape == (SIZE.z, SIZE.y, SIZE.x)
        native = Volumes(way.out, axes="zyx")[key]
        # The true spacing is in·c/out: the volume keeps its extent.
        extent = [n * c for n, c in zip(native.array.shape, native.spacing, strict=True)]
        out = [n * c for n, c in zip(told["resampled_shape"], sample.spacing, strict=True)]
        assert out == pytest.approx(extent)
        hu = sample.hu()
        assert hu.dtype == np.float32 and np.array_equal(hu, np.asarray(sample.array))
        (piped,) = open_dataset(way.out, view=small("hlip"), keys=[key])
        assert piped["json"]["view"] == told
        assert json.loads(json.dumps(told)) == told


def test_hounsfield_units_of_every_output(way: Converted) -> None:
    key = known(way)[0]
    golden = expected(way, key, "after")
    for output, most in (("int16", 0.501), ("float16", 0.251), ("uint8", 3.93)):
        sample = Volumes(way.out, view=small("ctclip", output=output))[key]
        assert sample.array.dtype == output
        assert np.abs(sample.hu() - golden).max() <= most


def test_a_view_without_size_is_as_large_as_its_volume(way: Converted) -> None:
    recipe = small("ctclip").model_copy(update={"size": None, "pad_hu": None})
    for key in known(way):
        sample = Volumes(way.out, view=recipe)[key]
        assert list(sample.array.shape) == sample.json["view"]["resampled_shape"]
    # What a larger crop adds is the smallest value, in the window.
    (padded,) = open_dataset(way.out, view=recipe, keys=[known(way)[0]], crop=(200, 200, 200))
    smallest = max(-1000, Volumes(way.out)[known(way)[0]].hu().min())
    assert padded["array"][0, 0, 0] == round(float(smallest))


def test_a_volume_without_spacing_is_refused_by_name(way: Converted) -> None:
    key = way.made.without_spacing
    sample = Volumes(way.out, view="ctclip")[key]
    for read in (
        lambda: sample.array, lambda: sample.json, lambda: sample.spacing, lambda: sample.hu(),
        lambda: list(open_dataset(way.out, view="ctclip", keys=[key])),
    ):  # fmt: skip
        with pytest.raises(SampleError, match=f"spacing.*{key}"):
            read()
    assert sample.report and sample.labels.shape == (18,)  # the rest of it can be read


FIELDS: dict[str, Any] = {
    "axes": "zyx", "spacing_axes_mm": [1.0, 0.7, 0.7], "grid": "native", "hu_slope": 1.0,
    "hu_intercept": 0.0, "metadata": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"axes": ""}, "axes"),
        ({"spacing_axes_mm": []}, "spacing"),
        ({"spacing_axes_mm": [1.0, 0.0, 1.0]}, "spacing"),
        ({"grid": "resampled"}, "resampled"),
        ({"hu_slope": 0.0}, "intensity is unknown"),
    ],
)
def test_what_is_not_known_is_named(changed: dict[str, Any], why: str) -> None:
    facts_of(FIELDS, "one", (3, 3, 3))
    with pytest.raises(SampleError, match=why) as refused:
        facts_of({**FIELDS, **changed}, "one", (3, 3, 3))
    assert refused.value.where == "one"


def test_resampled_volumes_and_unknown_axes_are_refused(make_ctrate: Make, tmp_path: Path) -> None:
    """As they come from real sources: one that tells its other grid, and one that tells nothing."""
    made = make_ctrate(2, kinds=("resampled", "bare"), shape=(24, 20, 12))
    converted = convert_here(made, tmp_path / "out")
    reasons = []
    for sample in Volumes(converted.out, view="ctclip").values():
        with pytest.raises(SampleError) as refused:
            _ = sample.array
        reasons.append(refused.value.what)
    assert "resampled" in reasons[0] and "axes" in reasons[1]


def test_axes_that_nothing_tells_may_be_assumed(make_ctrate: Make, tmp_path: Path) -> None:
    """A square NPZ: rows or columns first? Who knows says so, and the sample keeps it."""
    made = make_ctrate(3, kinds=("data",), shape=(40, 40, 21))
    converted = convert_here(made, tmp_path / "out")
    native = Volumes(converted.out)
    told = Volumes(converted.out, view=small("ctclip"), assume_axes="yxz")
    wrong = Volumes(converted.out, view=small("ctclip"), assume_axes="zyx")
    for key in known(converted):
        assert native[key].axes == ""
        with pytest.raises(SampleError, match="axes"):
            _ = Volumes(converted.out, view=small("ctclip"))[key].array
        with pytest.raises(SampleError, match="contradict the table"):
            _ = wrong[key].array
        x_mm, _, z_mm = table_spacing_mm(native[key].json["metadata"])
        xyz = np.asarray(native[key].hu()).transpose(1, 0, 2)
        golden = reference.ctclip(xyz, x_mm, z_mm, clip="after", target=(SIZE.x, SIZE.y, SIZE.z))
        assert np.abs(np.asarray(told[key].array) - golden).max() <= 0.501
        assert told[key].json["view"]["assumed_axes"] == "yxz"


def test_axes_that_are_told_are_not_assumed(way: Converted) -> None:
    key = known(way)[0]
    assumed = Volumes(way.out, view=small("ctclip"), assume_axes="xyz")[key]
    plain = Volumes(way.out, view=small("ctclip"))[key]
    assert plain.json["view"]["assumed_axes"] == assumed.json["view"]["assumed_axes"] == ""
    assert np.array_equal(assumed.array[...], plain.array[...])


def test_the_tables_spacing_in_all_its_digits() -> None:
    """0.8 mm in a NIfTI is 0.800000012: 300 slices would be 160 and not the original's number."""
    told = {"metadata": {"XYSpacing": "[0.7, 0.7]", "ZSpacing": "0.8"}}
    single = [float(np.float32(one)) for one in (0.8, 0.7, 0.7)]
    assert facts_of({**FIELDS, **told, "spacing_axes_mm": single}, "", (3, 3, 3)).spacing_mm == (
        0.8, 0.7, 0.7,
    )  # fmt: skip
    other = [0.9, 0.71, 0.7]
    assert facts_of({**FIELDS, **told, "spacing_axes_mm": other}, "", (3, 3, 3)).spacing_mm == (
        0.9, 0.71, 0.7,
    )  # fmt: skip


def test_nifti_gives_the_same_view_as_npz(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(2, kinds=("nii.gz",), shape=SHAPE)
    converted = convert_here(made, tmp_path / "out", source="nifti")
    for key, sample in Volumes(converted.out, view=small("ctclip")).items():
        if key != made.without_spacing:
            golden = expected(converted, key, "after")
            assert np.abs(np.asarray(sample.array) - golden).max() <= 0.501
        image = sample.to_nibabel()
        assert image.shape == sample.array.shape
        assert sample.affine is not None and np.allclose(image.affine, sample.affine)


@pytest.mark.parametrize(
    "arguments",
    [
        {"view": "ctclip", "units": "hu"},
        {"view": "ctclip", "units": "source"},
        {"view": "ctclip", "axes": "zyx"},
        {"view": "nonsense"},
        {"assume_axes": "yxz"},
        {"view": "ctclip", "assume_axes": "zxy"},
        {"view": ""},
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    arguments: dict[str, Any], converted: Converted
) -> None:
    for reader in (Volumes, open_dataset):
        with pytest.raises(SettingsError):
            reader(converted.out, **arguments)


def test_volumes_with_a_view_can_be_pickled(converted: Converted) -> None:
    data = pickle.dumps(Volumes(converted.out, view=small("ctclip")))
    volumes = pickle.loads(data)  # noqa: S301 - our own
    key = known(converted)[0]
    again = Volumes(converted.out, view=small("ctclip"))[key].array
    assert np.array_equal(volumes[key].array[...], again[...])
