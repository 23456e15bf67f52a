"""Ray Data: ``ray.data.read_webdataset``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.readers.conftest import ENCODINGS, INTEGERS, Convert
from tests.readers.documented import run_lines
from tests.readers.originals import Given, assert_all_there

ray = pytest.importorskip("ray", reason="ray is not installed", exc_type=ImportError)
pytest.importorskip("ray.data", reason="ray[data] is not installed", exc_type=ImportError)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_sample(convert: Convert, encoding: str) -> None:
    converted = convert(encoding, INTEGERS)
    rows: list[dict[str, Any]] = run_lines("Ray Data")["dataset"].take_all()
    assert_all_there(converted, (Given.by_members(one, encoding) for one in rows))


def test_two_types_become_float32(convert: Convert) -> None:
    """Its trap: a column has one type. int16 and float16 both fit float32, without a lost bit."""
    converted = convert("b2nd")
    rows = run_lines("Ray Data")["dataset"].take_all()
    kinds = set()
    for one in rows:
        original = converted.originals[one["__key__"]]
        expected = original if original.dtype.kind == "i" else original.astype(np.float16)
        kinds.add(one["volume.b2nd"].dtype)
        assert np.array_equal(one["volume.b2nd"], expected)
    assert np.dtype(np.float32) in kinds


def test_without_the_decoder(convert: Convert) -> None:
    """Its trap: npy.gz stays bytes, where webdataset itself unpacks it."""
    out = str(convert("npy.gz", INTEGERS).out)
    rows = ray.data.read_webdataset(out, file_extensions=["tar"]).take_all()
    assert all(isinstance(one["volume.npy.gz"], bytes) for one in rows)
