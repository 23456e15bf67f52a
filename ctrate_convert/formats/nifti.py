"""Write the header of a NIfTI-1 file.

Source of the format: nifti1.h, https://nifti.nimh.nih.gov/nifti-1.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.affines import Affine, spacing_of

HEADER_BYTES = 348
VOXELS_OFFSET = 352
"""The header and four bytes that say that no extensions follow."""

_MOST_VOXELS_ALONG = 2**15 - 1
_SCANNER_COORDINATES = 1
_MM = 2
_CODES = {
    "uint8": 2, "int16": 4, "int32": 8, "float32": 16, "float64": 64, "int8": 256,
    "uint16": 512, "uint32": 768, "int64": 1024, "uint64": 1280,
}  # fmt: skip


def header_bytes(
    dtype: np.dtype[Any],
    shape: tuple[int, int, int],
    affine: Affine,
    scaling: tuple[float, float] = (1.0, 0.0),
) -> bytes:
    """Return the bytes before the voxels of a NIfTI-1 file, little-endian.

    ``shape`` and ``affine`` are those of the array whose first axis is the fastest in the file. An
    element times ``scaling[0]`` plus ``scaling[1]`` is the voxel's value. Without an affine, the
    file states none.

    Raises:
        SampleError: NIfTI-1 cannot hold such an array.
    """
    code = _CODES.get(dtype.name)
    if code is None or max(shape) > _MOST_VOXELS_ALONG:
        raise SampleError(
            "NIfTI-1 cannot hold this array",
            seen=f"{dtype.name} {'×'.join(map(str, shape))}",
            expected=f"integers or float32, at most {_MOST_VOXELS_ALONG} along an axis",
        )
    # The offsets are those of the fields in nifti1.h.
    header = bytearray(VOXELS_OFFSET)
    struct.pack_into("<i", header, 0, HEADER_BYTES)  # sizeof_hdr
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)  # dim
    struct.pack_into("<2h", header, 70, code, dtype.itemsize * 8)  # datatype, bitpix
    # pixdim. Its first number matters to a qform alone, and this header has none.
    struct.pack_into("<8f", header, 76, 1.0, *(spacing_of(affine) or (1.0, 1.0, 1.0)), *(0.0,) * 4)
    # vox_offset, scl_slope, scl_inter
    struct.pack_into("<3f", header, 108, VOXELS_OFFSET, *scaling)
    header[123] = _MM  # xyzt_units
    if affine:
        struct.pack_into("<2h", header, 252, 0, _SCANNER_COORDINATES)  # qform_code, sform_code
        # srow_x, srow_y, srow_z
        struct.pack_into("<12f", header, 280, *(number for row in affine[:3] for number in row))
    header[344:348] = b"n+1\0"  # magic
    return bytes(header)
