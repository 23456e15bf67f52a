"""Damaged and absurd NIfTI: what is read is what was written, at no cost that its size excuses."""

from __future__ import annotations

import gzip
import math
import struct
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.hounsfield import IntensityHistogram
from ctrate_convert.sources.kinds import open_source
from tests.unit.sources.made_nifti import LPS, MADE, Made, extended, plain
from tests.unit.sources.test_nifti import KEY, edited, geometry, in_file_order, written

CHECKED = ("i2", "three members", "bgzip", "an extension", "a name in the gzip header")
"""Of `MADE`: a digest covers every byte of the header and the voxels."""


def read(path: Path) -> tuple[bytes, tuple[str, ...]] | str:
    """The content and the names of what is left out, or why the file is refused."""
    try:
        with open_source(path) as source:
            content = source.raw_header + b"".join(block.tobytes() for block in source.blocks(97))
            return content, tuple(one.name for one in source.left_out)
    except SampleError as error:
        return error.what


ENDS_EARLY = {
    "gzip header cut short", "gzip data ends early", "gzip trailer cut short", "not a NIfTI file",
    "NIfTI header cut short", "NIfTI file ends before its voxels", "voxels end early",
    "NIfTI file is too small for its volume",
}  # fmt: skip


# --- Damage in every place ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CHECKED, "not compressed"])
def test_cut_anywhere(tmp_path: Path, name: str) -> None:
    """No file that ends early is read, but for one whose cut member is empty, as bgzip's last."""
    made = MADE[name]
    path, content, raw = written(tmp_path, made), made.content(), made.file()
    read_whole = []
    for size_bytes in range(len(raw)):
        path.write_bytes(raw[:size_bytes])
        found = read(path)
        if isinstance(found, str):
            assert found in ENDS_EARLY
        else:
            assert found[0] == content
            read_whole.append(size_bytes)
    empty_member = len(raw) - 28
    assert read_whole == ([empty_member, empty_member + 1] if name == "bgzip" else [])


@pytest.mark.parametrize("name", CHECKED)
def test_a_flipped_bit_anywhere(tmp_path: Path, name: str) -> None:
    """The file is refused, or gives the same bytes: CRC-32 and length of each member are checked,
    those of the first as those of the last."""
    made = MADE[name]
    path, content, raw = written(tmp_path, made), made.content(), made.file()
    reasons = set()
    for place in range(len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :])
        found = read(path)
        if isinstance(found, str):
            reasons.add(found.partition(":")[0])
        else:
            assert found[0] == content, place
    assert {"not a gzip file", "gzip CRC-32 wrong", "gzip length wrong"} <= reasons


@pytest.mark.parametrize("field", [-8, -4], ids=["CRC-32", "length"])
@pytest.mark.parametrize("member", [0, 1, 2])
def test_a_member_that_lies(tmp_path: Path, member: int, field: int) -> None:
    """Also where the member holds no voxel, as the last one here."""

    def pack(raw: bytes) -> bytes:
        packed = [bytearray(gzip.compress(part)) for part in (raw[:400], raw[400:], b"")]
        packed[member][field] ^= 0x40
        return b"".join(packed)

    says = "gzip CRC-32 wrong" if field == -8 else "gzip length wrong"
    assert read(written(tmp_path, Made(pack=pack))) == says


@pytest.mark.parametrize("version", [1, 2])
def test_gzip_under_the_name_of_none(tmp_path: Path, version: int) -> None:
    """The name says what a file is; nothing is guessed, in either direction."""
    found = read(written(tmp_path, Made(version=version, pack=gzip.compress, suffix=".nii")))
    assert found == "not a NIfTI file"
    assert read(written(tmp_path, Made(version=version, pack=plain))) == "not a gzip file"


