"""NIfTI sources: whatever their shard does not hold keeps them, and what it holds lets them go."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ctrate_convert import Volumes
from ctrate_convert.errors import ExitCode
from ctrate_convert.synthetic import NIFTI_KINDS, Kind, SyntheticCtRate
from tests.support import (
    DELETE,
    Converted,
    convert_here,
    convert_words,
    load_originals,
    run_cli,
    run_here,
    same_voxels,
    sources_left,
)
from tests.unit.deleting.scenes import Make, delete

VOXELS_OFFSET = 352
XYZT_UNITS, DESCRIPTION, EXTENSION_FLAG, SROW_X, SCL_INTER = 123, 148, 348, 280, 116

Change = Callable[[bytearray], None]


def unpacked(path: Path) -> bytearray:
    data = path.read_bytes()
    return bytearray(gzip.decompress(data) if path.name.endswith(".gz") else data)


def pack(path: Path, data: bytes | bytearray) -> None:
    path.write_bytes(gzip.compress(data, 6, mtime=0) if path.name.endswith(".gz") else data)


def extended(data: bytearray, text: bytes = b"anatomy: chest".ljust(24, b"\0")) -> None:
    """Put an extension with a comment behind the header."""
    data[EXTENSION_FLAG] = 1
    data[VOXELS_OFFSET:VOXELS_OFFSET] = struct.pack("<2i", len(text) + 8, 6) + text
    struct.pack_into("<f", data, 108, VOXELS_OFFSET + len(text) + 8)


def flipped(place: int) -> Change:
    def change(data: bytearray) -> None:
        data[place] ^= 1

    return change


def with_bytes_after(data: bytearray) -> None:
    data += b"a note"


CHANGES: dict[str, tuple[Change, str]] = {
    "first voxel": (flipped(VOXELS_OFFSET), "voxels differ from the shard's"),
    "last voxel": (flipped(-1), "voxels differ from the shard's"),
    "origin": (flipped(SROW_X + 12), "nifti-header (the array's header"),
    "intercept": (flipped(SCL_INTER), "nifti-header (the array's header"),
    "units": (flipped(XYZT_UNITS), "nifti-header (the array's header"),
    "description": (flipped(DESCRIPTION), "nifti-header (the array's header"),
    "an extension": (extended, "nifti-header (the array's header"),
    "bytes after": (with_bytes_after, "bytes-after (6 bytes after the voxels)"),
}


@pytest.fixture(params=NIFTI_KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def one(make: Make, kind: Kind) -> tuple[SyntheticCtRate, Path]:
    made = make(2, kinds=(kind,), shape=(8, 7, 6))
    return made, made.sources[made.keys[0]]


@pytest.mark.parametrize("what", CHANGES)
def test_changed_after_it_was_converted(
    make_ctrate: Make, tmp_path: Path, kind: Kind, what: str
) -> None:
    """A changed voxel, header or tail keeps the file, with the reason; the other one goes."""
    change, says = CHANGES[what]
    made, source = one(make_ctrate, kind)
    converted = convert_here(made, tmp_path / "out")
    status = source.stat()
    data = unpacked(source)
    change(data)
    pack(source, data)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    before = source.read_bytes()
    done = delete(converted)
    assert done.code == ExitCode.REFUSED
    assert says in done.text
    assert sources_left(made) == {made.keys[0]}
    assert source.read_bytes() == before


@pytest.mark.parametrize("what", ["an extension", "description", "origin"])
def test_what_the_header_holds_goes_with_its_volume(
    make_ctrate: Make, tmp_path: Path, kind: Kind, what: str
) -> None:
    """Changed before the conversion, the same bytes are in the shard, and the source may go."""
    made, source = one(make_ctrate, kind)
    data = unpacked(source)
    CHANGES[what][0](data)
    pack(source, data)
    assert run_cli(*convert_words(made, tmp_path / "out", *DELETE)).code == ExitCode.DONE
    assert sources_left(made) == set()
    done = run_cli("export", tmp_path / "out", tmp_path / "again", "--all")
    assert done.code == ExitCode.DONE
    assert unpacked(tmp_path / "again" / source.relative_to(made.data_folder)) == data


def test_bytes_after_the_voxels_have_to_be_given_up_by_name(
    make_ctrate: Make, tmp_path: Path, kind: Kind
) -> None:
    """They keep the source, the plan's record names them, and --discard_members lets it go."""
    made, source = one(make_ctrate, kind)
    data = unpacked(source)
    with_bytes_after(data)
    pack(source, data)
    converted = convert_here(made, tmp_path / "out")
    assert converted.record().converted[0].source_header.left_out == ("bytes-after",)
    assert "--discard_members bytes-after lets it go" in delete(converted).text
    assert sources_left(made) == {made.keys[0]}
    assert delete(converted, "--discard_members", "bytes-after").code == ExitCode.DONE
    assert sources_left(made) == set()


