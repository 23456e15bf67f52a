"""NIfTI files with headers of every sort, written by nibabel or byte by byte."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

RNG = np.random.default_rng(11)
SHAPE = (7, 6, 5)
HU = RNG.integers(-1024, 1500, SHAPE).astype(np.int16)

LPS = np.array([[-0.7, 0, 0, 170], [0, -0.7, 0, 160], [0, 0, 1.5, -300], [0, 0, 0, 1.0]])
RAS = np.array([[0.8, 0, 0, -90], [0, 0.8, 0, -80], [0, 0, 1.0, -20], [0, 0, 0, 1.0]])


def turned(about: tuple[float, float, float], degrees: float, base: Array = LPS) -> Array:
    """``base`` turned about an axis: an oblique scan."""
    x, y, z = np.array(about) / np.linalg.norm(about)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    found = base.copy()
    found[:3, :3] = rotation @ base[:3, :3]
    return found


def swapped(order: tuple[int, int, int], base: Array = LPS) -> Array:
    """``base`` with its columns in another order: sagittal and coronal scans."""
    return np.column_stack([base[:, list(order)], base[:, 3]])


@dataclass(frozen=True)
class Made:
    """How a file is made. ``edit`` changes the bytes of the header."""

    voxels: Array = field(default_factory=lambda: HU)
    affine: Array = field(default_factory=lambda: LPS)
    sform: int = 1
    qform: int = 0
    qform_affine: Array | None = None
    scl: tuple[float, float] = (1.0, 0.0)
    version: int = 1
    order: str = "<"
    edit: Callable[[bytearray], None] = lambda raw: None
    pack: Callable[[bytes], bytes] = lambda raw: gzip.compress(raw, 6, mtime=0)
    suffix: str = ".nii.gz"
    sitk: bool = True

    def content(self) -> bytes:
        """The bytes of the uncompressed file."""
        kind = nibabel.Nifti1Image if self.version == 1 else nibabel.Nifti2Image
        dtype = self.voxels.dtype.newbyteorder(self.order)  # type: ignore[arg-type]
        header = kind.header_class(endianness=self.order)
        header.set_data_dtype(dtype)
        image = kind(self.voxels.astype(dtype), None, header)
        image.header.set_xyzt_units("mm")
        image.set_qform(self.qform_affine if self.qform_affine is not None else self.affine,
                        code=self.qform)  # fmt: skip
        image.set_sform(self.affine, code=self.sform)
        stream = io.BytesIO()
        image.header.set_data_offset(352 if self.version == 1 else 544)
        image.header["magic"] = image.header.single_magic
        image.header.write_to(stream)
        raw = bytearray(stream.getvalue().ljust(352 if self.version == 1 else 544, b"\0"))
        place, code = (112, "2f") if self.version == 1 else (176, "2d")
        struct.pack_into(self.order + code, raw, place, *self.scl)
        self.edit(raw)
        return bytes(raw) + self.voxels.astype(dtype).tobytes(order="F")

    def file(self) -> bytes:
        """The bytes of the file."""
        return self.pack(self.content())


def plain(raw: bytes) -> bytes:
    return raw


def members(size_bytes: int) -> Callable[[bytes], bytes]:
    """Pack into several gzip members."""
    return lambda raw: b"".join(
        gzip.compress(raw[at : at + size_bytes], 1, mtime=0)
        for at in range(0, len(raw), size_bytes)
    )


def blocked(raw: bytes) -> bytes:
    """As bgzip does: a field in each member's header tells its size; an empty member is last."""
    found = b""
    for part in [*(raw[at : at + 500] for at in range(0, len(raw), 500)), b""]:
        packed = gzip.compress(part, 6, mtime=0)
        size = len(packed) + 8 - 1
        head = packed[:3] + b"\x04" + packed[4:10] + struct.pack("<H2sHH", 6, b"BC", 2, size)
        found += head + packed[10:]
    return found


def padded(raw: bytes) -> bytes:
    return gzip.compress(raw, 6, mtime=0) + bytes(1000)


