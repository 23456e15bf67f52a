"""Read an untrusted NIfTI header of version 1 or 2, in either byte order.

Sources of the format: nifti1.h and nifti2.h, https://nifti.nimh.nih.gov/nifti-1 and nifti-2.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.affines import Affine, is_usable, rows_of, spacing_of

MAX_BYTES_BEFORE_VOXELS = 2**26
"""The most bytes of header and extensions; a longer file is refused before it is inflated."""

_VOXEL_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4",
    1024: "i8", 1280: "u8",
}  # fmt: skip
"""The codes of ``datatype`` that are one number a voxel."""

_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""The codes of ``xyzt_units`` for space: unknown, which is taken for mm, metre, mm, micron."""

_SPACE_UNIT_BITS = 0x07
_EXTENSION_FLAG_BYTES = 4
_PIECE_BYTES = 2**18

_ROUNDING = 1e-5
"""The most by which the square of a quaternion of single precision may exceed 1."""


@dataclass(frozen=True)
class _Version:
    """Where a version's fields lie: the offset and the ``struct`` code of each."""

    size_bytes: int
    magic: bytes
    pair_magic: bytes
    magic_at: int
    dim: tuple[int, str]
    datatype: tuple[int, str]
    bitpix: tuple[int, str]
    pixdim: tuple[int, str]
    vox_offset: tuple[int, str]
    scl: tuple[int, str]
    codes: tuple[int, str]
    quaternion: tuple[int, str]
    sform: tuple[int, str]
    units: tuple[int, str]


