"""Volumes of any shape take bounded memory, to plan, to convert and to read, and come out right.

Each is a file of a few MB, since its voxels repeat; in memory it would take hundreds of MiB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert import Volumes
from ctrate_convert.formats.tiling import Shape
from ctrate_convert.synthetic import write_synthetic_ctrate
from tests.hostile import fields, npy
from tests.support import TIMEOUT_S, Array, settings_for

MOST_MIB = 100
"""What a process may take above an idle one, whatever a volume's shape."""

PERIOD = np.arange(2**20, dtype=np.int64) * 7 % 120  # one byte each, and no two rows alike


@dataclass(frozen=True)
class Huge:
    """A volume of one byte a voxel, and how it is stored."""

    shape: Shape
    fortran: bool
    encoding: str
    settings: dict[str, Any]

    def write(self, path: Path) -> None:
        """As an NPZ, a piece at a time."""
        header = npy(fields("|u1", self.fortran, self.shape).ljust(117) + "\n")
        pattern = PERIOD.astype(np.uint8).tobytes()
        left = int(np.prod(self.shape))
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("volume.npy", "w", force_zip64=True) as member,
        ):
            member.write(header)
            while left:
                member.write(pattern[:left])
                left -= min(left, len(pattern))

    def voxels(self, box: tuple[slice, slice, slice]) -> Array:
        """What a box holds."""
        strides = np.cumprod([1, *(self.shape if self.fortran else self.shape[::-1])[:2]])
        places = [np.arange(part.start, part.stop) for part in box]
        z, y, x = np.ix_(*places)
        first, second, third = strides if self.fortran else strides[::-1]
        found: Array = PERIOD[(z * first + y * second + x * third) % len(PERIOD)].astype(np.int16)
        return found


def huge(shape: Shape, order: str, encoding: str, **settings: Any) -> Huge:
    return Huge(shape, order == "F", encoding, settings)


SIDE = 20_000
FLAT = 1_100_000_000
"""Voxels of a row whose two bytes each Blosc2 cannot hold as one chunk."""

HUGE = [
    huge((1, SIDE, SIDE), "F", "b2nd"),
    huge((SIDE, SIDE, 1), "F", "b2nd"),
    huge((1, SIDE, SIDE), "C", "npy.gz"),
    huge((1, 1, FLAT // 8), "C", "npy"),
    huge((1, 1, FLAT // 8), "C", "npy.gz"),
    huge((1, 1, FLAT), "C", "b2nd"),
    huge((FLAT // 8, 1, 1), "F", "b2nd", chunk_shape="slab"),
]


def name_of(volume: Huge) -> str:
    order = "F" if volume.fortran else "C"
    return f"{'x'.join(map(str, volume.shape))} {order} {volume.encoding}"


def measured(*words: object) -> dict[str, Any]:
    """What `tests.peak_memory` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.peak_memory", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("volume", HUGE, ids=name_of)
def test_memory_is_bounded_for_every_shape(volume: Huge, tmp_path: Path) -> None:
    """Planning, converting and reading boxes take less than 100 MiB, and boxes hold the voxels."""
    made = write_synthetic_ctrate(tmp_path / "in", samples=1, shape=(6, 5, 4))
    (key, source), out = next(iter(made.sources.items())), tmp_path / "out"
    volume.write(source)
    settings = settings_for(made, encoding=volume.encoding, **volume.settings)
    found = measured(out, settings.model_dump_json())
    assert found["failures"] == []
    assert {step: mib for step, mib in found["mib"].items() if mib > MOST_MIB} == {}
    stored = Volumes(out)[key].array
    for box in boxes_to_compare(volume.shape):
        assert np.array_equal(stored[box], volume.voxels(box)), box


def boxes_to_compare(shape: Shape) -> list[tuple[slice, slice, slice]]:
    """Corners, and long narrow boxes from the middle, along each axis."""
    rng = np.random.default_rng(5)
    boxes = []
    for most in ((7, 7, 7), (1, 300, 20_000), (20_000, 300, 1), (3, 20_000, 3)):
        sizes = [min(size, wanted) for size, wanted in zip(shape, most, strict=True)]
        for share in (0.0, rng.random(), 1.0):
            z, y, x = (
                slice(int(share * (size - wanted)), int(share * (size - wanted)) + wanted)
                for size, wanted in zip(shape, sizes, strict=True)
            )
            boxes.append((z, y, x))
    return boxes
