"""Torch's own loaders: tensors that no process copies, and samplers over numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from ctrate_convert import DamageError, SampleError, SettingsError, Volumes, open_dataset
from ctrate_convert.reading.items.tensors import Tensors
from ctrate_convert.store.records.plan import Encoding
from ctrate_convert.store.records.recipe import Size
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from ctrate_convert.views.presets import presets
from tests.support import Converted, convert_here

SHAPE = (40, 44, 36)


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCtRate:
    """Six volumes of all kinds of NPZ, whose shapes differ by their axes."""
    return write_synthetic_ctrate(tmp_path_factory.mktemp("in"), samples=6, shape=SHAPE)


@pytest.fixture(scope="module", params=get_args(Encoding))
def way(
    request: pytest.FixtureRequest, made: SyntheticCtRate, tmp_path_factory: pytest.TempPathFactory
) -> Converted:
    out = tmp_path_factory.mktemp("out") / "out"
    return convert_here(made, out, samples_per_shard=2, encoding=request.param)


@pytest.fixture(scope="module")
def plain(made: SyntheticCtRate, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert_here(made, tmp_path_factory.mktemp("out") / "plain", samples_per_shard=2)


def inode(tensor: Any) -> tuple[int, int]:
    """The file in which a tensor's shared memory lies; the same one in every process."""
    descriptor, _ = tensor.untyped_storage()._share_fd_cpu_()
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def seen_in_the_worker(sample: dict[str, Any]) -> dict[str, Any]:
    array = sample["array"]
    return {**sample, "shared": array.is_shared(), "inode": inode(array)}


def kept(batch: Any) -> Any:
    return batch


# --- Tensors ------------------------------------------------------------------------------------


def ways_of_asking(way: Converted) -> Iterator[dict[str, Any]]:
    yield {}
    yield {"units": "source"}
    yield {"units": "source", "size": (50, 30, 40)}
    yield {"crop": (9, 10, 11), "seed": 1, "crops_per_volume": 3}
    if way.plan.settings.encoding == "npy":
        keys = [key for key in way.originals if key != way.made.without_spacing]
        for output in ("int16", "uint8", "float16"):
            recipe = presets()["hlip"].model_copy(
                update={"size": Size(x=30, y=32, z=12), "output": output}
            )
            yield {"view": recipe, "keys": keys}


def test_tensors_hold_the_same_voxels(way: Converted, torch: Any) -> None:
    """In the main process they are ordinary tensors of every type that arrays have."""
    for ask in ways_of_asking(way):
        for one, other in zip(
            open_dataset(way.out, **ask), open_dataset(way.out, tensors=True, **ask), strict=True
        ):
            array, tensor = one["array"], other["array"]
            assert isinstance(tensor, torch.Tensor) and tensor.is_contiguous()
            assert not tensor.is_shared()
            assert tensor.numpy().dtype == array.dtype and tuple(tensor.shape) == array.shape
            assert np.array_equal(tensor.numpy(), array)
            assert one["origin"].tolist() == other["origin"].tolist()


def test_a_worker_hands_over_its_memory(way: Converted, torch: Any) -> None:
    """What the main process gets is the very memory that the worker read into, and the voxels."""
    hand_over(way, torch, "fork")


def test_a_worker_that_was_spawned_hands_over_its_memory(plain: Converted, torch: Any) -> None:
    hand_over(plain, torch, "spawn")


def hand_over(way: Converted, torch: Any, start: str) -> None:
    volumes = Volumes(way.out)
    dataset = open_dataset(way.out, tensors=True).map(seen_in_the_worker)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context=start, collate_fn=kept
    )
    keys = []
    for sample in loader:
        keys.append(sample["__key__"])
        assert sample["shared"] and sample["array"].is_shared()
        assert sample["inode"] == inode(sample["array"])
        expected = np.asarray(volumes[sample["__key__"]].array)
        assert np.array_equal(sample["array"].numpy(), expected)
    assert sorted(keys) == sorted(way.originals)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_torch_collates_tensors(plain: Converted, torch: Any, batch_size: int | None) -> None:
    """With torch's own collation, one by one and in batches."""
    ask: dict[str, Any] = {"size": (30, 40, 40), "units": "source"}
    expected = {s["__key__"]: s["array"] for s in open_dataset(plain.out, **ask)}
    dataset = open_dataset(plain.out, tensors=True, **ask)
    loader = torch.utils.data.DataLoader(
        dataset.to_tuple("array", "labels", "__key__"),
        batch_size=batch_size, num_workers=2, multiprocessing_context="fork",
    )  # fmt: skip
    found: dict[str, Any] = {}
    for arrays, labels, keys in loader:
        assert arrays.is_shared() and arrays.dtype == torch.float32
        assert labels.shape == (18,) if batch_size is None else labels.shape[1:] == (18,)
        found |= {keys: arrays} if batch_size is None else dict(zip(keys, arrays, strict=True))
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key].numpy(), expected[key]) for key in expected)


def test_a_view_is_resampled_into_shared_memory(plain: Converted, torch: Any) -> None:
    """Of int16, uint8 and float16."""
    keys = [key for key in plain.originals if key != plain.made.without_spacing]
    for output in ("int16", "uint8", "float16"):
        recipe = presets()["ctclip"].model_copy(
            update={"size": Size(x=30, y=32, z=12), "output": output}
        )
        volumes = Volumes(plain.out, view=recipe)
        dataset = open_dataset(plain.out, view=recipe, keys=keys, tensors=True)
        loader = torch.utils.data.DataLoader(
            dataset.map(seen_in_the_worker), batch_size=None, num_workers=1, collate_fn=kept
        )
        for sample in loader:
            assert sample["shared"] and sample["inode"] == inode(sample["array"])
            expected = np.asarray(volumes[sample["__key__"]].array)
            assert np.array_equal(sample["array"].numpy(), expected)
            assert sample["array"].numpy().dtype == np.dtype(output)


