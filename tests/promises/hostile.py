"""NPZ files as an enemy, a broken disk or another program would write them."""

from __future__ import annotations

import io
import math
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPE = (5, 4, 3)
VOLUME = np.arange(60, dtype=np.int16).reshape(SHAPE)


class RunsOnLoad:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (os.fspath(self.marker),))


def npy(header: str | bytes, data: bytes = b"", version: int = 1) -> bytes:
    """An npy file with any header at all."""
    text = header.encode() if isinstance(header, str) else header
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def fields(descr: object = "<i2", order: object = False, shape: object = SHAPE) -> str:
    return repr({"descr": descr, "fortran_order": order, "shape": shape})


def npy_of(array: NDArray[Any], version: tuple[int, int] = (1, 0)) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


def packed(
    *members: tuple[str, bytes],
    method: int = zipfile.ZIP_STORED,
    zip64: bool = False,
    twice: bool = True,
    **lies: int,
) -> bytes:
    """A zip of ``members``; ``lies`` are what it says of the last one instead.

    ``twice``: both in the directory and in the member's own header, which otherwise disagree.
    """
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # a name twice is meant
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            start = stream.tell()
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(data)
        for name, value in lies.items():
            setattr(archive.filelist[-1], name, value)
        if twice and "header_offset" not in lies:
            stream.seek(start)
            stream.write(archive.filelist[-1].FileHeader(zip64))
            stream.seek(archive.start_dir)
    return stream.getvalue()


def npz(array: NDArray[Any], key: str = "data", *, compressed: bool = False) -> bytes:
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    return packed((f"{key}.npy", npy_of(array)), method=method)


def damaged(data: bytes, needle: bytes) -> bytes:
    """``data`` with one bit of ``needle``'s last occurrence flipped."""
    place = data.rindex(needle) + len(needle) - 1
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def _pickled(marker: Path) -> bytes:
    array = np.empty(SHAPE, object)
    array.fill(RunsOnLoad(marker))
    return npz(array)


def _bomb() -> bytes:
    """Says it holds 60 voxels, and inflates to 64 MiB."""
    header = npy_of(VOLUME)[:-120]
    member = ("data.npy", header + bytes(2**26))
    return packed(member, method=zipfile.ZIP_DEFLATED, file_size=len(header) + 120)


def _padded_deflate() -> bytes:
    """A deflated member whose data end before it does."""
    raw = npy_of(VOLUME)
    deflated = zlib.compress(raw, wbits=-15) + b"something else"
    lies: dict[str, Any] = {
        "compress_type": zipfile.ZIP_DEFLATED,
        "file_size": len(raw),
        "CRC": zlib.crc32(raw),
    }
    return packed(("data.npy", deflated), **lies)


def _promising(shape: tuple[int, int, int], method: int) -> bytes:
    """Header and zip directory agree on ``shape`` in int16, of which a few bytes are there."""
    header = npy(fields(shape=shape))
    lies: dict[str, Any] = {"file_size": len(header) + 2 * math.prod(shape)}
    if method == zipfile.ZIP_STORED:
        lies["compress_size"] = lies["file_size"]
    return packed(("data.npy", header + bytes(99)), zip64=True, method=method, **lies)


NO_VOLUME = "no numeric 3-D array"
_POINTED = repr({"descr": "<i2", "fortran_order": False, "shape": SHAPE, "x": 1})
_HUGE = 10**3300
_TEN_TB = (25_000, 20_000, 10_000)
_ARRAYS = [(f"{number}.npy", npy_of(VOLUME)) for number in range(1001)]
_DEFLATED_DATA = np.arange(6000, dtype=np.int16).reshape(20, 20, 15)
_FLOATS = VOLUME.astype(np.float32)


@dataclass(frozen=True)
class Hostile:
    """A file that cannot be converted, and what must be said of it."""

    data: Callable[[Path], bytes] | bytes
    says: str

    def write(self, path: Path, marker: Path) -> None:
        path.write_bytes(self.data if isinstance(self.data, bytes) else self.data(marker))


def _with(array: NDArray[Any], value: float) -> NDArray[Any]:
    changed = array.copy()
    changed[2, 1, 1] = value
    return changed


