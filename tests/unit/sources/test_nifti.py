"""NIfTI as it is met: nibabel, SimpleITK and this program agree on every header."""

from __future__ import annotations

import gzip
import math
import os
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import voxel_sizes

from ctrate_convert.errors import ExitCode, SampleError
from ctrate_convert.formats.affines import orientation_of, permuted
from ctrate_convert.sources.kinds import open_source, read_array_header
from ctrate_convert.sources.source import Source
from ctrate_convert.store.records.geometry import Geometry
from tests.support import DELETE, convert_words, read_dataset, run_here, sources_left
from tests.unit.deleting.scenes import Make
from tests.unit.sources.made_nifti import LPS, MADE, RAS, Array, Made, extended, plain

KEY = "train_1_a_1"


def written(folder: Path, made: Made) -> Path:
    path = folder / f"{KEY}{made.suffix}"
    path.write_bytes(made.file())
    return path


def read_all(path: Path, block_voxels: int = 50) -> Array:
    """The voxels, of NIfTI as a (z, y, x) array."""
    with open_source(path) as source:
        blocks = [block.copy() for block in source.blocks(block_voxels)]
        assert source.left_out == ()
        elements: Array = np.concatenate(blocks, dtype=source.array.dtype)
        shape = source.array.shape
        return (
            elements.reshape(shape[::-1]).T
            if source.array.fortran_order
            else (elements.reshape(shape))
        )


def geometry(path: Path) -> Geometry:
    found = read_array_header(path).geometry
    assert found is not None
    return found


def in_file_order(path: Path) -> Array:
    """The affine of the (x, y, z) array."""
    return np.array(permuted(geometry(path).affine, (2, 1, 0)))


def load(path: Path) -> Any:
    return nibabel.load(path)


@pytest.mark.parametrize("name", MADE)
def test_as_nibabel_reads_it(tmp_path: Path, name: str) -> None:
    """Stored voxels bit for bit, affine, orientation, spacing, slope and intercept."""
    path = written(tmp_path, MADE[name])
    image = load(path)
    ours = read_all(path)
    assert ours.dtype == image.header.get_data_dtype()
    assert np.array_equal(ours.T, np.asanyarray(image.dataobj.get_unscaled()))
    assert np.allclose(in_file_order(path), image.affine, rtol=0, atol=1e-4)
    found, header = geometry(path), read_array_header(path)
    assert (found.axes, found.orientation[::-1]) == (
        "zyx", "".join(nibabel.aff2axcodes(image.affine)),
    )  # fmt: skip
    assert np.allclose(found.spacing_axes_mm[::-1], voxel_sizes(image.affine))
    assert found.spacing_mm == found.spacing_axes_mm[::-1]
    slope, intercept = header.scaling
    assert np.allclose(ours.T * slope + intercept, image.get_fdata())


@pytest.mark.parametrize("name", [name for name, made in MADE.items() if made.sitk])
def test_as_simpleitk_reads_it(tmp_path: Path, name: str) -> None:
    """Values, origin, spacing and direction, which SimpleITK gives in LPS."""
    path = written(tmp_path, MADE[name])
    image = SimpleITK.ReadImage(os.fspath(path))
    ours = read_all(path)
    slope, intercept = read_array_header(path).scaling
    assert np.allclose(SimpleITK.GetArrayFromImage(image), ours * slope + intercept)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ in_file_order(path)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    assert np.allclose(image.GetSpacing(), spacing, atol=1e-4)
    assert np.allclose(image.GetOrigin(), lps[:3, 3], atol=1e-3)
    assert np.allclose(np.reshape(image.GetDirection(), (3, 3)), lps[:3, :3] / spacing, atol=1e-4)


@pytest.mark.parametrize("name", MADE)
def test_the_header_is_kept_verbatim(tmp_path: Path, name: str) -> None:
    """All bytes before the voxels, extensions included."""
    made = MADE[name]
    content = made.content()
    with open_source(written(tmp_path, made)) as source:
        assert source.raw_header == content[: len(content) - made.voxels.nbytes]


# --- What a header does not say, nobody claims -------------------------------------------------


def edited(place: int, code: str, *values: float) -> Callable[[bytearray], None]:
    return lambda raw: struct.pack_into("<" + code, raw, place, *values)


def without_codes(*pixdim: float) -> Made:
    return Made(sform=0, qform=0, edit=edited(80, "3f", *pixdim), pack=plain, suffix=".nii")


