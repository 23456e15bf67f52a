"""webdataset, the oldest allowed and the newest: ``make readers`` runs this with both."""

from __future__ import annotations

import pytest

from tests.readers.conftest import ENCODINGS, Convert
from tests.readers.documented import run_lines
from tests.readers.originals import Given, assert_all_there

webdataset = pytest.importorskip("webdataset")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_with_the_decoder(convert: Convert, encoding: str) -> None:
    converted = convert(encoding)
    names = run_lines("Your own pipeline")
    assert names["volume"] is not None or encoding == "npy.gz"
    samples = webdataset.WebDataset(names["shards"], shardshuffle=False).decode(
        names["ctrate_convert"].decoder()
    )
    assert_all_there(converted, (Given.by_members(one, encoding) for one in samples))


@pytest.mark.parametrize("encoding", ["npy", "npy.gz"])
def test_without_the_decoder(convert: Convert, encoding: str) -> None:
    converted = convert(encoding)
    shards = [str(path) for path in sorted(converted.out.glob("*.tar"))]
    samples = webdataset.WebDataset(shards, shardshuffle=False).decode()
    assert_all_there(converted, (Given.by_members(one, encoding) for one in samples))


def test_b2nd_without_the_decoder_is_bytes(convert: Convert) -> None:
    shards = [str(path) for path in sorted(convert("b2nd").out.glob("*.tar"))]
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():
        assert isinstance(sample["volume.b2nd"], bytes)