_VERSIONS = {
    348: _Version(
        size_bytes=348, magic=b"n+1\0", pair_magic=b"ni1\0", magic_at=344,
        dim=(40, "8h"), datatype=(70, "h"), bitpix=(72, "h"), pixdim=(76, "8f"),
        vox_offset=(108, "f"), scl=(112, "2f"), codes=(252, "2h"), quaternion=(256, "6f"),
        sform=(280, "12f"), units=(123, "B"),
    ),
    540: _Version(
        size_bytes=540, magic=b"n+2\0\r\n\x1a\n", pair_magic=b"ni2\0\r\n\x1a\n", magic_at=4,
        dim=(16, "8q"), datatype=(12, "h"), bitpix=(14, "h"), pixdim=(104, "8d"),
        vox_offset=(168, "q"), scl=(176, "2d"), codes=(344, "2i"), quaternion=(352, "6d"),
        sform=(400, "12d"), units=(500, "i"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class NiftiHeader:
    """The facts of a header that conversion needs. Axes are in the file's order, x first.

    ``size_bytes`` is the size of the header without its extensions.
    ``scaling`` is (slope, intercept): a stored element times the one plus the other is the voxel's
    value. It is (1, 0) if the header asks for none. ``affine`` maps a voxel's index (x, y, z) to
    RAS+ mm; it is empty unless the sform or the qform gives one. ``spacing_mm`` is empty unless the
    header states it.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, int, int]
    size_bytes: int
    voxels_offset: int
    scaling: tuple[float, float]
    affine: Affine
    affine_from: str
    spacing_mm: tuple[float, ...]


def read_nifti_header(read: Callable[[int], bytes], most_bytes: int) -> tuple[NiftiHeader, bytes]:
    """Return the header, and all bytes before the voxels as ``read(size_bytes)`` gives them.

    If those are more than ``most_bytes``, they are passed over and are returned without extensions.

    Raises:
        SampleError: the bytes are no header of a NIfTI file of one 3-D volume of numbers.
    """
    raw = read(4)
    order, version = _recognised(raw)
    raw += read(version.size_bytes - len(raw))
    if len(raw) < version.size_bytes:
        raise SampleError(
            "NIfTI header cut short", seen=len(raw), expected=f"{version.size_bytes} bytes"
        )
    header = _parse(raw, version, order)
    raw += read(header.size_bytes - len(raw))
    read_bytes = len(raw)
    while piece := read(min(header.voxels_offset - read_bytes, _PIECE_BYTES)):
        read_bytes += len(piece)
        if header.voxels_offset <= most_bytes:
            raw += piece
    if read_bytes < header.voxels_offset:
        raise SampleError(
            "NIfTI file ends before its voxels",
            seen=f"{read_bytes} bytes",
            expected=f"voxels from byte {header.voxels_offset} on",
        )
    return header, raw


def _recognised(raw: bytes) -> tuple[str, _Version]:
    # The header's own size comes first, and tells byte order and version.
    for order in "<>":
        version = _VERSIONS.get(struct.unpack(order + "i", raw)[0]) if len(raw) == 4 else None
        if version is not None:
            return order, version
    raise SampleError(
        "not a NIfTI file", seen=raw.hex(" ") or "no bytes", expected="a header of 348 or 540 bytes"
    )


def _parse(raw: bytes, version: _Version, order: str) -> NiftiHeader:
    def field(place: tuple[int, str]) -> tuple[Any, ...]:
        offset, code = place
        return struct.unpack_from(order + code, raw, offset)

    magic = raw[version.magic_at : version.magic_at + len(version.magic)]
    if magic == version.pair_magic:
        raise SampleError(
            "NIfTI header of a pair of files: its voxels lie in another file",
            seen=repr(magic),
            expected=repr(version.magic),
        )
    if magic != version.magic:
        raise SampleError("not a NIfTI file", seen=repr(magic), expected=repr(version.magic))
    dtype = _dtype(order, field(version.datatype)[0], field(version.bitpix)[0])
    pixdim = field(version.pixdim)
    mm = _MM_PER_UNIT.get(field(version.units)[0] & _SPACE_UNIT_BITS, 1.0)
    affine, affine_from = _affine(
        field(version.codes), field(version.sform), field(version.quaternion), pixdim, mm
    )
    return NiftiHeader(
        dtype=dtype,
        shape=_shape(field(version.dim)),
        size_bytes=version.size_bytes + _EXTENSION_FLAG_BYTES,
        voxels_offset=_voxels_offset(field(version.vox_offset)[0], version.size_bytes),
        scaling=_scaling(*field(version.scl)),
        affine=affine,
        affine_from=affine_from,
        spacing_mm=_spacing(affine, pixdim, mm),
    )


def _dtype(order: str, code: int, bits: int) -> np.dtype[Any]:
    name = _VOXEL_TYPES.get(code)
    if name is None:
        raise SampleError(
            "NIfTI voxels are not of one number each", seen=f"datatype {code}", expected="numbers"
        )
    dtype = np.dtype(order + name)
    if bits != dtype.itemsize * 8:
        raise SampleError(
            "NIfTI header contradicts itself on the size of a voxel",
            seen=f"bitpix {bits}",
            expected=f"{dtype.itemsize * 8} for datatype {code}",
        )
    return dtype


def _shape(dim: tuple[int, ...]) -> tuple[int, int, int]:
    sizes = dim[1 : dim[0] + 1] if 1 <= dim[0] <= 7 else ()
    x, y, z, *more = (*sizes, 1, 1, 1) if len(sizes) < 3 else sizes
    if len(sizes) < 3 or min(sizes) < 1 or any(size != 1 for size in more):
        seen = "×".join(map(str, sizes)) or f"{dim[0]} dimensions"
        raise SampleError("NIfTI file holds no single 3-D volume", seen=seen, expected="x×y×z")
    return x, y, z


def _voxels_offset(offset: float, header_bytes: int) -> int:
    least = header_bytes + _EXTENSION_FLAG_BYTES
    # Version 1 holds the offset as a float.
    if not (math.isfinite(offset) and offset == int(offset) and offset >= least):
        raise SampleError(
            "NIfTI voxels begin inside the header", seen=f"byte {offset:g}", expected=f"≥ {least}"
        )
    if offset > MAX_BYTES_BEFORE_VOXELS:
        raise SampleError(
            "NIfTI extensions too large",
            seen=f"voxels from byte {offset:g} on",
            expected=f"≤ {MAX_BYTES_BEFORE_VOXELS}",
        )
    return int(offset)


def _scaling(slope: float, intercept: float) -> tuple[float, float]:
    """Return (slope, intercept). A slope of 0, or one that is no number, asks for no scaling."""
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    if not math.isfinite(intercept):
        raise SampleError(
            "NIfTI header has a slope but no intercept", seen=intercept, expected="a number"
        )
    return float(slope), float(intercept)


def _affine(
    codes: tuple[int, int],
    sform: tuple[float, ...],
    quaternion: tuple[float, ...],
    pixdim: tuple[float, ...],
    mm: float,
) -> tuple[Affine, str]:
    """Return the affine and the field it is from: the sform, else the qform, else neither."""
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not usable
        for name, code, matrix in _candidates(codes, sform, quaternion, pixdim):
            matrix[:3] *= mm
            if code > 0 and is_usable(matrix):
                return rows_of(matrix), f"NIfTI {name}, code {code}"
    # Some readers make up an affine from the shape here. What the header does not state is not
    # claimed.
    return (), ""


def _candidates(
    codes: tuple[int, int],
    sform: tuple[float, ...],
    quaternion: tuple[float, ...],
    pixdim: tuple[float, ...],
) -> Iterator[tuple[str, int, NDArray[np.float64]]]:
    qform_code, sform_code = codes
    yield "sform", sform_code, np.array([*sform, 0, 0, 0, 1], np.float64).reshape(4, 4)
    yield "qform", qform_code, _from_quaternion(quaternion, pixdim)


def _from_quaternion(
    quaternion: tuple[float, ...], pixdim: tuple[float, ...]
) -> NDArray[np.float64]:
    """Return the qform's affine, as nifti1.h gives it under "METHOD 2".

    It is zero if the header contradicts the format: if the quaternion is longer than 1, so that it
    is no rotation, or if a voxel's size is not positive. Readers differ on what such a header is.
    """
    b, c, d, *offset = quaternion
    square = b * b + c * c + d * d
    # With ``not``, so that NaN, for which every comparison is false, ends here too.
    if not (square <= 1 + _ROUNDING and min(pixdim[1:4]) > 0):
        return np.zeros((4, 4))
    a = math.sqrt(max(0.0, 1.0 - square))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    left_handed = -1.0 if pixdim[0] < 0 else 1.0
    zooms = np.array([pixdim[1], pixdim[2], pixdim[3] * left_handed], np.float64)
    matrix = np.eye(4)
    # A quaternion that rounding has made a trifle longer than 1 is brought back to that length.
    matrix[:3, :3] = rotation / max(1.0, square) * zooms
    matrix[:3, 3] = offset
    return matrix


def _spacing(affine: Affine, pixdim: tuple[float, ...], mm: float) -> tuple[float, ...]:
    """Return the voxel size along x, y and z; empty if the header states none.

    Without an affine, sizes that are all 1 are what a writer leaves who knows none.
    """
    if affine:
        return spacing_of(affine)
    sizes = tuple(float(size) * mm for size in pixdim[1:4])
    known = all(math.isfinite(size) and size > 0 for size in sizes) and set(pixdim[1:4]) != {1.0}
    return sizes if known else ()