def test_without_codes_there_is_no_affine(tmp_path: Path) -> None:
    """nibabel makes one up from the shape; here the pixdim gives a spacing, and no more."""
    path = written(tmp_path, without_codes(0.7, 0.8, 1.5))
    assert load(path).affine is not None
    found = geometry(path)
    assert (found.affine, found.affine_from, found.orientation) == ((), "", "")
    assert np.allclose(found.spacing_mm, (0.7, 0.8, 1.5))
    assert found.spacing_from == "NIfTI pixdim"
    assert found.axes == "zyx"


@pytest.mark.parametrize(
    "pixdim", [(1, 1, 1), (0, 0.7, 1), (math.nan, 1, 1), (-1, 1, 2), (math.inf, 1, 1)]
)
def test_a_blank_spacing_is_none(tmp_path: Path, pixdim: tuple[float, ...]) -> None:
    """The first release left ones; zeros, NaN and signs are no sizes."""
    found = geometry(written(tmp_path, without_codes(*pixdim)))
    assert (found.spacing_mm, found.spacing_axes_mm, found.spacing_from) == ((), (), "")


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_an_unusable_sform_gives_way_to_the_qform(tmp_path: Path, bad: float) -> None:
    """NaN, infinity, or a row that loses an axis."""
    row = edited(280, "4f", bad, 0.0, 0.0, 5.0)
    with_qform = written(tmp_path, Made(qform=1, edit=row))
    assert geometry(with_qform).affine_from == "NIfTI qform, code 1"
    assert np.allclose(in_file_order(with_qform), LPS, atol=1e-4)
    found = geometry(written(tmp_path, Made(qform=0, edit=row)))
    assert found.affine == ()


def test_the_sform_counts_before_the_qform(tmp_path: Path) -> None:
    """As nibabel has it, and the format's text."""
    path = written(tmp_path, MADE["sform unlike qform"])
    assert geometry(path).affine_from == "NIfTI sform, code 1"
    assert np.allclose(in_file_order(path), LPS, atol=1e-4)
    assert not np.allclose(in_file_order(path), RAS, atol=1e-4)


@pytest.mark.parametrize(("unit", "mm"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (10, 1)])
def test_units_of_space(tmp_path: Path, unit: int, mm: float) -> None:
    """Metres and microns become mm; the unit of time, in the same byte, does not matter."""
    path = written(tmp_path, Made(edit=edited(123, "B", unit)))
    assert np.allclose(geometry(path).spacing_mm, np.array([0.7, 0.7, 1.5]) * mm)


def test_the_letters_are_nibabels() -> None:
    """For random rotations, flips and scales."""
    random = np.random.default_rng(4)
    for _ in range(500):
        matrix = np.eye(4)
        turned, _ = np.linalg.qr(random.normal(size=(3, 3)))
        matrix[:3, :3] = turned @ np.diag(random.uniform(0.3, 3, 3))
        rows = tuple(tuple(map(float, row)) for row in matrix)
        assert orientation_of(rows) == "".join(nibabel.aff2axcodes(matrix))  # type: ignore[arg-type]


# --- Files that are not what they seem ---------------------------------------------------------


def i2(place: int, *values: int) -> Callable[[bytearray], None]:
    return edited(place, f"{len(values)}h", *values)