@pytest.mark.parametrize(
    ("field", "says"),
    [("comment", "gzip-fields (11 bytes"), ("extra", "gzip-fields (9 bytes"), ("name", "")],
)
def test_fields_of_the_gzip_header(
    make_ctrate: Make, tmp_path: Path, field: str, says: str
) -> None:
    """A comment or an extra field is content; the name of the file is not."""
    made, source = one(make_ctrate, "nii.gz")
    flags = {"comment": 16, "extra": 4, "name": 8}[field]
    told = {"comment": b"scanner two\0", "extra": b"\x09\0abcdefghi", "name": b"x.nii\0"}[field]
    data = source.read_bytes()
    source.write_bytes(data[:3] + bytes([flags]) + data[4:10] + told + data[10:])
    done = delete(convert_here(made, tmp_path / "out"))
    assert done.code == (ExitCode.REFUSED if says else ExitCode.DONE)
    assert says in done.text
    assert sources_left(made) == ({made.keys[0]} if says else set())


def test_the_same_volume_packed_otherwise_is_the_same(make_ctrate: Make, tmp_path: Path) -> None:
    """Several members, padding and another level hold the same voxels: nothing is lost."""
    made, source = one(make_ctrate, "nii.gz")
    converted = convert_here(made, tmp_path / "out")
    data = unpacked(source)
    parts = [gzip.compress(bytes(data[at : at + 300]), 1) for at in range(0, len(data), 300)]
    source.write_bytes(b"".join(parts) + bytes(700))
    assert delete(converted).code == ExitCode.DONE
    assert sources_left(made) == set()


def test_trash_and_back(make_ctrate: Make, tmp_path: Path, kind: Kind) -> None:
    """Names with two dots go to a trash and come back under their own."""
    made, _ = one(make_ctrate, kind)
    contents = {path: path.read_bytes() for path in made.sources.values()}
    trash = tmp_path / "trash"
    converted = convert_here(made, tmp_path / "out")
    assert delete(converted, "--trash", trash).code == ExitCode.DONE
    assert sources_left(made) == set()
    assert run_here("restore", converted.out).code == ExitCode.DONE
    assert {path: path.read_bytes() for path in made.sources.values()} == contents


def test_a_damaged_shard_keeps_its_sources_and_is_repaired(
    make_ctrate: Make, tmp_path: Path, kind: Kind
) -> None:
    """The sources of a damaged shard stay, and the repair converts them again."""
    made, _ = one(make_ctrate, kind)
    originals = load_originals(made)
    converted = convert_here(made, tmp_path / "out")
    shard = converted.dataset.shard(0)
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 4
    shard.write_bytes(data)
    assert delete(converted).code != ExitCode.DONE
    assert sources_left(made) == set(made.keys)
    repaired = run_here("verify", converted.out, "--full", "--repair", "--num_workers", 1)
    assert repaired.code == ExitCode.DONE, repaired.text
    assert delete(converted).code == ExitCode.DONE
    volumes = Volumes(converted.out)
    assert all(same_voxels(np.asarray(volumes[key].array), originals[key]) for key in made.keys)


def test_a_record_made_again_says_the_same(converted_nifti: Converted) -> None:
    """A lost record is rebuilt from the shard and the plan, geometry and HU included."""
    before = converted_nifti.record()
    path = converted_nifti.dataset.record(0)
    path.unlink()
    done = run_here("verify", converted_nifti.out, "--full", "--repair", "--num_workers", 1)
    assert done.code == ExitCode.DONE, done.text
    for old, new in zip(before.converted, converted_nifti.record().converted, strict=True):
        assert (new.geometry, new.array, new.source_header) == (
            old.geometry, old.array, old.source_header,
        )  # fmt: skip


@pytest.fixture
def converted_nifti(make_ctrate: Make, tmp_path: Path) -> Converted:
    made = make_ctrate(2, kinds=("nii.gz",), shape=(24, 24, 12))
    return convert_here(made, tmp_path / "out", samples_per_shard=2)
