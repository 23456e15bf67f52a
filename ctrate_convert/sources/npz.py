"""Read NPZ volumes: streamed, checked against their CRC-32, never unpickled."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError, UnreadableSource
from ctrate_convert.formats.npy_header import NpyHeader, read_header
from ctrate_convert.sources.extra import MAX_EXTRA_BYTES, Look, divide, estimated_bytes, read_all
from ctrate_convert.sources.inventory import (
    NPY_HEADER,
    Inventory,
    LeftOut,
    take_inventory,
    user_attributes,
)
from ctrate_convert.sources.member import Member, fetch
from ctrate_convert.sources.zip_structure import STORED, Entry
from ctrate_convert.store.records.plan import ArrayHeader
from ctrate_convert.store.records.record import SourceFingerprint

MAX_VOXELS = 2**32
"""Ten times the largest CT-RATE volume; with two bytes each, it still fits one tar member."""

_NAMED = 8
"""The number of entries that an error message names."""


class SourceVolume:
    """An open NPZ file and the one volume in it; a context manager.

    The constructor reads the zip directory and the arrays' headers, not their data. ``array_key``
    names the volume. Without it, the volume is the only numeric array of three dimensions or more,
    and every other entry must be readable. If ``descriptor`` is given, a copy of it is read instead
    of opening ``path``, which then only serves for messages. ``left_out`` lists what the shard will
    not hold.

    Raises:
        SampleError: the file cannot be read, or has no single numeric 3-D array (named
            ``array_key``).
    """

    def __init__(
        self, path: Path, array_key: str | None = None, descriptor: int | None = None
    ) -> None:
        self.path = path
        try:
            self._descriptor = _open(path) if descriptor is None else os.dup(descriptor)
        except OSError as error:
            raise _unreadable(path, error) from error
        with contextlib.ExitStack() as after_a_failure:
            after_a_failure.callback(self.close)
            try:
                self._opened = os.fstat(self._descriptor)
                if not stat.S_ISREG(self._opened.st_mode):
                    raise SampleError("not a regular file", where=path)
                self._look_in(array_key)
            except OSError as error:
                raise _unreadable(path, error) from error
            after_a_failure.pop_all()

    def _look_in(self, array_key: str | None) -> None:
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        inventory = take_inventory(self._descriptor, self.path)
        looks = self._look_at(inventory.entries)
        entry, self.npy = self._choose(looks, array_key)
        self._member = Member(self._descriptor, entry, self.path)
        self._member.read(self.npy.size_bytes)
        others = [look for look in looks if look.entry is not entry]
        self._comment = inventory.comment
        self._extra, self.left_out = self._divide(others, inventory)
        self.header = ArrayHeader(
            array_key=entry.name.removesuffix(".npy"),
            dtype=self.npy.dtype.str,
            shape=self.npy.shape,
            fortran_order=self.npy.fortran_order,
            compression="stored" if entry.method == STORED else "deflated",
            extra_bytes=estimated_bytes(self._extra, self._comment),
            left_out=tuple(one.name for one in self.left_out),
        )

    def _look_at(self, entries: tuple[Entry, ...]) -> list[Look]:
        times = Counter(entry.name for entry in entries)
        return [self._look(entry, times[entry.name]) for entry in entries]

    def _look(self, entry: Entry, times: int) -> Look:
        if not entry.name or times > 1:
            return Look(entry, None, "its name stands there twice" if times > 1 else "has no name")
        try:
            member = Member(self._descriptor, entry, self.path)
            if not entry.name.endswith(".npy"):
                return Look(entry, None, "")
            header = read_header(member.read)
        except SampleError as error:
            return Look(entry, None, error.what)
        promised = header.size_bytes + header.data_bytes
        if promised != entry.size_bytes and not header.dtype.hasobject:
            trouble = "the array's header and the zip directory disagree on its size"
            return Look(entry, header, f"{trouble}: {header}, {entry.size_bytes} bytes")
        return Look(entry, header, "")

    def _choose(self, looks: list[Look], array_key: str | None) -> tuple[Entry, NpyHeader]:
        named = looks if array_key is None else _named(looks, array_key)
        possible = [
            look for look in named if not look.trouble and look.header and look.header.may_be_volume
        ]
        broken = [look for look in named if look.trouble]
        if not possible or (array_key is not None and broken):
            raise self._refused("no numeric 3-D array", named, array_key)
        if len(possible) > 1:
            what = "several arrays of 3-D or more; name one with --array_key"
            raise self._refused(what, named, array_key)
        if broken:
            what = "entries that cannot be read; name the volume with --array_key"
            raise self._refused(what, broken, array_key)
        entry, header = possible[0].entry, possible[0].header
        if header is None or not header.is_volume:
            raise self._refused("no numeric 3-D array", named, array_key)
        if header.data_bytes // header.dtype.itemsize > MAX_VOXELS:
            raise SampleError(
                "volume too large", where=self.path, seen=header, expected=f"≤ {MAX_VOXELS} voxels"
            )
        return entry, header

    def _refused(self, what: str, looks: list[Look], array_key: str | None) -> SampleError:
        seen = ", ".join(map(str, looks[:_NAMED]))
        if len(looks) > _NAMED:
            seen += f" and {len(looks) - _NAMED} more"
        nothing = f"no array named {array_key}" if array_key else "no array"
        return SampleError(
            what, where=self.path, seen=seen or nothing, expected="one numeric 3-D array"
        )

    def _divide(
        self, others: list[Look], inventory: Inventory
    ) -> tuple[list[Look], tuple[LeftOut, ...]]:
        travelling, left_out = divide(others, MAX_EXTRA_BYTES - len(inventory.comment))
        left_out += inventory.loose
        if self.npy.says_more:
            what = f"{self.npy.size_bytes:,} bytes of the volume's header, which say more than that"
            left_out.append(LeftOut(NPY_HEADER, what))
        return travelling, (*left_out, *user_attributes(self._descriptor))

    def source_extra(self) -> list[dict[str, Any]]:
        """Return the entries for the sample's JSON; docs/shards.md describes the fields.

        Raises:
            SampleError: their data are damaged.
        """
        try:
            return read_all(self._extra, self._comment, self._read)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _read(self, look: Look) -> tuple[bytes, bytes]:
        member = Member(self._descriptor, look.entry, self.path)
        header = member.read(look.header.size_bytes) if look.header else b""
        content = member.read(look.content_bytes)
        member.check_end()
        return header, content

    def read_into(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with the array's next bytes as stored; return 0 after the last.

        Raises:
            SampleError: damaged data; CRC-32 and length are checked with the last byte.
        """
        left = self._member.left_bytes
        if left == 0:
            return 0
        try:
            self._member.fetch_ahead()
            filled = self._member.read_into(buffer[: min(len(buffer), left)])
            if filled < min(len(buffer), left):
                raise SampleError("array data ends early", where=self.path)
            if filled == left:
                self._member.check_end()
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if self.npy.dtype.kind == "b":
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
        buffer = np.empty(block_voxels, self.npy.dtype)
        view = buffer.view(np.uint8).data
        while size_bytes := self.read_into(view):
            yield buffer[: size_bytes // buffer.itemsize]

    def fingerprint(self, relative: str) -> SourceFingerprint:
        """Return the file's identity at the time it was opened. Call this after the last byte.

        Raises:
            SampleError: the file changed while it was read.
        """
        now, then = os.fstat(self._descriptor), self._opened
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

    def __enter__(self) -> SourceVolume:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_array_header(path: Path, array_key: str | None = None) -> ArrayHeader:
    """Return the header of the volume in ``path`` without reading its data.

    Raises:
        SampleError: the file cannot be read, or has no single numeric 3-D array.
    """
    with SourceVolume(path, array_key) as volume:
        return volume.header


def fetch_ahead(path: Path) -> None:
    """Ask the kernel to fetch the start of the next source, if it can be opened."""
    with contextlib.suppress(OSError):
        descriptor = _open(path)
        try:
            fetch(descriptor, 0)
        finally:
            os.close(descriptor)


def _open(path: Path) -> int:
    # Without O_NONBLOCK, opening a FIFO that has a volume's name would hang the worker.
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _named(looks: list[Look], array_key: str) -> list[Look]:
    return [look for look in looks if look.entry.name == f"{array_key}.npy"]


def _unreadable(path: Path, error: OSError) -> SampleError:
    if error.errno == errno.ENOENT:
        return SampleError("source is missing", where=path)
    return UnreadableSource(f"source cannot be read: {error.strerror or error}", where=path)
