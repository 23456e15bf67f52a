"""NPZ volumes in: streamed, checked against their CRC-32, never unpickled.

zipfile reads the directory; the members are inflated here with igzip, a block at a time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip_lib, isal_zlib
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError, UnreadableSource
from ctrate_convert.formats.npy import NpyHeader, read_header
from ctrate_convert.schemas.plan import ArrayHeader
from ctrate_convert.schemas.record import SourceFingerprint

MAX_VOXELS = 2**32
"""Ten times the largest CT-RATE volume; two bytes a voxel then still fit one tar member."""

_MAX_MEMBERS = 64
_COMPRESSED_BLOCK_BYTES = 2**18
_AHEAD_BYTES = 2**24
"""What the kernel is asked to fetch while the bytes before it are worked on."""
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


class _Member:
    """One zip member, read once from front to back."""

    def __init__(self, descriptor: int, info: zipfile.ZipInfo, where: Path) -> None:
        if info.flag_bits & 0x1:
            raise SampleError("zip member is encrypted", where=f"{where}: {info.filename}")
        if info.compress_type not in (_STORED, _DEFLATED):
            raise SampleError(
                "zip member uses another compression",
                where=f"{where}: {info.filename}",
                seen=info.compress_type,
                expected="0 (stored) or 8 (deflated)",
            )
        self.info = info
        self.where = where
        self.crc32 = 0
        self.produced_bytes = 0
        self._descriptor = descriptor
        file_bytes = os.fstat(descriptor).st_size
        if not 0 <= info.header_offset < file_bytes:
            raise self._broken("zip member lies outside its file")
        self._position = self._data_offset()
        self._asked_for = self._position
        self._end = self._position + info.compress_size
        if self._end > file_bytes:
            raise self._broken("zip file cut short")
        self._inflater = (
            igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
            if info.compress_type == _DEFLATED
            else None
        )

    def _data_offset(self) -> int:
        raw = os.pread(self._descriptor, _LOCAL_HEADER.size, self.info.header_offset)
        if len(raw) < _LOCAL_HEADER.size or raw[:4] != b"PK\x03\x04":
            raise self._broken("zip member has no local header")
        *_, name_size, extra_size = _LOCAL_HEADER.unpack(raw)
        return int(self.info.header_offset + _LOCAL_HEADER.size + name_size + extra_size)

    def _broken(self, what: str, seen: object = None, expected: object = None) -> SampleError:
        where = f"{self.where}: {self.info.filename}"
        return SampleError(what, where=where, seen=seen, expected=expected)

    def read_into(self, buffer: memoryview) -> int:
        """Fill ``buffer`` as far as the member goes; returns the bytes filled."""
        filled = (
            self._copy_into(buffer)
            if self._inflater is None
            else self._inflate_into(buffer, self._inflater)
        )
        self.crc32 = isal_zlib.crc32(buffer[:filled], self.crc32)
        self.produced_bytes += filled
        return filled

    def fetch_ahead(self) -> None:
        """Have the kernel fetch the next bytes in the background."""
        while self._asked_for < min(self._end, self._position + _AHEAD_BYTES):
            _fetch(self._descriptor, self._asked_for)
            self._asked_for += _AHEAD_BYTES

    def read(self, size_bytes: int) -> bytes:
        """Up to ``size_bytes`` more."""
        buffer = bytearray(size_bytes)
        return bytes(buffer[: self.read_into(memoryview(buffer))])

    def _copy_into(self, buffer: memoryview) -> int:
        filled = 0
        wanted = min(len(buffer), self._end - self._position)
        while filled < wanted:
            got = os.preadv(self._descriptor, [buffer[filled:wanted]], self._position)
            if got == 0:
                raise self._broken("zip file cut short while it was read")
            filled += got
            self._position += got
        return filled

    def _inflate_into(self, buffer: memoryview, inflater: igzip_lib.IgzipDecompressor) -> int:
        filled = 0
        while filled < len(buffer) and not inflater.eof:
            block = b""
            if inflater.needs_input:
                wanted = min(_COMPRESSED_BLOCK_BYTES, self._end - self._position)
                block = os.pread(self._descriptor, wanted, self._position)
                if not block:
                    raise self._broken("deflated data ends early")
                self._position += len(block)
            try:
                piece = inflater.decompress(block, len(buffer) - filled)
            except isal_zlib.error as error:  # type: ignore[misc]
                raise self._broken(f"deflated data is damaged: {error}") from error
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def check_end(self) -> None:
        """Nothing may be left, and length and CRC-32 must be the directory's.

        Raises:
            SampleError: they are not.
        """
        if self.read_into(memoryview(bytearray(1))):
            raise self._broken("zip member is longer than its array")
        if self.produced_bytes != self.info.file_size:
            raise self._broken("zip member length", self.produced_bytes, self.info.file_size)
        if self.crc32 != self.info.CRC:
            raise self._broken("CRC-32 wrong", f"{self.crc32:08x}", f"{self.info.CRC:08x}")


class SourceVolume:
    """An open NPZ file and the one volume in it; a context manager.

    Construction reads the directory and the array's header, not its data.

    Raises:
        SampleError: it cannot be read, or has no single numeric 3-D array (named ``array_key``).
    """

    def __init__(self, path: Path, array_key: str | None = None) -> None:
        self.path = path
        # Non-blocking, so that a FIFO under a volume's name cannot hang a worker.
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            self._opened = os.fstat(self._descriptor)
            if not stat.S_ISREG(self._opened.st_mode):
                raise SampleError("not a regular file", where=path)
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            info, self.npy = self._choose(array_key)
            self._member = _Member(self._descriptor, info, path)
            self._member.read(self.npy.size_bytes)
        except OSError as error:
            self.close()
            raise _unreadable(path, error) from error
        except BaseException:
            self.close()
            raise
        self.header = ArrayHeader(
            array_key=info.filename.removesuffix(".npy"),
            dtype=self.npy.dtype.str,
            shape=self.npy.shape,
            fortran_order=self.npy.fortran_order,
            compression="stored" if info.compress_type == _STORED else "deflated",
        )

    def _choose(self, array_key: str | None) -> tuple[zipfile.ZipInfo, NpyHeader]:
        with os.fdopen(os.dup(self._descriptor), "rb") as stream:
            try:
                with zipfile.ZipFile(stream) as archive:
                    members = archive.infolist()
            except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
                raise SampleError(f"not a readable NPZ: {error}", where=self.path) from error
        named = [m for m in members if m.filename.endswith(".npy")]
        if array_key is not None:
            named = [m for m in named if m.filename == f"{array_key}.npy"]
        if len(named) > _MAX_MEMBERS:
            raise SampleError("too many arrays in one NPZ", where=self.path, seen=len(named))
        seen: list[str] = []
        volumes: list[tuple[zipfile.ZipInfo, NpyHeader]] = []
        for info in named:
            try:
                header = read_header(_Member(self._descriptor, info, self.path).read)
            except SampleError as error:
                seen.append(f"{info.filename} ({error.what})")
                continue
            seen.append(f"{info.filename} ({header})")
            if header.is_volume:
                volumes.append((info, header))
        if len(volumes) != 1:
            several = "several 3-D arrays; name one with --array_key"
            raise SampleError(
                several if volumes else "no numeric 3-D array",
                where=self.path,
                seen=", ".join(seen) or "no array" + (f" named {array_key}" if array_key else ""),
                expected="one numeric 3-D array",
            )
        self._check_size(*volumes[0])
        return volumes[0]

    def _check_size(self, info: zipfile.ZipInfo, header: NpyHeader) -> None:
        promised = header.size_bytes + header.data_bytes
        if promised != info.file_size:
            raise SampleError(
                "the array's header and the zip directory disagree on its size",
                where=f"{self.path}: {info.filename}",
                seen=f"{promised} bytes for {header}",
                expected=f"{info.file_size} bytes",
            )
        if header.data_bytes // header.dtype.itemsize > MAX_VOXELS:
            raise SampleError(
                "volume too large", where=self.path, seen=header, expected=f"≤ {MAX_VOXELS} voxels"
            )

    def read_into(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with the array's next bytes, as stored; 0 after the last.

        Raises:
            SampleError: damaged data; CRC-32 and length are checked with the last byte.
        """
        left = self._member.info.file_size - self._member.produced_bytes
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
        return filled

    def blocks(self, block_voxels: int) -> Iterator[NDArray[Any]]:
        """The array's elements in file order, 1-D and as stored; each valid until the next.

        Raises:
            SampleError: as `read_into` does.
        """
        buffer = np.empty(block_voxels, self.npy.dtype)
        view = buffer.view(np.uint8).data
        while size_bytes := self.read_into(view):
            yield buffer[: size_bytes // buffer.itemsize]

    def fingerprint(self, relative: str) -> SourceFingerprint:
        """The file's identity as it was opened; call it after the last byte.

        Raises:
            SampleError: the file changed while it was read.
        """
        now, then = os.fstat(self._descriptor), self._opened
        if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            raise SampleError("source changed while it was read", where=self.path)
        # Not now's ctime: a writer that has put size and mtime back must not pass at the gate.
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
    """The header of the volume in ``path``, without reading its data.

    Raises:
        SampleError: it cannot be read, or has no single numeric 3-D array.
    """
    with SourceVolume(path, array_key) as volume:
        return volume.header


def fetch_ahead(path: Path) -> None:
    """Have the kernel fetch the start of the source that is next, where it can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _fetch(descriptor, 0)
        finally:
            os.close(descriptor)


def _fetch(descriptor: int, offset: int) -> None:
    with contextlib.suppress(OSError):  # advice that a file system does not take
        os.posix_fadvise(descriptor, offset, _AHEAD_BYTES, os.POSIX_FADV_WILLNEED)


def _unreadable(path: Path, error: OSError) -> SampleError:
    if error.errno == errno.ENOENT:
        return SampleError("source is missing", where=path)
    return UnreadableSource(f"source cannot be read: {error.strerror or error}", where=path)