HOSTILE: dict[str, Hostile] = {
    # What could run code or hold something else than numbers.
    "pickled objects": Hostile(_pickled, "holds pickled Python objects, which are never loaded"),
    "records": Hostile(
        npz(np.zeros(SHAPE, [("hu", "<i2"), ("mask", "u1")])), "array of records, not of numbers"
    ),
    "text": Hostile(npz(np.full(SHAPE, "CT")), NO_VOLUME),
    "dates": Hostile(npz(np.zeros(SHAPE, "datetime64[s]")), NO_VOLUME),
    "complex": Hostile(npz(np.zeros(SHAPE, np.complex64)), NO_VOLUME),
    "long double": Hostile(npz(np.zeros(SHAPE, np.longdouble)), NO_VOLUME),
    "sub-arrays": Hostile(packed(("data.npy", npy(fields("(3,)<i2")))), NO_VOLUME),
    # What promises more, or less, than is there.
    "10 TB in the header": Hostile(
        packed(("data.npy", npy(fields(shape=_TEN_TB), bytes(99)))),
        "the array's header and the zip directory disagree on its size",
    ),
    "10 TB in both, stored": Hostile(_promising(_TEN_TB, 0), "zip file cut short"),
    "10 TB in both, deflated": Hostile(_promising(_TEN_TB, 8), "volume too large"),
    "8 GiB deflated": Hostile(
        _promising((2048, 2048, 1024), 8), "array too large for one tar member"
    ),
    "4 GiB deflated": Hostile(_promising((2048, 2048, 512), 8), "array data ends early"),
    "4 GiB stored": Hostile(_promising((2048, 2048, 512), 0), "zip file cut short"),
    "sizes of 3,300 digits": Hostile(
        packed(("data.npy", npy(fields(shape=(_HUGE, _HUGE, 1))))), "shape is no tuple of sizes"
    ),
    "zip bomb": Hostile(lambda _: _bomb(), "zip member is longer than its array"),
    "1,001 arrays": Hostile(packed(*_ARRAYS), "too many entries in one NPZ"),
    "zero-size": Hostile(npz(np.zeros((0, 4, 3), np.int16)), "data.npy (int16 0×4×3)"),
    "2-D": Hostile(npz(np.zeros((5, 4), np.int16)), "data.npy (int16 5×4)"),
    "4-D": Hostile(npz(np.zeros((1, 5, 4, 3), np.int16)), "data.npy (int16 1×5×4×3)"),
    "scalar": Hostile(npz(np.array(1.0)), "data.npy (float64 scalar)"),
    "no array": Hostile(packed(("notes.txt", b"none")), "seen notes.txt (file), expected one"),
    "several arrays": Hostile(
        packed(("a.npy", npy_of(VOLUME)), ("b.npy", npy_of(VOLUME))),
        "several arrays of 3-D or more; name one with --array_key",
    ),
    "two arrays of one name": Hostile(
        packed(("data.npy", npy_of(VOLUME)), ("data.npy", npy_of(VOLUME + 1))),
        "data.npy (its name stands there twice)",
    ),
    # Damaged zip files.
    "empty file": Hostile(b"", "not a readable NPZ: File is not a zip file"),
    "text file": Hostile(b"version https://git-lfs.github.com/spec/v1\n", "not a readable NPZ"),
    "truncated zip": Hostile(npz(VOLUME)[:-30], "not a readable NPZ: File is not a zip file"),
    "beginning lost": Hostile(npz(VOLUME)[40:], "its beginning is lost"),
    "wrong CRC, stored": Hostile(
        damaged(npz(VOLUME), VOLUME.tobytes()), "CRC-32 wrong (%s: data.npy): seen"
    ),
    "wrong CRC, deflated": Hostile(
        packed(("data.npy", npy_of(VOLUME)), method=8, CRC=0x12345678),
        "CRC-32 wrong (%s: data.npy): seen",
    ),
    "damaged deflate": Hostile(
        damaged(npz(_DEFLATED_DATA, compressed=True), b"PK\x01\x02"), "not a readable NPZ"
    ),
    "deflate cut short": Hostile(
        packed(("data.npy", npy_of(_DEFLATED_DATA)), method=8, compress_size=900),
        "deflated data ends early",
    ),
    "no local header": Hostile(
        packed(("data.npy", npy_of(VOLUME)), header_offset=7), "zip member has no local header"
    ),
    "member beyond the file": Hostile(
        packed(("data.npy", npy_of(VOLUME)), zip64=True, header_offset=2**63 + 5),
        "zip member lies outside its file",
    ),
    "another name in its own header": Hostile(
        npz(VOLUME).replace(b"data.npy", b"date.npy", 1), "header and the zip directory disagree"
    ),
    "another CRC in its own header": Hostile(
        packed(("data.npy", npy_of(VOLUME)), CRC=0x12345678, twice=False),
        "header and the zip directory disagree",
    ),
    "members that overlap": Hostile(
        packed(("notes.bin", npz(VOLUME)), ("data.npy", npy_of(VOLUME)), header_offset=39),
        "zip members overlap",
    ),
    "bytes after the deflated data": Hostile(_padded_deflate(), "bytes after the end of the data"),
    "two volumes": Hostile(
        packed(("ct.npy", npy_of(VOLUME[None])), ("preview.npy", npy_of(VOLUME))),
        "seen ct.npy (int16 1×5×4×3), preview.npy (int16 5×4×3)",
    ),
    "bytes that are no bools": Hostile(
        npz((VOLUME % 30).astype(np.uint8).view(bool)), "other bytes than 0 and 1"
    ),
    "encrypted": Hostile(
        packed(("data.npy", npy_of(VOLUME)), flag_bits=1), "zip member is encrypted"
    ),
    "bzip2": Hostile(
        packed(("data.npy", npy_of(VOLUME)), method=zipfile.ZIP_BZIP2),
        "zip member uses another compression",
    ),
    # Damaged npy headers.
    "not npy": Hostile(packed(("data.npy", b"II*\0" + bytes(99))), "not an npy array"),
    "npy of four bytes": Hostile(packed(("data.npy", b"\x93NUM")), "not an npy array"),
    "npy version 4": Hostile(packed(("data.npy", npy(fields(), version=4))), "not an npy array"),
    "npy header too long": Hostile(
        packed(("data.npy", npy(fields() + " " * 11_000))), "npy header too long"
    ),
    "npy header cut short": Hostile(
        packed(("data.npy", npy(fields())[:40])), "npy header cut short"
    ),
    "npy header is code": Hostile(
        packed(("data.npy", npy("__import__('os').getpid()"))), "npy header is not a literal"
    ),
    "npy header is no text": Hostile(
        packed(("data.npy", npy(b"{'descr': '\xff\xfe'}", version=3))),
        "npy header has other fields",
    ),
    "npy header with more": Hostile(
        packed(("data.npy", npy(_POINTED))), "npy header has other fields"
    ),
    "negative size": Hostile(
        packed(("data.npy", npy(fields(shape=(5, -4, 3))))), "shape is no tuple of sizes"
    ),
    "sizes as floats": Hostile(
        packed(("data.npy", npy(fields(shape=(5.0, 4, 3))))), "shape is no tuple of sizes"
    ),
    "no truth value": Hostile(
        packed(("data.npy", npy(fields(order="no")))), "fortran_order is no truth value"
    ),
    "unknown type": Hostile(packed(("data.npy", npy(fields("<q7")))), "npy header: unknown type"),
    "broken type": Hostile(packed(("data.npy", npy(fields("(2,")))), "npy header: unknown type"),
    # Values that the shard's type cannot hold.
    "NaN": Hostile(npz(_with(_FLOATS, np.nan)), "volume has NaN voxels: seen 1, expected 0"),
    "past float16": Hostile(
        npz(_with(_FLOATS, 1e6)), "values too large for the output type become infinite"
    ),
    "past int32": Hostile(npz(_with(VOLUME.astype(np.int64), 2**40)), "values do not fit int32"),
}

