"""The base of all kinds of sources: an open file with one volume in it, read from front to back."""

from __future__ import annotations

import abc
import contextlib
import errno
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError, UnreadableSource
from ctrate_convert.sources.left_out import LeftOut
from ctrate_convert.store.records.plan import ArrayHeader
from ctrate_convert.store.records.record import SourceFingerprint

MAX_VOXELS = 2**32
"""Ten times the largest CT-RATE volume; with two bytes each, it still fits one tar member."""

AHEAD_BYTES = 2**24
"""The number of bytes that the kernel is asked to fetch ahead."""


@dataclass(frozen=True)
class SourceArray:
    """The type, shape and order of a source's elements, as they stand in the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def data_bytes(self) -> int:
        """The number of bytes of all elements; exact for any size."""
        return math.prod(self.shape) * self.dtype.itemsize


class Source(abc.ABC):
    """An open source and the one volume in it; a context manager.

    Opening reads the headers, not the voxels. If ``descriptor`` is given, a copy of it is read
    instead of opening ``path``, which then only serves for messages. ``array_key`` names the volume
    in a file that may hold several arrays.

    A kind of source sets the attributes below in `_open`, and gives the elements in `_fill`.

    Raises:
        SampleError: the file cannot be read, or holds no single volume.
    """

    array: SourceArray
    header_name: str
    """The name of `raw_header` among the parts that a shard may not hold."""
    header_is_plain: bool
    """True if `raw_header` says no more than `header` does."""
    missing = "source is missing"
    """What is said of a file that is not there."""
    _header: ArrayHeader

    def __init__(
        self, path: Path, array_key: str | None = None, descriptor: int | None = None
    ) -> None:
        self.path = path
        try:
            # The copy shares the file's offset with the original. That does no harm: all kinds of
            # sources read at explicit offsets.
            self._descriptor = open_source_file(path) if descriptor is None else os.dup(descriptor)
        except OSError as error:
            raise unreadable(path, error, self.missing) from error
        with contextlib.ExitStack() as after_a_failure:
            after_a_failure.callback(self.close)
            try:
                self._status = os.fstat(self._descriptor)
                if not stat.S_ISREG(self._status.st_mode):
                    raise SampleError("not a regular file", where=path)
                with contextlib.suppress(OSError):
                    os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
                self._open(array_key)
                if math.prod(self.array.shape) > MAX_VOXELS:
                    raise SampleError(
                        "volume too large",
                        where=path,
                        seen="×".join(map(str, self.array.shape)),
                        expected=f"≤ {MAX_VOXELS} voxels",
                    )
            except OSError as error:
                raise unreadable(path, error, self.missing) from error
            after_a_failure.pop_all()

    @abc.abstractmethod
    def _open(self, array_key: str | None) -> None:
        """Read the headers and set the attributes; the next byte is the first voxel's.

        Raises:
            SampleError: there is no single volume.
            OSError: the file cannot be read.
        """

    @abc.abstractmethod
    def _fill(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with the array's next bytes; return fewer only at their end, then 0.

        Raises:
            SampleError: the data are damaged; digests and lengths are checked with the last byte.
            OSError: the file cannot be read.
        """

    @property
    def header(self) -> ArrayHeader:
        """The header for plan and record, with the names of `left_out` as far as is known."""
        names = tuple(one.name for one in self.left_out)
        return self._header.model_copy(update={"left_out": names})

    @property
    @abc.abstractmethod
    def left_out(self) -> tuple[LeftOut, ...]:
        """The parts of the file that the shard will not hold; complete after the last byte."""

    @property
    @abc.abstractmethod
    def raw_header(self) -> bytes:
        """The bytes that describe the array in the file, verbatim."""

    @abc.abstractmethod
    def source_extra(self) -> list[dict[str, Any]]:
        """Return the other entries for the sample's JSON; docs/shards.md describes the fields.

        Raises:
            SampleError: their data are damaged.
        """

    @property
    def more_json(self) -> Mapping[str, object]:
        """Fields of the sample's JSON that only this kind of source has."""
        return {}

    def read_into(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with the array's next bytes as stored; return 0 after the last.

        Raises:
            SampleError: damaged data; digests and lengths are checked with the last byte.
        """
        try:
            filled = self._fill(buffer)
        except OSError as error:
            raise unreadable(self.path, error) from error
        if self.array.dtype.kind == "b":
            self._check_bools(np.frombuffer(buffer[:filled], np.uint8))
        return filled

    def _check_bools(self, values: NDArray[np.uint8]) -> None:
        """Raise if a bool array holds bytes other than 0 and 1, which the cast would lose.

        Raises:
            SampleError: it does.
        """
        if (largest := int(values.max(initial=0))) > 1:
            raise SampleError(
                "a bool array holds other bytes than 0 and 1",
                where=self.path,
                seen=largest,
                expected="≤ 1",
            )

    def blocks(self, block_voxels: int) -> Iterator[NDArray[Any]]:
        """Yield the array's elements in file order, 1-D and as stored.

        Each block is valid until the next.

        Raises:
            SampleError: as `read_into` does.
        """
        buffer = np.empty(block_voxels, self.array.dtype)
        view = buffer.view(np.uint8).data
        while size_bytes := self.read_into(view):
            yield buffer[: size_bytes // buffer.itemsize]

    def fingerprint(self, relative: str) -> SourceFingerprint:
        """Return the file's identity at the time it was opened. Call this after the last byte.

        Raises:
            SampleError: the file changed while it was read.
        """
        now, then = os.fstat(self._descriptor), self._status
        if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            raise SampleError("source changed while it was read", where=self.path)
        # Not the current ctime: a writer that restored size and mtime must not pass the gate.
        return SourceFingerprint(
            source=relative,
            size_bytes=then.st_size,
            mtime_ns=then.st_mtime_ns,
            ctime_ns=then.st_ctime_ns,
            inode=then.st_ino,
        )

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source_file(path: Path) -> int:
    """Return a descriptor of ``path`` for reading.

    Raises:
        OSError: the file cannot be opened.
    """
    # Without O_NONBLOCK, opening a FIFO that has a volume's name would hang the worker.
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def fetch(descriptor: int, offset: int) -> int:
    """Ask the kernel to fetch the 16 MiB from ``offset`` on; return the offset after them.

    File systems that refuse are ignored.
    """
    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, offset, AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
    return offset + AHEAD_BYTES


def unreadable(path: Path, error: OSError, missing: str = Source.missing) -> SampleError:
    """Return the error for a source that the storage does not give."""
    if error.errno == errno.ENOENT:
        return SampleError(missing, where=path)
    return UnreadableSource(f"source cannot be read: {error.strerror or error}", where=path)
