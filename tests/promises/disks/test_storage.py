"""Reading back gives the file's bytes, whether or not the page cache can be passed by."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from ctrate_convert.store import storage_reader as storage
from ctrate_convert.store.storage_reader import StorageReader

BLOCK = 8192


def read_all(path: Path, limit_bytes: int | None) -> bytes:
    pieces = []
    with path.open("rb", buffering=0) as stream, StorageReader(stream.fileno()) as reader:
        while piece := reader.take(limit_bytes):
            pieces.append(bytes(piece))
    return b"".join(pieces)


@pytest.fixture(params=[0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 777])
def written(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, bytes]:
    monkeypatch.setattr(storage, "_BLOCK_BYTES", BLOCK)
    data = os.urandom(request.param)
    path = tmp_path / "file"
    path.write_bytes(data)
    return path, data


@pytest.mark.parametrize("limit_bytes", [None, 1000])
def test_every_byte_comes_once_and_in_order(
    written: tuple[Path, bytes], limit_bytes: int | None
) -> None:
    """Also where a piece ends in the middle of a block."""
    path, data = written
    assert read_all(path, limit_bytes) == data


def test_file_systems_without_direct_reading_are_read_too(
    written: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag itself is refused."""
    real = fcntl.fcntl

    def refusing(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct reading here")
        return real(descriptor, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refusing)
    path, data = written
    assert read_all(path, None) == data


def test_an_offset_that_is_not_aligned_ends_direct_reading(
    written: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a short read the rest comes through the page cache, not as an error."""
    real = os.preadv

    def short(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if offset % 512 and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "not aligned")
        return (
            real(descriptor, [memoryview(buffers[0])[:4096]], offset)
            if offset
            else min(100, real(descriptor, buffers, 0))
        )

    monkeypatch.setattr(os, "preadv", short)
    path, data = written
    assert read_all(path, None) == data


def test_an_error_of_the_storage_is_raised(
    written: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reaches the caller out of the thread that reads ahead."""

    def failing(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(OSError, match="Input/output error"):
        read_all(written[0], None)


@pytest.mark.parametrize("start", [0, 1, 4095, 4096, BLOCK - 1, BLOCK, 3 * BLOCK + 5])
def test_after_a_seek_the_pass_goes_on_from_there(written: tuple[Path, bytes], start: int) -> None:
    """Forward and back, into the block that was read ahead and past the end."""
    path, data = written
    with path.open("rb", buffering=0) as stream, StorageReader(stream.fileno()) as reader:
        for offset in (start, 0, start, start + 10, len(data), start):
            reader.seek(offset)
            seen = b""
            while len(seen) < BLOCK + 100 and (piece := reader.take(1000)):
                seen += piece
            assert seen == data[offset : offset + len(seen)]
            assert len(seen) >= min(BLOCK + 100, len(data) - offset)


def test_what_is_read_after_a_seek_comes_from_storage(
    written: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a short read has ended direct reading before."""
    path, data = written
    direct = []
    real = os.preadv

    def watched(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if offset == 0:
            direct.append(bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT))
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", watched)
    with path.open("rb", buffering=0) as stream, StorageReader(stream.fileno()) as reader:
        while reader.take():
            pass
        if not direct[0]:
            pytest.skip("this file system refuses direct reading")
        reader.seek(0)
        assert bytes(reader.take(10)) == data[:10]
    assert set(direct) == {True}
