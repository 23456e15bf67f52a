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
from ctrate_convert.formats.npy_header import header_bytes, header_of

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
        dtype = np.dtype(header.dtype)
        raw_header = header_of(dtype, header.shape, fortran_order=header.fortran_order)
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
    header = header_bytes(np.dtype(held.array.dtype), held.array.shape)
    with zipfile.ZipFile(stream, "w") as archive:
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