REFUSED: dict[str, tuple[Made, str]] = {
    "huge": (Made(edit=i2(40, 3, 32767, 32767, 32767)), "NIfTI file is too small for its volume"),
    "larger than the file": (Made(edit=i2(40, 3, 7, 6, 6)), "voxels end early"),
    "empty axis": (Made(edit=i2(40, 3, 7, 0, 5)), "no single 3-D volume: seen 7×0×5"),
    "negative axis": (Made(edit=i2(40, 3, 7, -6, 5)), "no single 3-D volume: seen 7×-6×5"),
    "2-D": (Made(edit=i2(40, 2, 7, 30)), "no single 3-D volume: seen 7×30"),
    "4-D": (Made(edit=i2(40, 4, 7, 6, 1, 5)), "no single 3-D volume: seen 7×6×1×5"),
    "no dimensions": (Made(edit=i2(40, 0)), "no single 3-D volume: seen 0 dimensions"),
    "dimensions of another order": (Made(edit=i2(40, 768)), "768 dimensions"),
    "RGB": (Made(edit=i2(70, 128, 24)), "not of one number each: seen datatype 128"),
    "complex": (Made(edit=i2(70, 32, 64)), "not of one number each: seen datatype 32"),
    "no type": (Made(edit=i2(70, 0, 0)), "not of one number each: seen datatype 0"),
    "bits": (Made(edit=i2(72, 32)), "contradicts itself on the size of a voxel: seen bitpix 32"),
    "offset in the header": (Made(edit=edited(108, "f", 0)), "inside the header: seen byte 0"),
    "offset before it": (Made(edit=edited(108, "f", -352)), "begin inside the header"),
    "offset NaN": (Made(edit=edited(108, "f", math.nan)), "begin inside the header: seen byte nan"),
    "offset infinite": (Made(edit=edited(108, "f", math.inf)), "begin inside the header"),
    "offset of a half": (Made(edit=edited(108, "f", 352.5)), "begin inside the header"),
    "offset past the end": (Made(edit=edited(108, "f", 1e6)), "ends before its voxels"),
    "offset far past the end": (Made(edit=edited(108, "f", 1e12)), "extensions too large"),
    "pair": (Made(edit=lambda raw: raw.__setitem__(slice(344, 348), b"ni1\0")), "pair of files"),
    "Analyze": (Made(edit=lambda raw: raw.__setitem__(slice(344, 348), bytes(4))), "not a NIfTI"),
    "no intercept": (Made(scl=(2.0, math.nan)), "a slope but no intercept"),
    "no header": (Made(edit=lambda raw: raw.__setitem__(slice(0, 4), b"\0\0\0\0")), "not a NIfTI"),
    "empty": (Made(pack=lambda raw: b""), "gzip header cut short"),
    "empty in gzip": (Made(pack=lambda raw: gzip.compress(b"")), "not a NIfTI file: seen no bytes"),
    "not gzip": (Made(pack=plain), "not a gzip file"),
    "gzip": (Made(suffix=".nii"), "not a NIfTI file"),
    "cut header": (Made(pack=lambda raw: gzip.compress(raw[:200])), "NIfTI header cut short"),
    "half": (Made(pack=lambda raw: gzip.compress(raw[: len(raw) // 2])), "voxels end early"),
    "cut gzip": (Made(pack=lambda raw: gzip.compress(raw)[:-60]), "gzip data ends early"),
    "cut trailer": (Made(pack=lambda raw: gzip.compress(raw)[:-3]), "gzip trailer cut short"),
    "wrong CRC": (
        Made(pack=lambda raw: gzip.compress(raw)[:-8] + b"\1\2\3\4" + gzip.compress(raw)[-4:]),
        "gzip CRC-32 wrong",
    ),
    "wrong length": (
        Made(pack=lambda raw: gzip.compress(raw)[:-4] + b"\1\2\3\4"), "gzip length wrong",
    ),
    "wrong CRC of the first of two": (
        Made(pack=lambda raw: (
            gzip.compress(raw[:400])[:-8] + bytes(8) + gzip.compress(raw[400:])
        )), "gzip CRC-32 wrong",
    ),
    "second member damaged": (
        Made(pack=lambda raw: gzip.compress(raw) + gzip.compress(raw)[:10] + b"\xff" * 40),
        "gzip data is damaged",
    ),
    "a member after the last voxel, damaged": (
        Made(pack=lambda raw: gzip.compress(raw) + gzip.compress(b"x" * 99)[:-8] + bytes(8)),
        "gzip CRC-32 wrong",
    ),
    "a bomb after the voxels": (
        Made(pack=lambda raw: gzip.compress(raw + bytes(2**21))), "longer than its volume",
    ),
    "reserved flag": (
        Made(pack=lambda raw: gzip.compress(raw)[:3] + b"\x80" + gzip.compress(raw)[4:]),
        "not a gzip file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    """Each with what is wrong, before or while it is read."""
    made, says = REFUSED[name]
    path = written(tmp_path, made)
    with pytest.raises(SampleError) as caught:
        read_all(path)
    error = caught.value
    assert says in f"{error.what}: seen {error.seen}, expected {error.expected}"
    assert error.where == str(path)


def left_out(path: Path) -> dict[str, str]:
    with open_source(path) as source:
        for _ in source.blocks(1000):
            pass
        return {one.name: one.what for one in source.left_out}


def test_what_no_shard_will_hold_is_named(tmp_path: Path) -> None:
    """Bytes after the voxels or the gzip data, comments, and extensions of more than 1 MiB."""

    def packed(pack: Callable[[bytes], bytes], **more: Any) -> dict[str, str]:
        return left_out(written(tmp_path, Made(pack=pack, **more)))

    def large(raw: bytearray) -> None:
        extended(raw)
        raw += bytes(2**20)
        struct.pack_into("<f", raw, 108, len(raw))

    assert packed(lambda raw: gzip.compress(raw + b"note")) == {
        "bytes-after": "4 bytes after the voxels"
    }
    assert packed(lambda raw: gzip.compress(raw) + b"note") == {
        "bytes-after": "4 bytes after the end of the gzip data"
    }
    assert packed(lambda raw: raw + b"note", suffix=".nii") == {
        "bytes-after": "4 bytes after the voxels"
    }
    assert packed(gzip.compress, edit=large) == {
        "nifti-extensions": f"{2**20 + 32:,} bytes of extensions"
    }


def test_a_sparse_promise_costs_no_memory(tmp_path: Path) -> None:
    """A volume of 4 GiB of zeros is read in pieces."""
    made = Made(np.zeros((7, 6, 5), np.int16), edit=i2(40, 3, 1024, 1024, 40))
    path = tmp_path / f"{KEY}.nii.gz"
    path.write_bytes(gzip.compress(made.content()[:352] + bytes(2 * 1024 * 1024 * 40), 9))
    with open_source(path) as source:
        assert isinstance(source, Source)
        assert sum(len(block) for block in source.blocks(2**17)) == 1024 * 1024 * 40


CONTENTS = [MADE[name] for name in ("i2", "three members", "an extension", "not compressed")]


@given(st.data(), st.sampled_from(CONTENTS), st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_damage_anywhere_is_read_or_refused(data: st.DataObject, made: Made, draw: Any) -> None:
    """Flipped, cut or inserted bytes: read whole, or a SampleError, and nothing else."""
    raw = bytearray(made.file())
    for _ in range(draw.randrange(1, 4)):
        place = draw.randrange(len(raw) or 1)
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "zero"]))
        if how == "flip" and raw:
            raw[place] ^= 1 << draw.randrange(8)
        elif how == "cut":
            del raw[place : place + draw.randrange(1, 50)]
        elif how == "insert":
            raw[place:place] = draw.randbytes(draw.randrange(1, 20))
        else:
            raw[place : place + 8] = bytes(len(raw[place : place + 8]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{KEY}{made.suffix}"
        path.write_bytes(raw)
        try:
            with open_source(path) as source:
                for _ in source.blocks(97):
                    pass
        except SampleError:
            pass


def test_real_voxels_are_those_of_the_npz(tmp_path: Path, real_ct: Path) -> None:
    """A real scan as NIfTI and as NPZ gives the same voxels."""
    with np.load(real_ct / "chest_crop_120x126x164_int16.npz") as arrays:
        volume = arrays["data"]
    path = tmp_path / f"{KEY}.nii.gz"
    nibabel.Nifti1Image(volume, RAS).to_filename(path)
    assert np.array_equal(read_all(path, 2**17).T, volume)
    npz = tmp_path / f"{KEY}.npz"
    np.savez_compressed(npz, data=volume)
    assert np.array_equal(read_all(npz, 2**17), volume)


# --- One of them among others ---------------------------------------------------------------------


def test_each_costs_only_itself(make_ctrate: Make, tmp_path: Path) -> None:
    """Hostile files among sound ones, in one command that deletes: the sound ones are converted,
    the hostile ones stay, each with its reason."""
    hostile = {name: how for name, how in REFUSED.items() if how[0].suffix == ".nii.gz"}
    made = make_ctrate(len(hostile) + 3, kinds=("nii.gz",))
    befallen = dict(zip(made.keys, hostile, strict=False))
    for key, name in befallen.items():
        made.sources[key].write_bytes(hostile[name][0].file())
    before = {key: made.sources[key].read_bytes() for key in befallen}
    done = run_here(*convert_words(made, tmp_path / "out", *DELETE, "--json"))
    assert done.code == ExitCode.SAMPLES_FAILED
    failed = {one["key"]: one["reason"] for one in done.json()["failed_samples"]}
    assert failed.keys() == befallen.keys()
    for key, name in befallen.items():
        reason = failed[key].replace(f" ({made.sources[key]})", "")
        assert hostile[name][1] in reason, name
        assert made.sources[key].read_bytes() == before[key]
    assert sources_left(made) == befallen.keys()
    assert read_dataset(tmp_path / "out").keys() == set(made.keys) - befallen.keys()
