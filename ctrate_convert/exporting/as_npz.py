"""Write a sample as an NPZ file: the source's own entries, or the array with its geometry."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.exporting.held import Held

_WHEN = (1980, 1, 1, 0, 0, 0)
"""The time of every entry: the same sample gives the same bytes."""

_LEVEL = 1


def write_source(held: Held, stream: BinaryIO, scratch: Path) -> None:
    """Write the NPZ that the sample was made from: its array and all entries, byte for byte.

    Raises:
        DamageError: the shard does not hold what its record says.
        OSError: it cannot be read, or the file not be written.
    """
    header = held.header
    deflated = header.compression == "deflated"
    raw_header = held.raw_header
    if raw_header is None:  # a shard of an earlier version: the header as numpy writes it
        raw_header = _npy_header(np.dtype(header.dtype), header.shape, header.fortran_order)
    with zipfile.ZipFile(stream, "w") as archive:
        archive.comment = held.comment
        _add(archive, f"{header.array_key}.npy", raw_header, held.source_blocks(scratch), deflated)
        for entry in held.entries:
            _add(archive, entry.name, entry.data, (), deflated)


def write_array(held: Held, stream: BinaryIO) -> None:
    """Write the array as it lies in the shard as ``data``, and its geometry as ``metadata``.

    Raises:
        DamageError: the shard does not hold what its record says.
        OSError: it cannot be read, or the file not be written.
    """
    dtype = np.dtype(held.array.dtype).newbyteorder("<")
    with zipfile.ZipFile(stream, "w") as archive:
        header = _npy_header(dtype, held.array.shape, fortran_order=False)
        _add(archive, "data.npy", header, held.stored_blocks(), deflated=True)
        for name, array in _beside(held).items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            _add(archive, f"{name}.npy", buffer.getvalue(), (), deflated=True)


def _beside(held: Held) -> dict[str, NDArray[Any]]:
    """Return the entries that tell what the array is, in the form that planning reads."""
    array, geometry = held.array, held.geometry
    told = {
        "key": held.sample.key,
        **geometry.model_dump(mode="json", exclude={"affine", "contradiction"}),
        "affine": {"final": geometry.affine} if geometry.affine else {},
        "value_scale": array.value_scale,
        "hu_slope": array.hu_slope,
        "hu_intercept": array.hu_intercept,
        "max_abs_error": array.max_abs_error,
    }
    found: dict[str, NDArray[Any]] = {"metadata": np.array(json.dumps(told).encode())}
    if held.raw_header and held.header.kind == "nifti":
        found["nifti_header"] = np.frombuffer(held.raw_header, np.uint8)
    return found


def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...], fortran_order: bool) -> bytes:
    stream = io.BytesIO()
    fields = {"descr": dtype.str, "fortran_order": fortran_order, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()


def _add(
    archive: zipfile.ZipFile,
    name: str,
    first: bytes,
    blocks: Iterable[NDArray[Any]],
    deflated: bool,
) -> None:
    info = zipfile.ZipInfo(name, _WHEN)
    info.compress_type = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    info.external_attr = 0o600 << 16
    # Python 3.13 renamed the attribute; the constructor takes no level.
    info._compresslevel = _LEVEL  # type: ignore[attr-defined]
    with archive.open(info, "w", force_zip64=True) as member:
        member.write(first)
        for block in blocks:
            member.write(block.data.cast("B"))
