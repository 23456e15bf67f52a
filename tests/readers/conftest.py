"""Datasets that the readers read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import Converted, convert_here, run_here

ENCODINGS = ("npy", "npy.gz", "b2nd")
INTEGERS = ("volume", "data", "arr")
"""Sources of one type, int16: some readers cannot have two in one dataset."""

Convert = Callable[..., Converted]


@pytest.fixture
def convert(
    make_ctrate: Callable[..., SyntheticCtRate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Convert:
    """Converts eight volumes to three shards in ``shards/train``, where the documents have them."""
    monkeypatch.chdir(tmp_path)

    def make(encoding: str = "npy", kinds: tuple[str, ...] = (), index: str = "") -> Converted:
        more = {"kinds": kinds} if kinds else {}
        made = make_ctrate(8, shape=(20, 12, 6), **more)
        out = tmp_path / "shards" / "train"
        converted = convert_here(made, out, encoding=encoding, samples_per_shard=3)
        if index:
            done = run_here("export", out, tmp_path / f"for-{index}", "--index", index)
            assert done.code == ExitCode.DONE, done.text
        return converted

    return make