def test_every_type_of_array_has_its_tensor(torch: Any) -> None:
    for dtype in (np.int16, np.float16, np.uint8, np.int32, np.float32):
        tensor, values = Tensors().make((2, 3, 4), np.dtype(dtype))
        values[...] = np.arange(24).reshape(2, 3, 4)
        assert values.flags.c_contiguous and values.dtype == dtype
        assert tensor.shape == (2, 3, 4) and np.array_equal(tensor.numpy(), values)


def test_an_error_in_a_worker_is_the_readers(plain: Converted, torch: Any) -> None:
    recipe = presets()["hlip"]
    loader = torch.utils.data.DataLoader(
        open_dataset(plain.out, view=recipe, tensors=True, keys=[plain.made.without_spacing]),
        batch_size=None, num_workers=1,
    )  # fmt: skip
    with pytest.raises(SampleError, match="spacing"):
        list(loader)


def test_an_error_in_a_worker_tells_the_next_command(converted: Converted, torch: Any) -> None:
    """torch makes it anew from its text, so the text has to hold the command."""
    dataset = open_dataset(converted.out)
    for shard in converted.out.glob("*.tar"):
        shard.chmod(0o644)
        os.truncate(shard, 512)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1)
    with pytest.raises(DamageError) as caught:
        list(loader)
    assert f"Next: ctrate-convert verify {converted.out} --full" in str(caught.value)


def test_without_torch_tensors_are_refused_at_once(plain: Converted) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import ctrate_convert\n"
        "for opened in (ctrate_convert.open_dataset, lambda out, **more:"
        " ctrate_convert.Volumes(out).dataset(**more)):\n"
        "    try: opened(sys.argv[1], tensors=True)\n"
        "    except ctrate_convert.SettingsError as error: print(error)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(plain.out)], capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines() == ["tensors=True needs torch, which is not installed"] * 2


# --- Volumes by number --------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_volumes_are_a_map_style_dataset(plain: Converted, torch: Any, start: str) -> None:
    """As they are, in the order of the keys, with workers."""
    volumes = Volumes(plain.out)
    loader = torch.utils.data.DataLoader(
        volumes, batch_size=1, num_workers=2, multiprocessing_context=start
    )
    found = list(loader)
    assert [key for batch in found for key in batch["__key__"]] == list(volumes)
    for batch in found:
        expected = np.asarray(volumes[batch["__key__"][0]].array)
        assert np.array_equal(batch["array"][0].numpy(), expected)
        assert batch["labels"].shape == (1, 18) and batch["labels"].dtype == torch.float32
        assert batch["origin"].tolist() == [[0, 0, 0]]
        assert batch["report"] == [volumes[batch["__key__"][0]].report]


def test_crops_of_volumes_collate(plain: Converted, torch: Any) -> None:
    volumes = Volumes(plain.out, units="source")
    loader = torch.utils.data.DataLoader(
        volumes.dataset(crop=(8, 9, 10), tensors=True), batch_size=4, num_workers=2, shuffle=True
    )
    batches = list(loader)
    assert [batch["array"].shape for batch in batches] == [(4, 8, 9, 10), (2, 8, 9, 10)]
    assert sorted(key for batch in batches for key in batch["__key__"]) == sorted(volumes)


def test_torch_samplers_choose_the_samples(plain: Converted, torch: Any) -> None:
    """Each rank of a DistributedSampler gets its part; weights of 0 leave samples out."""
    data = torch.utils.data
    volumes = Volumes(plain.out)
    keys = list(volumes)
    parts = []
    for rank in range(2):
        sampler = data.DistributedSampler(volumes, num_replicas=2, rank=rank, shuffle=True, seed=3)
        loader = data.DataLoader(volumes, batch_size=1, sampler=sampler)
        parts.append([batch["__key__"][0] for batch in loader])
    assert len(parts[0]) == len(parts[1]) == 3
    assert sorted(parts[0] + parts[1]) == sorted(keys)
    weights = [1.0, 0.0, 0.0, 3.0, 0.0, 0.0]
    sampler = data.WeightedRandomSampler(weights, num_samples=20)
    loader = data.DataLoader(volumes.dataset(size=(8, 8, 8)), batch_size=5, sampler=sampler)
    seen = [key for batch in loader for key in batch["__key__"]]
    assert len(seen) == 20 and set(seen) <= {keys[0], keys[3]}


def test_a_subset_and_a_split_of_volumes(plain: Converted, torch: Any) -> None:
    data = torch.utils.data
    volumes = Volumes(plain.out)
    parts = data.random_split(volumes, [4, 2])
    assert sorted(one["__key__"] for part in parts for one in part) == sorted(volumes)
    keys = list(volumes)
    assert [one["__key__"] for one in data.Subset(volumes, [5, 0])] == [keys[5], keys[0]]


def test_the_cache_serves_workers(plain: Converted, torch: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    loader = torch.utils.data.DataLoader(
        open_dataset(plain.out, cache=folder).to_tuple("__key__"), batch_size=None, num_workers=2
    )
    assert sorted(key for (key,) in loader) == sorted(plain.originals)
    assert len(list(folder.glob("*.tar"))) == 3


def test_arguments_are_checked_before_any_worker_starts(plain: Converted) -> None:
    with pytest.raises(SettingsError):
        Volumes(plain.out).dataset(crop=(0, 1, 1))