def named(raw: bytes) -> bytes:
    """With a file name and a header check, as gzip writes on request."""
    packed = gzip.compress(raw, 6, mtime=0)
    return packed[:3] + b"\x08" + packed[4:10] + b"volume.nii\0" + packed[10:]


def moved(offset: int) -> Callable[[bytearray], None]:
    """Voxels that begin later, after zeros."""

    def edit(raw: bytearray) -> None:
        raw += bytes(offset - len(raw))
        struct.pack_into("<f", raw, 108, offset)

    return edit


def extended(raw: bytearray) -> None:
    """With an extension."""
    text = b"a comment of the scanner".ljust(24, b"\0")
    raw[348] = 1
    raw += struct.pack("<2i", len(text) + 8, 6) + text
    struct.pack_into("<f", raw, 108, 352 + len(text) + 8)


def of_type(name: str) -> Array:
    dtype = np.dtype(name)
    if dtype.kind == "f":
        return (HU + RNG.uniform(-0.5, 0.5, SHAPE)).astype(dtype)
    low = max(np.iinfo(dtype).min, -1024)
    return np.clip(HU, low, min(np.iinfo(dtype).max, 1500)).astype(dtype)


MADE: dict[str, Made] = {
    **{name: Made(of_type(name)) for name in ("u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8")},
    # SimpleITK refuses some 64-bit files.
    **{name: Made(of_type(name), sitk=False) for name in ("i8", "u8")},
    "big-endian i2": Made(order=">"),
    "big-endian f4": Made(of_type("f4"), order=">"),
    # SimpleITK reads no NIfTI-2.
    "NIfTI-2": Made(version=2, sitk=False),
    "NIfTI-2 big-endian": Made(version=2, order=">", sitk=False),
    "RAS": Made(affine=RAS),
    "sagittal": Made(affine=swapped((1, 2, 0))),
    "coronal": Made(affine=swapped((0, 2, 1))),
    "oblique by 8°": Made(affine=turned((1, 0, 0), 8)),
    "oblique by 40°": Made(affine=turned((1, 2, 3), 40)),
    "upside down": Made(affine=turned((1, 0, 0), 180)),
    "left-handed": Made(affine=LPS @ np.diag([1, 1, -1, 1.0])),
    "qform alone": Made(sform=0, qform=1),
    "qform alone, oblique": Made(sform=0, qform=1, affine=turned((3, 1, 0), 25)),
    "qform alone, left-handed": Made(sform=0, qform=1, affine=LPS @ np.diag([1, 1, -1, 1.0])),
    "sform and qform": Made(qform=1),
    # SimpleITK takes the qform here; nibabel, and the format's text, the sform.
    "sform unlike qform": Made(qform=1, qform_affine=RAS, sitk=False),
    "scanner's code 2": Made(sform=2),
    "slope 0": Made(scl=(0.0, 0.0)),
    "slope NaN": Made(scl=(np.nan, np.nan), sitk=False),
    "intercept -1024": Made((HU + 1024).astype(np.int16), scl=(1.0, -1024.0)),
    "slope 2": Made((HU // 2).astype(np.int16), scl=(2.0, -1024.0)),
    "slope 0.5, unsigned": Made((HU + 1024).astype(np.uint16), scl=(0.5, 3.0)),
    "an extension": Made(edit=extended),
    "voxels later": Made(edit=moved(1024)),
    "not compressed": Made(pack=plain, suffix=".nii"),
    "not compressed, big-endian": Made(pack=plain, suffix=".nii", order=">"),
    "upper case": Made(suffix=".NII.GZ", sitk=False),
    "three members": Made(pack=members(200)),
    "many members": Made(pack=members(13)),
    "bgzip": Made(pack=blocked),
    "zeros after the end": Made(pack=padded, sitk=False),
    "a name in the gzip header": Made(pack=named),
    "stored, not deflated": Made(pack=lambda raw: gzip.compress(raw, 0, mtime=0)),
}
