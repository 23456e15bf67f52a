"""Volumes of any shape take bounded memory, to plan, to convert and to read, and come out right.

Each is a file of a few MB, since its voxels repeat; in memory it would take hundreds of MiB.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ctrate_convert import Volumes
from ctrate_convert.errors import EnvironmentProblem
from ctrate_convert.formats.codecs import b2nd
from ctrate_convert.formats.codecs.target import ArrayTarget
from ctrate_convert.formats.tar import TarWriter
from ctrate_convert.formats.tiling import Shape, box_elements
from ctrate_convert.store.durable import PartialFile
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_plans
from ctrate_convert.synthetic import write_synthetic_ctrate
from tests.promises.hostile import fields, npy
from tests.support import TIMEOUT_S, Array, convert_here, settings_for

MOST_MIB = {"plan": 150, "convert": 100, "read": 100}
"""What a process may take above an idle one; planning loads what reads tables, 79 MiB."""

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
    huge((1, SIDE // 2, SIDE // 2), "C", "npy.gz"),
    huge((1, 1, FLAT // 8), "C", "npy"),
    huge((1, 1, FLAT // 8), "C", "npy.gz"),
    huge((1, 1, FLAT), "C", "b2nd"),
    huge((FLAT // 16, 1, 1), "F", "b2nd", chunk_shape="slab"),
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
    """No step takes memory that grows with the volume, and boxes hold the voxels."""
    made = write_synthetic_ctrate(tmp_path / "in", samples=1, shape=(6, 5, 4))
    (key, source), out = next(iter(made.sources.items())), tmp_path / "out"
    volume.write(source)
    plan = settings_for(made, encoding=volume.encoding, probe=None, **volume.settings)
    found = measured(out, plan.model_dump_json())
    assert found["failures"] == []
    assert {step: mib for step, mib in found["mib"].items() if mib > MOST_MIB[step]} == {}
    probe = load_plans(Dataset(out))[0].probe
    assert probe is not None and (probe.volumes, probe.unreadable) == (1, 0)
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


def test_a_volume_that_blosc2_cannot_hold_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails with the reason, where the storage takes what is written; the others go on."""
    made = write_synthetic_ctrate(tmp_path / "in", samples=2, shape=(6, 5, 4))
    first, second = sorted(made.sources)
    np.savez(made.sources[first], volume=np.zeros((1, 2, 3), np.int16))
    real = b2nd.chunks_and_blocks

    def impossible(shape: Shape, *more: Any) -> Any:
        return ((1, 2, 2**31 - 1), (1, 1, 1)) if shape == (1, 2, 3) else real(shape, *more)

    monkeypatch.setattr(b2nd, "chunks_and_blocks", impossible)
    record = convert_here(made, tmp_path / "out", encoding="b2nd", probe=0).record()
    assert [sample.key for sample in record.converted] == [second]
    assert [sample.key for sample in record.failed] == [first]
    assert record.failed[0].reason.startswith("b2nd cannot hold this volume")
    assert "int16 1×2×3" in record.failed[0].reason


@pytest.mark.parametrize("inner", [False, True])
def test_blosc2_that_fails_only_on_storage_is_the_storages_fault(
    inner: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be compressed in memory is an `OSError`: the run stops, and no sample fails."""
    made = write_synthetic_ctrate(tmp_path / "in", samples=1, shape=(6, 5, 4))
    name = "_store" if inner else "_empty"
    real: Any = getattr(b2nd._Writer, name)
    calls = []

    def fails_first(writer: Any, *words: Any, **more: Any) -> Any:
        calls.append(words)
        if len(calls) == 1:
            raise RuntimeError("no reason given")
        return real(writer, *words, **more)

    monkeypatch.setattr(b2nd._Writer, name, fails_first)
    with pytest.raises(EnvironmentProblem, match="Input/output error"):
        convert_here(made, tmp_path / "out", encoding="b2nd", probe=0)
    assert len(calls) == 2


def test_every_chunk_is_written_once() -> None:
    """Whatever the shape: what is written to a frame are whole chunks, in C order."""
    sizes = (1, 2, 9, 33, 700, 10**4, 10**6, 10**9)
    for shape in itertools.product(sizes, sizes, sizes):
        chunk, block = b2nd.chunks_and_blocks(shape, 2, "cube")
        assert all(1 <= b <= c <= s for b, c, s in zip(block, chunk, shape, strict=True))
        assert np.prod(chunk) * 2 <= 2**22
        for box in itertools.islice(b2nd._chunk_rows(shape, chunk, 2), 50):
            assert box_elements(box) * 2 <= 2**24
            for part, size, length in zip(box, chunk, shape, strict=True):
                assert part.start % size == 0 and (part.stop % size == 0 or part.stop == length)


@settings(max_examples=25)
@given(st.tuples(*[st.sampled_from([1, 2, 5, 33, 600])] * 3), st.integers(7, 12))
def test_small_boxes_store_every_element(shape: Shape, bits: int) -> None:
    """However small chunks and buffers are, what was put in is read, all of it and in order."""
    assume(np.prod(shape) <= 33**3)
    values = np.arange(np.prod(shape)).astype(np.int16)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(b2nd, "_ROW_BYTES", 2**bits),
        mock.patch.object(b2nd, "_CHUNK_BYTES", 2 ** (bits - 1)),
        mock.patch.dict(b2nd._BLOCK_ALONG, cube=3),
        mock.patch.object(b2nd, "_BLOCK_ACROSS", 2),
        mock.patch.object(b2nd, "_BLOCK_ROWS", 2),
        mock.patch.object(b2nd, "_BLOCK_VOXELS", 8),
    ):
        path = Path(folder) / "one.tar"
        with PartialFile(path) as partial:
            target = ArrayTarget(TarWriter(partial), "a", values.dtype, shape, Path(folder))
            with b2nd.B2nd().writer(target) as writer:
                for start in range(0, len(values), 1000):
                    writer.put(values[start : start + 1000])
                member = writer.finish()
            partial.publish()
        place = path, member.offset, member.size_bytes
        blocks = [part.copy() for part in b2nd.B2nd().read_blocks(*place, values.dtype, shape)]
        assert max(len(part) for part in blocks) * 2 <= 2**bits
        assert np.array_equal(np.concatenate(blocks), values)
