"""Write a sample as NIfTI: with its source's own header, or with one made from its affine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError
from ctrate_convert.exporting.held import Held
from ctrate_convert.formats.affines import REVERSED, permuted
from ctrate_convert.formats.codecs.gzip_stream import new_deflater
from ctrate_convert.formats.nifti import header_bytes
from ctrate_convert.formats.reorder import in_c_order
from ctrate_convert.sources.nifti import EXTENSIONS


def write_source(held: Held, stream: BinaryIO, *, compressed: bool) -> None:
    """Write the NIfTI file that the sample was made from: header, extensions and voxels.

    Raises:
        SampleError: the shard does not hold the source's whole header.
        DamageError: the shard does not hold what its record says.
        OSError: it cannot be read, or the file not be written.
    """
    if not held.raw_header or EXTENSIONS in held.header.left_out:
        raise SampleError(
            "its shard does not hold the source's extensions, which were given up",
            where=held.sample.key,
            expected="--as nifti, which writes a header of its own",
        )
    # The source's file order is the C order of the array in the shard, so nothing has to be turned.
    _write(stream, held.raw_header, held.source_blocks(held.shard.parent), compressed=compressed)


def write_from_affine(held: Held, stream: BinaryIO, scratch: Path) -> None:
    """Write a NIfTI-1 file of the array with its affine, compressed.

    An array with the axes zyx is written with x fastest, as NIfTI files are. Any other array keeps
    its axes, so that nibabel gives the same indices. The header's slope and intercept turn the
    elements into Hounsfield units if that is known, else into the source's unit.

    Raises:
        SampleError: the affine is not known.
        DamageError: the shard does not hold what its record says.
        OSError: it cannot be read, or the file not be written.
    """
    array, geometry = held.array, held.geometry
    if not geometry.affine:
        raise SampleError(
            "its place and orientation are not known, so it cannot be a NIfTI file",
            where=held.sample.key,
            expected="--as source or --as npz",
        )
    scaling = (array.hu_slope, array.hu_intercept) if array.hu_slope else (array.value_scale, 0.0)
    dtype = np.dtype(array.dtype).newbyteorder("<")
    blocks = held.stored_blocks()
    if dtype.kind == "f":  # NIfTI has no float16
        dtype = np.dtype("<f4")
        blocks = (block.astype(dtype) for block in blocks)
    if geometry.axes == "zyx":
        shape, affine = array.shape[::-1], permuted(geometry.affine, REVERSED)
    else:
        shape, affine = array.shape, geometry.affine
        blocks = in_c_order(blocks, shape[::-1], dtype, scratch, fortran_order=True)
    x, y, z = shape
    header = header_bytes(dtype, (x, y, z), affine, scaling)
    _write(stream, header, blocks, compressed=True)


def _write(
    stream: BinaryIO, header: bytes, blocks: Iterable[NDArray[Any]], *, compressed: bool
) -> None:
    if not compressed:
        stream.write(header)
        for block in blocks:
            stream.write(block.data.cast("B"))
        return
    deflater = new_deflater()
    stream.write(deflater.compress(header))
    for block in blocks:
        stream.write(deflater.compress(block.data.cast("B")))
    stream.write(deflater.flush())
