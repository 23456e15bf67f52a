"""Two stored volumes of one size in one shard, the first of which is going to be attacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert.errors import ExitCode
from tests.support import Array, Converted, Finished, convert_here, sources_left
from tests.unit.deleting.scenes import Make, write_volume

CT = np.random.default_rng(8).integers(-1024, 3000, (12, 10, 9)).astype(np.int16)


@pytest.fixture
def ct(make_ctrate: Make, tmp_path: Path) -> Converted:
    """Two stored volumes of one size in one shard."""
    return scene(make_ctrate, tmp_path / "out")


def scene(make: Make, out: Path, samples: int = 2, volume: Array = CT, **more: Any) -> Converted:
    """Stored volumes of one size, each of other voxels, converted with the settings ``more``."""
    made = make(samples)
    for number, path in enumerate(made.sources.values()):
        write_volume(path, volume + volume.dtype.type(number))
    return convert_here(made, out, **more)


def other_bytes(converted: Converted) -> bytes:
    """An honest NPZ of the first one's size, with other voxels."""
    path = converted.made.data_folder / "other"
    with path.open("wb") as stream:
        np.savez(stream, data=CT[::-1])
    data = path.read_bytes()
    path.unlink()
    assert len(data) == first(converted).stat().st_size
    return data


def first(converted: Converted) -> Path:
    return converted.made.sources[converted.made.keys[0]]


def assert_kept(converted: Converted, done: Finished, says: str = "its shard does not") -> None:
    """The first source stays as it is, for that reason; the second is deleted."""
    key = converted.made.keys[0]
    assert done.code == ExitCode.REFUSED
    assert f"kept: {key}.npz — " in done.text
    assert says in done.text
    assert sources_left(converted.made) == {key}, done.text
    assert not [path for path in converted.made.data_folder.iterdir() if path.name[0] == "."]
