"""Volumes of different shapes make batches: one size for all, padded with what is asked for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert import SettingsError, Volumes, open_dataset
from ctrate_convert.store.records.recipe import Size
from ctrate_convert.synthetic import write_synthetic_ctrate
from ctrate_convert.views.presets import presets
from tests.support import Array, Converted, convert_here, same_voxels

SIZE = (24, 20, 30)


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """Volumes whose axes are not all in the same order, so that their shapes differ."""
    made = write_synthetic_ctrate(tmp_path_factory.mktemp("in"), samples=8, shape=(16, 26, 28))
    return convert_here(made, tmp_path_factory.mktemp("out") / "out", samples_per_shard=3)


def centred(array: Array, size: tuple[int, ...], pad: float) -> Array:
    """By numpy alone: pad on all sides, then cut around the middle."""
    padded = np.pad(array, 40, constant_values=pad)
    place = tuple(
        slice(40 + (n - m) // 2, 40 + (n - m) // 2 + m)
        for n, m in zip(array.shape, size, strict=True)
    )
    return padded[place]


def test_one_size_makes_batches_of_whole_volumes(way: Converted) -> None:
    volumes = Volumes(way.out)
    assert len({sample.array.shape for sample in volumes.values()}) > 1
    for sample in open_dataset(way.out, size=SIZE):
        whole = np.asarray(volumes[sample["__key__"]].array)
        assert same_voxels(sample["array"], centred(whole, SIZE, whole.min()))
    batches = list(open_dataset(way.out, size=SIZE, units="source").to_tuple("array").batched(4))
    assert [array.shape for (array,) in batches] == [(4, *SIZE)] * 2


def test_size_is_the_crop_in_the_middle(way: Converted) -> None:
    ways = (
        open_dataset(way.out, size=SIZE),
        open_dataset(way.out, crop=SIZE, crop_at="center"),
    )
    for one, other in zip(*ways, strict=True):
        assert one["__key__"] == other["__key__"]
        assert same_voxels(one["array"], other["array"])
        assert one["origin"].tolist() == other["origin"].tolist()


def test_pad_is_in_the_unit_of_the_arrays(way: Converted) -> None:
    volumes = Volumes(way.out)
    for sample in open_dataset(way.out, size=SIZE, pad=-2000):
        whole = np.asarray(volumes[sample["__key__"]].array)
        assert same_voxels(sample["array"], centred(whole, SIZE, -2000))
    for sample in open_dataset(way.out, crop=SIZE, pad=0.25, units="source"):
        outside = sample["array"].ravel()[[0, -1]]
        assert outside.tolist() == [0.25, 0.25]


def test_a_view_is_padded_with_what_was_asked_for(tmp_path: Path) -> None:
    made = write_synthetic_ctrate(tmp_path / "in", samples=4, shape=(40, 44, 30))
    way = convert_here(made, tmp_path / "out")
    key = next(key for key in made.keys if key != made.without_spacing)
    recipe = presets()["hlip"].model_copy(update={"size": Size(x=20, y=20, z=10)})
    whole = np.asarray(Volumes(way.out, view=recipe)[key].array)
    for pad, seen in ((None, recipe.pad_hu), (-3, -3)):
        (sample,) = open_dataset(way.out, view=recipe, size=(12, 20, 20), pad=pad, keys=[key])
        assert set(sample["array"][[0, -1]].ravel().tolist()) == {seen}
        assert same_voxels(sample["array"][1:-1], whole)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"size": SIZE, "crop": SIZE}, "crop="),
        ({"size": (1, 2)}, "size is not a shape"),
        ({"pad": 0}, "needs a shape"),
        ({"size": SIZE, "pad": "0"}, "pad is no number"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    way: Converted, more: dict[str, Any], match: str
) -> None:
    with pytest.raises(SettingsError, match=match):
        open_dataset(way.out, **more)
    with pytest.raises(SettingsError, match=match):
        Volumes(way.out).dataset(**more)


@pytest.mark.parametrize("pad", [0.5, 40_000, float("nan"), float("inf")])
def test_a_pad_that_the_arrays_cannot_hold_is_named(way: Converted, pad: float) -> None:
    """int16 would wrap around or lose the fraction."""
    integers = [key for key, one in Volumes(way.out).items() if one.array.dtype == np.int16]
    with pytest.raises(SettingsError, match="does not fit the arrays"):
        list(open_dataset(way.out, size=(60, 60, 60), pad=pad, keys=integers))


@pytest.mark.parametrize("pad", [1e39, -1e39, float("inf"), 10**50])
def test_a_pad_that_floats_cannot_hold_is_named(way: Converted, pad: float) -> None:
    """It would become infinite."""
    with pytest.raises(SettingsError, match=r"does not fit the arrays .* float32"):
        list(open_dataset(way.out, size=(60, 60, 60), pad=pad, units="source"))
    floats = [key for key, one in Volumes(way.out).items() if one.array.dtype == np.float16]
    with pytest.raises(SettingsError, match="float16"):
        list(open_dataset(way.out, size=(60, 60, 60), pad=70_000, keys=floats))


# --- By number ----------------------------------------------------------------------------------


def test_a_number_gives_the_sample_at_once(way: Converted) -> None:
    """In the order of the keys, from either end, with the entries that collate."""
    volumes = Volumes(way.out)
    for number, key in enumerate(volumes):
        for found in (volumes[number], volumes[number - len(volumes)], volumes.dataset()[number]):
            assert found["__key__"] == key
            assert same_voxels(found["array"], np.asarray(volumes[key].array))
            assert found["labels"].tolist() == volumes[key].labels.tolist()
            assert found["report"] == volumes[key].report
            assert found["origin"].tolist() == [0, 0, 0]
            assert set(found) == {"__key__", "array", "origin", "labels", "report"}
    for outside in (len(volumes), -len(volumes) - 1):
        with pytest.raises(IndexError, match=f"no sample {outside}: {len(volumes)} samples"):
            volumes[outside]
        assert volumes.get(outside) is None and volumes.get(outside, 5) == 5
    assert volumes.get(0)["__key__"] == volumes.get(next(iter(volumes))).key
    assert volumes.get(np.int64(len(volumes))) is None and volumes.get("nobody") is None


def test_the_mapping_still_is_one_of_keys(way: Converted) -> None:
    volumes = Volumes(way.out)
    assert list(volumes) == list(way.made.keys)
    number: Any = 0
    assert number not in volumes and next(iter(volumes)) in volumes
    with pytest.raises(KeyError):
        volumes["0"]
    again = pickle.loads(pickle.dumps(volumes))  # noqa: S301 - our own
    assert again[0]["__key__"] == volumes[0]["__key__"]


def test_a_seeded_dataset_depends_on_number_and_epoch_alone(way: Converted) -> None:
    """Any order, any process: the same crop, until the epoch changes."""
    dataset = Volumes(way.out).dataset(crop=(3, 4, 5), seed=7)
    forwards = [dataset[n]["origin"].tolist() for n in range(len(dataset))]
    other = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - our own
    backwards = [other[n]["origin"].tolist() for n in reversed(range(len(other)))]
    assert forwards == backwards[::-1]
    assert len({tuple(origin) for origin in forwards}) > 1
    dataset.set_epoch(1)
    assert forwards != [dataset[n]["origin"].tolist() for n in range(len(dataset))]
    wrong: Any
    for wrong in (-1, 1.5):
        with pytest.raises(SettingsError, match="epoch"):
            dataset.set_epoch(wrong)
        with pytest.raises(SettingsError, match="seed"):
            Volumes(way.out).dataset(seed=wrong)
    fresh = Volumes(way.out).dataset(crop=(3, 4, 5))
    assert len({tuple(fresh[0]["origin"]) for _ in range(20)}) > 1