VOLUME_TYPES = (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64",
)  # fmt: skip

_WIDE = _with(VOLUME.astype(np.int32), 70_000)
_INFINITE = _with(_FLOATS, np.inf)
_TYPED = [(VOLUME % 2).astype(name) for name in VOLUME_TYPES]

ODD_BUT_SOUND: dict[str, tuple[bytes, NDArray[Any]]] = {
    "Fortran order": (npz(np.asfortranarray(VOLUME)), VOLUME),
    "big-endian": (npz(VOLUME.astype(">i2")), VOLUME),
    "big-endian floats": (npz(_FLOATS.astype(">f4"), compressed=True), _FLOATS),
    "both": (npz(np.asfortranarray(VOLUME.astype(">i4"))), VOLUME),
    "npy version 2": (packed(("data.npy", npy_of(VOLUME, (2, 0)))), VOLUME),
    "npy version 3": (packed(("data.npy", npy_of(VOLUME, (3, 0)))), VOLUME),
    "ZIP64": (packed(("data.npy", npy_of(VOLUME)), zip64=True), VOLUME),
    "ZIP64 deflated": (packed(("x.npy", npy_of(VOLUME)), zip64=True, method=8), VOLUME),
    "something before the zip": (b"#!junk\n" + npz(VOLUME), VOLUME),
    "key that is a path": (npz(VOLUME, "../../etc/x.y"), VOLUME),
    "infinite voxels": (npz(_INFINITE), _INFINITE),
    "past int16": (npz(_WIDE), _WIDE),
    **{array.dtype.name: (npz(array), array) for array in _TYPED},
}