NIFTI_2: dict[str, tuple[Callable[[bytearray], None], str]] = {
    "offset before the header": (edited(168, "q", -(2**62)), "begin inside the header"),
    "offset inside the header": (edited(168, "q", 540), "begin inside the header"),
    "offset past any file": (edited(168, "q", 2**62), "extensions too large"),
    "offset past the file": (edited(168, "q", 2**20), "ends before its voxels"),
    "sizes whose product is no machine number": (
        edited(16, "8q", 3, *[2**62] * 3, *[1] * 4), "too small for its volume",
    ),
    "more dimensions than there are": (edited(16, "q", 2**62), "no single 3-D volume"),
    "pair": (lambda raw: raw.__setitem__(slice(4, 8), b"ni2\0"), "pair of files"),
    "line ends turned by FTP": (lambda raw: raw.__setitem__(slice(8, 10), b"\n\n"), "not a NIfTI"),
}  # fmt: skip


@pytest.mark.parametrize("name", NIFTI_2)
def test_nifti_2_refused(tmp_path: Path, name: str) -> None:
    """Its fields are 64 bits wide, and lie elsewhere."""
    edit, says = NIFTI_2[name]
    found = read(written(tmp_path, Made(version=2, edit=edit)))
    assert isinstance(found, str)
    assert says in found


# --- Cost ---------------------------------------------------------------------------------------


def peak_mib(path: Path) -> float:
    tracemalloc.start()
    try:
        read(path)
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


