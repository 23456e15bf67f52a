"""torchdata's ``StatefulDataLoader`` over ``open_dataset``."""

from __future__ import annotations

import pytest

import ctrate_convert
from tests.readers.conftest import ENCODINGS, Convert
from tests.readers.documented import run_lines
from tests.readers.originals import Given, assert_all_there

stateful = pytest.importorskip(
    "torchdata.stateful_dataloader", reason="torchdata is not installed", exc_type=ImportError
)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_documented_loader(convert: Convert, encoding: str) -> None:
    converted = convert(encoding)
    samples = list(run_lines("torchdata")["loader"])
    assert_all_there(
        converted,
        (
            Given(s["__key__"], s["array"].numpy(), s["labels"].numpy(), s["report"], s["json"])
            for s in samples
        ),
    )


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_whole_epoch(convert: Convert, workers: int) -> None:
    """Every sample once, whatever the number of workers, in two epochs."""
    converted = convert("b2nd")
    dataset = ctrate_convert.open_dataset(converted.out, shuffle=True)
    loader = stateful.StatefulDataLoader(dataset, batch_size=None, num_workers=workers)
    for _ in range(2):
        keys = [sample["__key__"] for sample in loader]
        assert sorted(keys) == sorted(converted.originals)
