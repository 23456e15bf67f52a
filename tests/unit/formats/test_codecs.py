"""Every encoding gives back what was written: in blocks, in boxes, and decoded from memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.codecs import CODECS
from ctrate_convert.formats.codecs.codec import ArrayPlace
from ctrate_convert.formats.codecs.target import ArrayTarget
from ctrate_convert.formats.tar import TarWriter, WrittenMember
from ctrate_convert.formats.tiling import Box, c_order_boxes
from ctrate_convert.store.durable import PartialFile
from ctrate_convert.store.records.plan import Encoding

SHAPES = [(1, 1, 1), (1, 40, 30), (7, 1, 9), (33, 20, 1), (19, 70, 41)]
DTYPES = ["<i2", "<i4", "<f2", "|i1"]


class OnDisk:
    """A file that is read at places."""

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()

    def read(self, offset: int, size_bytes: int) -> bytes:
        return self._data[offset : offset + size_bytes]

    def read_into(self, view: memoryview, offset: int) -> None:
        view[:] = self._data[offset : offset + len(view)]


def write(path: Path, encoding: Encoding, volume: Any) -> WrittenMember:
    """One member, put in pieces that fit nothing."""
    with PartialFile(path) as partial:
        tar = TarWriter(partial)
        target = ArrayTarget(tar, f"x.{encoding}", volume.dtype, volume.shape, path.parent)
        with CODECS[encoding].writer(target) as writer:
            flat = volume.reshape(-1)
            for start in range(0, len(flat), 1001):
                writer.put(flat[start : start + 1001])
            member = writer.finish()
        tar.finish()
        partial.settle()
        assert partial.publish()
    return member


def test_every_encoding_has_a_class() -> None:
    assert list(CODECS) == list(get_args(Encoding))


@pytest.mark.parametrize("encoding", CODECS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_written_comes_back(
    tmp_path: Path, encoding: Encoding, dtype: str, shape: tuple[int, int, int]
) -> None:
    random = np.random.default_rng(2)
    volume = random.integers(-100, 100, shape).astype(dtype)
    path = tmp_path / "x.tar"
    member = write(path, encoding, volume)
    codec = CODECS[encoding]
    place = (path, member.offset, member.size_bytes, volume.dtype, shape)
    blocks = [block.copy() for block in codec.read_blocks(*place)]
    assert np.array_equal(np.concatenate(blocks).reshape(shape), volume)

    file = OnDisk(path)
    stored = ArrayPlace(file, str(path), *place[1:])
    for _ in range(5):
        ends = [sorted(random.integers(0, size + 1, 2)) for size in shape]
        z, y, x = (slice(int(low), max(int(low) + 1, int(high))) for low, high in ends)
        box: Box = (_inside(z, shape[0]), _inside(y, shape[1]), _inside(x, shape[2]))
        found = codec.read_box(stored, box)
        assert np.array_equal(found, volume[box])
        assert found.flags["WRITEABLE"]
    boxes = list(c_order_boxes(shape, 500))
    for box, found in zip(boxes, codec.read_boxes(stored, boxes), strict=True):
        assert np.array_equal(found, volume[box])
    backwards = boxes[::-1]
    for box, found in zip(backwards, codec.read_boxes(stored, backwards), strict=True):
        assert np.array_equal(found, volume[box])

    data = file.read(member.offset, member.size_bytes)
    asked: list[int] = []
    decoded = codec.decode(data, lambda _, size_bytes: asked.append(size_bytes))
    assert np.array_equal(decoded, volume)
    assert asked[0] >= volume.nbytes


def _inside(part: slice, size: int) -> slice:
    start = min(part.start, size - 1)
    return slice(start, max(start + 1, min(part.stop, size)))


@pytest.mark.parametrize("encoding", CODECS)
def test_damage_is_a_value_error(tmp_path: Path, encoding: Encoding) -> None:
    """Of another shape, another type, or cut short."""
    volume = np.arange(60, dtype="<i2").reshape(5, 4, 3)
    path = tmp_path / "x.tar"
    member = write(path, encoding, volume)
    codec, file = CODECS[encoding], OnDisk(path)
    box: Box = (slice(0, 5), slice(0, 4), slice(0, 3))
    place = (str(path), member.offset, member.size_bytes)
    for dtype, shape in (("<i2", (5, 4, 2)), ("<f2", (5, 4, 3)), ("<i4", (5, 4, 3))):
        stored = ArrayPlace(file, *place, np.dtype(dtype), shape)
        with pytest.raises(ValueError, match=r"header|holds"):
            codec.read_box(stored, box)
    data = file.read(member.offset, member.size_bytes)
    with pytest.raises((ValueError, SampleError)):
        codec.decode(data[: len(data) // 2], lambda _, size_bytes: None)