BOMBS: dict[str, tuple[int, int, str]] = {
    "extensions": (2**26, 2**26 + 420, "nifti-extensions"),
    "promised extensions": (2**26, 772, "NIfTI file ends before its voxels"),
    "after the voxels": (352, 2**27, "NIfTI file is longer than its volume"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_no_memory(tmp_path: Path, name: str) -> None:
    """A small file that inflates to much, or promises to."""
    voxels_offset, size_bytes, says = BOMBS[name]
    content = Made(edit=edited(108, "f", voxels_offset)).content()
    path = tmp_path / f"{KEY}.nii.gz"
    path.write_bytes(gzip.compress(content + bytes(size_bytes - len(content)), 1))
    assert peak_mib(path) < 4
    found = read(path)
    assert found == says or found[1] == (says,)


def with_texts(name_bytes: int, comment_bytes: int) -> bytes:
    packed = gzip.compress(b"", mtime=0)
    texts = b"n" * name_bytes + b"\0" + b"c" * comment_bytes + b"\0"
    return packed[:3] + b"\x18" + packed[4:10] + texts + packed[10:]


def test_texts_of_gzip_members(tmp_path: Path) -> None:
    """They end within 64 KiB, and long ones cost no more than their bytes."""

    def of(more: bytes) -> tuple[bytes, tuple[str, ...]] | str:
        return read(written(tmp_path, Made(pack=lambda raw: gzip.compress(raw) + more)))

    assert of(with_texts(2**16, 2**16) * 200) == (Made().content(), ("gzip-fields",))
    assert of(with_texts(2**16, 0)) == (Made().content(), ())
    assert of(with_texts(2**16 + 1, 0)) == "gzip header too long"
    assert of(with_texts(5, 2**16 + 1)) == "gzip header too long"
    assert of(with_texts(2**16, 9)[: 2**16 + 10]) == "gzip header cut short"
    assert of(with_texts(9, 9)[:25]) == "gzip header cut short"


# --- Headers that contradict the format ---------------------------------------------------------

QFORM = Made(sform=0, qform=1, pack=plain, suffix=".nii")


@pytest.mark.parametrize(
    "quaternion", [(0, 0, 2), (0.8, 0.8, 0), (0, 0, math.inf), (1e30, 0, 0), (math.nan, 0, 0)]
)
def test_a_quaternion_that_is_no_rotation(tmp_path: Path, quaternion: tuple[float, ...]) -> None:
    """It would scale too, by 4 for a quaternion of length 2; the pixdim is left."""
    path = written(tmp_path, replace(QFORM, edit=edited(256, "3f", *quaternion)))
    found = geometry(path)
    assert (found.affine, found.affine_from, found.orientation) == ((), "", "")
    assert np.allclose(found.spacing_mm, (0.7, 0.7, 1.5))
    assert found.spacing_from == "NIfTI pixdim"


def test_a_quaternion_that_is_rounded(tmp_path: Path) -> None:
    """Of single precision, its length may exceed 1; it turns and does not scale."""
    path = written(tmp_path, replace(QFORM, edit=edited(256, "3f", 0, 0, 1.000001)))
    assert np.allclose(in_file_order(path), LPS, atol=1e-5)
    assert np.allclose(geometry(path).spacing_mm, (0.7, 0.7, 1.5), rtol=1e-7)


@pytest.mark.parametrize("size", [-0.7, 0.0, math.nan])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_qform_without_sizes(tmp_path: Path, axis: int, size: float) -> None:
    """A negative size would mirror the body; readers differ on it, so nothing is claimed."""
    path = written(tmp_path, replace(QFORM, edit=edited(80 + 4 * axis, "f", size)))
    found = geometry(path)
    assert (found.affine, found.spacing_mm, found.axes) == ((), (), "zyx")


def test_qforms_are_nibabels(tmp_path: Path) -> None:
    """For random quaternions, sizes, offsets and handedness."""
    random = np.random.default_rng(5)
    for _ in range(100):
        quaternion = random.normal(size=4)
        quaternion *= np.sign(quaternion[0]) / np.linalg.norm(quaternion)
        numbers = (*quaternion[1:], *random.uniform(-300, 300, 3))
        sizes = random.uniform(0.3, 5, 3)

        def edit(raw: bytearray, numbers: tuple[float, ...] = numbers, sizes: Any = sizes) -> None:
            struct.pack_into("<4f", raw, 76, 1 if sizes[0] < 2 else -1, *sizes)
            struct.pack_into("<6f", raw, 256, *numbers)

        path = written(tmp_path, replace(QFORM, edit=edit))
        image: Any = nibabel.load(path)
        assert np.allclose(in_file_order(path), image.affine, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "edit",
    [
        edited(400, "4d", 1e308, 0, 0, 1e308),
        edited(400, "4d", 5e-324, 0, 0, 0),
        edited(400, "12d", 1e-321, 0, 0, 0, 0, 0, 1, 170, 160, -300, -0.7, 0),
        edited(352, "3d", 1e308, -1e308, 0),
        edited(104, "4d", 1, 1e308, 1e308, 1e308),
        edited(368, "4d", 0, 1e308, 1e308, 1e308),
    ],
)
@pytest.mark.parametrize("qform", [0, 1])
def test_absurd_numbers_are_no_affine(
    tmp_path: Path, qform: int, edit: Callable[[bytearray], None]
) -> None:
    """In metres, so that they overflow; without a warning that nobody could place."""

    def in_metres(raw: bytearray) -> None:
        edit(raw)
        struct.pack_into("<i", raw, 500, 1)

    made = Made(version=2, sform=1 - qform, qform=qform, edit=in_metres, pack=plain, suffix=".nii")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = geometry(written(tmp_path, made))
    assert all(np.isfinite(found.spacing_mm))
    assert np.isfinite(np.array(found.affine)).all()


def test_an_absurd_slope_is_counted_without_a_warning() -> None:
    """Its values are infinite: the voxels then show no scale."""
    histogram = IntensityHistogram((1e308, 1e308))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        histogram.add(np.arange(-1000, 1000, dtype=np.int16).repeat(300))
        assert histogram.intensity(-1000, 999) == "unknown"


def test_large_extensions_are_passed_over(tmp_path: Path) -> None:
    """The header travels without them; at 1 MiB they still travel."""

    def of(total_bytes: int) -> tuple[bytes, tuple[str, ...]] | str:
        def edit(raw: bytearray) -> None:
            extended(raw)
            raw += bytes(total_bytes - len(raw))
            struct.pack_into("<f", raw, 108, total_bytes)

        made = Made(edit=edit)
        found = read(written(tmp_path, made))
        assert not isinstance(found, str)
        assert found[0][-420:] == made.content()[-420:]
        return found

    assert (len(of(2**20)[0]), of(2**20)[1]) == (2**20 + 420, ())
    assert (len(of(2**20 + 16)[0]), of(2**20 + 16)[1]) == (352 + 420, ("nifti-extensions",))
