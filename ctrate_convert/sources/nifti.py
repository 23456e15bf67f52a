"""Read NIfTI volumes, compressed or not: streamed, each gzip member checked at its end.

NIfTI stores x fastest. Its elements in file order are the elements of a (z, y, x) array in C order,
so that is how a shard stores them: nothing has to be turned. The affine's columns are reversed with
the axes.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.affines import REVERSED, orientation_of, permuted
from ctrate_convert.sources.extra import MAX_EXTRA_BYTES, base64_bytes, estimated_bytes, read_all
from ctrate_convert.sources.gzip_members import MAX_RATIO, GzipMembers
from ctrate_convert.sources.left_out import BYTES_AFTER, LeftOut, user_attributes
from ctrate_convert.sources.nifti_header import NiftiHeader, read_nifti_header
from ctrate_convert.sources.source import Source, SourceArray, fetch
from ctrate_convert.store.records.geometry import Geometry
from ctrate_convert.store.records.plan import ArrayHeader

EXTENSIONS = "nifti-extensions"

_PASSED_BYTES = 2**16
_MOST_BYTES_AFTER = 2**20
"""The most bytes after the voxels that are counted; a file with more is refused."""


class _Stream(Protocol):
    def read_into(self, buffer: memoryview) -> int: ...

    @property
    def left_out(self) -> tuple[LeftOut, ...]: ...


class _PlainStream:
    """The bytes of an uncompressed file, as one stream."""

    left_out: tuple[LeftOut, ...] = ()

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = self._asked_for = 0

    def read_into(self, buffer: memoryview) -> int:
        """Fill ``buffer`` and return the number of bytes; fewer only at the end.

        Raises:
            OSError: the file cannot be read.
        """
        if self._asked_for <= self._position:
            self._asked_for = fetch(self._descriptor, self._position)
        filled = 0
        while filled < len(buffer):
            got = os.preadv(self._descriptor, [buffer[filled:]], self._position)
            if not got:
                break
            filled += got
            self._position += got
        return filled


class NiftiSource(Source):
    """An open NIfTI file and its volume, as a (z, y, x) array.

    The name tells if the file is compressed: ``.nii.gz`` is gzip, ``.nii`` is not.

    Raises:
        SampleError: the file cannot be read, or holds no single 3-D volume of numbers.
    """

    header_name = "nifti-header"
    header_is_plain = False

    def _open(self, array_key: str | None) -> None:
        compressed = self.path.name.lower().endswith(".gz")
        self._stream: _Stream = (
            GzipMembers(self._descriptor, self.path)
            if compressed
            else _PlainStream(self._descriptor)
        )
        try:
            nifti, self._raw_header = read_nifti_header(self._read, MAX_EXTRA_BYTES)
        except SampleError as error:
            raise SampleError(
                error.what, where=self.path, seen=error.seen, expected=error.expected
            ) from error
        self.array = SourceArray(nifti.dtype, nifti.shape[::-1], fortran_order=False)
        self._left_bytes = self.array.data_bytes
        self._require_room(nifti.voxels_offset, compressed=compressed)
        self._left_out = user_attributes(self._descriptor)
        if (more_bytes := nifti.voxels_offset - len(self._raw_header)) > 0:
            self._left_out.append(LeftOut(EXTENSIONS, f"{more_bytes:,} bytes of extensions"))
        self._header = ArrayHeader(
            kind="nifti",
            array_key="",
            dtype=nifti.dtype.str,
            shape=self.array.shape,
            fortran_order=False,
            compression="deflated" if compressed else "stored",
            extra_bytes=estimated_bytes([], b"") + base64_bytes(len(self._raw_header)),
            scaling=nifti.scaling,
            geometry=_geometry(nifti),
        )

    def _read(self, size_bytes: int) -> bytes:
        buffer = bytearray(size_bytes)
        return bytes(buffer[: self._stream.read_into(memoryview(buffer))])

    def _require_room(self, offset: int, *, compressed: bool) -> None:
        """Raise if the file is too small for the voxels that its header promises.

        Raises:
            SampleError: it is.
        """
        promised = offset + self._left_bytes
        size_bytes = self._status.st_size
        most = size_bytes * MAX_RATIO if compressed else size_bytes
        if promised > most:
            raise SampleError(
                "NIfTI file is too small for its volume",
                where=self.path,
                seen=f"{size_bytes} bytes" + (" compressed" if compressed else ""),
                expected=f"{promised} bytes of {self.array.dtype.name} "
                + "×".join(map(str, self.array.shape[::-1])),
            )

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Large extensions, attributes of the file, and what follows the voxels."""
        return (*self._left_out, *self._stream.left_out)

    @property
    def raw_header(self) -> bytes:
        """The header and its extensions, up to the first voxel."""
        return self._raw_header

    def source_extra(self) -> list[dict[str, Any]]:
        """Return the list of a file without other entries."""
        return read_all([], b"", lambda look: (b"", b""))

    def _fill(self, buffer: memoryview) -> int:
        if self._left_bytes == 0:
            return 0
        wanted = min(len(buffer), self._left_bytes)
        filled = self._stream.read_into(buffer[:wanted])
        if filled < wanted:
            raise SampleError(
                "voxels end early",
                where=self.path,
                seen=f"{self.array.data_bytes - self._left_bytes + filled} bytes",
                expected=self.array.data_bytes,
            )
        self._left_bytes -= filled
        if self._left_bytes == 0:
            self._read_to_the_end()
        return filled

    def _read_to_the_end(self) -> None:
        """Read what follows the voxels: the last gzip member is checked only at its end."""
        after_bytes = 0
        while got := len(self._read(_PASSED_BYTES)):
            after_bytes += got
            if after_bytes > _MOST_BYTES_AFTER:
                raise SampleError(
                    "NIfTI file is longer than its volume",
                    where=self.path,
                    seen=f"more than {_MOST_BYTES_AFTER:,} bytes after the voxels",
                    expected="none",
                )
        if after_bytes:
            self._left_out.append(LeftOut(BYTES_AFTER, f"{after_bytes:,} bytes after the voxels"))


def _geometry(nifti: NiftiHeader) -> Geometry:
    affine = permuted(nifti.affine, REVERSED)
    return Geometry(
        axes="zyx",
        axes_from="NIfTI: x is fastest",
        spacing_axes_mm=nifti.spacing_mm[::-1],
        spacing_mm=nifti.spacing_mm,
        spacing_from=nifti.affine_from or ("NIfTI pixdim" if nifti.spacing_mm else ""),
        affine=affine,
        affine_from=nifti.affine_from,
        orientation=orientation_of(affine),
    )
