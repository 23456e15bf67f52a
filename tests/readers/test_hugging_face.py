"""Hugging Face ``datasets``: the builder for WebDataset, streaming and not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ctrate_convert
from ctrate_convert.synthetic import SyntheticCtRate
from tests.readers.conftest import ENCODINGS, INTEGERS, Convert
from tests.readers.documented import run_lines
from tests.readers.originals import Given, assert_all_there
from tests.support import convert_here

Load = Callable[..., Any]


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Hugging Face's loader, without network and with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = pytest.importorskip(
        "datasets", reason="Hugging Face datasets cannot be imported", exc_type=ImportError
    )
    monkeypatch.setattr(found.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return found


def given(sample: dict[str, Any], encoding: str) -> Given:
    name = f"volume.{encoding}"
    voxels = (
        ctrate_convert.decoder()(name, sample[name])
        if encoding == "b2nd"
        else np.array(sample[name], np.int16)
    )
    assert voxels is not None
    labels = np.array(sample["labels.npy"], np.float32)
    return Given(sample["__key__"], voxels, labels, sample["report.txt"], sample["json"])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_streaming(convert: Convert, datasets: Any, encoding: str) -> None:
    converted = convert(encoding, INTEGERS)
    dataset = run_lines("Hugging Face datasets")["dataset"] if encoding == "npy" else (
        datasets.load_dataset("shards/train", split="train", streaming=True)
    )  # fmt: skip
    assert_all_there(converted, (given(one, encoding) for one in dataset))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_not_streaming(convert: Convert, datasets: Any, encoding: str) -> None:
    """A bare load_dataset(OUT) finds all samples of several shards."""
    converted = convert(encoding, INTEGERS)
    dataset = datasets.load_dataset("shards/train", split="train")
    assert len(dataset) == 8
    assert_all_there(converted, (given(one, encoding) for one in dataset))


def test_a_single_shard(
    make_ctrate: Callable[..., SyntheticCtRate], tmp_path: Path, datasets: Any
) -> None:
    """A single shard beside the manifest is found too, through the dataset card."""
    made = make_ctrate(4, kinds=("volume",))
    out = convert_here(made, tmp_path / "out").out
    loaded = datasets.load_dataset(str(out), split="train")
    assert {sample["__key__"] for sample in loaded} == set(made.keys)


@pytest.mark.parametrize("streaming", [True, False])
def test_its_numpy_format_gives_int64(convert: Convert, datasets: Any, streaming: bool) -> None:
    """Its trap: the values are right, and take four times the memory."""
    converted = convert("npy", INTEGERS)
    dataset = datasets.load_dataset("shards/train", split="train", streaming=streaming)
    for sample in dataset.with_format("numpy"):
        assert sample["volume.npy"].dtype == np.int64
        assert np.array_equal(sample["volume.npy"], converted.originals[str(sample["__key__"])])


def test_its_numpy_format_cuts_bytes(convert: Convert, datasets: Any) -> None:
    """Its trap: numpy's bytes end before trailing zeros, so b2nd needs the plain format."""
    convert("b2nd", INTEGERS)
    dataset = datasets.load_dataset("shards/train", split="train")
    for sample in dataset.with_format("numpy"):
        assert isinstance(sample["volume.b2nd"], np.bytes_)
    assert bytes(np.bytes_(b"frame\0\0")) == b"frame\0\0"
    assert bytes(np.array(b"frame\0\0")[()]) == b"frame"


def test_two_types_in_one_dataset(convert: Convert, datasets: Any) -> None:
    """Its trap: a shard with int16 and float16 volumes; as b2nd they are bytes to it."""
    convert("npy")
    with pytest.raises(TypeError, match="Unable to merge"):
        list(datasets.load_dataset("shards/train", split="train", streaming=True))


def test_two_types_as_b2nd(convert: Convert, datasets: Any) -> None:
    converted = convert("b2nd")
    dataset = datasets.load_dataset("shards/train", split="train", streaming=True)
    assert_all_there(converted, (given(one, "b2nd") for one in dataset))
