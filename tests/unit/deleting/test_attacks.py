"""How scans were once lost, through the real command line: each is kept, and the reason said."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.store.layout import Dataset
from tests.support import (
    DELETE,
    Array,
    Converted,
    Finished,
    convert_words,
    read_dataset,
    run_cli,
    same_voxels,
    sources_left,
)
from tests.unit.deleting.scenes import (
    Make,
    as_read_now,
    delete,
    forge,
    write_volume,
)
from tests.unit.deleting.two_volumes import CT, assert_kept, first, other_bytes

RNG = np.random.default_rng(8)
OBJECTS = np.array([{"scanner": 7}], object)

# --- What is taken for the source --------------------------------------------------------------


def converted_and_deleted(make: Make, out: Path, data: bytes | None, *more: object) -> Finished:
    """One command over one source that holds ``data``."""
    made = make(1)
    if data is not None:
        made.sources[made.keys[0]].write_bytes(data)
    done = run_cli(*convert_words(made, out, *DELETE, *more))
    assert sources_left(made) == set(made.keys), done.text
    assert made.sources[made.keys[0]].read_bytes() == data
    return done


def npz_of(folder: Path, **entries: Any) -> bytes:
    path = folder / "made.npz"
    np.savez(path, **entries)
    return path.read_bytes()


LARGE = np.zeros(2**20 + 1, np.uint8)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (
            {"ct": np.zeros((4, 12, 10, 9), np.int16), "preview": np.zeros((32, 32, 3), np.uint8)},
            "several arrays of 3-D or more; name one with --array_key",
        ),
        ({"ct": np.zeros((4, 12, 10, 9), np.int16)}, "no numeric 3-D array"),
        ({"ct": CT.astype(np.complex64)}, "no numeric 3-D array"),
        ({"ct": CT, "mask": CT > 0}, "several arrays of 3-D or more"),
        ({"ct": CT, "affine": LARGE}, "affine.npy (array of "),
        ({"ct": CT, "notes": OBJECTS}, "notes.npy (pickled Python objects, "),
    ],
    ids=["4-D beside a preview", "4-D", "complex", "mask", "large entry", "objects"],
)
def test_more_than_the_volume(
    make_ctrate: Make, tmp_path: Path, entries: dict[str, Any], says: str
) -> None:
    """A source that holds more than its shard will is refused or kept, with what it is."""
    data = npz_of(tmp_path, **entries)
    done = converted_and_deleted(make_ctrate, tmp_path / "out", data)
    assert done.code in (ExitCode.SAMPLES_FAILED, ExitCode.REFUSED)
    assert says in done.text


@pytest.mark.parametrize(("where", "says"), [(0, "bytes-before (6 "), (1, "bytes-after (6 ")])
def test_bytes_of_no_member(make_ctrate: Make, tmp_path: Path, where: int, says: str) -> None:
    """Bytes before the zip and behind it are part of the source."""
    parts = [b"secret", npz_of(tmp_path, data=CT)]
    data = b"".join(parts if where == 0 else reversed(parts))
    done = converted_and_deleted(make_ctrate, tmp_path / "out", data)
    assert done.code == ExitCode.REFUSED
    assert says in done.text


@pytest.mark.parametrize("named", [False, True])
def test_a_flipped_bit_in_the_second_array(make_ctrate: Make, tmp_path: Path, named: bool) -> None:
    """A damaged header of a second volume does not make the first one the only one."""
    data = bytearray(npz_of(tmp_path, first=CT, second=CT + 1))
    second = data.index(b"\x93NUMPY", data.index(b"\x93NUMPY") + 6)
    data[second] ^= 1
    more = ("--array_key", "first") if named else ()
    done = converted_and_deleted(make_ctrate, tmp_path / "out", bytes(data), *more)
    assert done.code == (ExitCode.REFUSED if named else ExitCode.SAMPLES_FAILED)
    assert "second.npy" in done.text
    assert ("its shard does not hold all of it" if named else "entries that cannot be") in done.text


def test_small_entries_go_with_their_volume(make_ctrate: Make, tmp_path: Path) -> None:
    """Spacing, affine and crop box are in the shard, byte for byte, when their source goes."""
    made = make_ctrate(1)
    write_volume(made.sources[made.keys[0]], CT, affine=np.eye(4), crop=np.arange(6))
    assert run_cli(*convert_words(made, tmp_path / "out", *DELETE)).code == ExitCode.DONE
    assert not sources_left(made)
    extra = read_dataset(tmp_path / "out")[made.keys[0]].description["source_extra"]
    assert {entry["name"] for entry in extra} == {"", "affine.npy", "crop.npy"}


# --- What says that a file is the one that was read ---------------------------------------------


def rewrite_in_place(path: Path, data: bytes) -> None:
    """Keep size, inode and mtime."""
    status = path.stat()
    with path.open("r+b") as stream:
        stream.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def store_through_a_map(path: Path, data: bytes) -> None:
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        mapped[:] = data
    os.utime(path, (0, 0))


def replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("seconds", [True, False], ids=["whole seconds", "nanoseconds"])
@pytest.mark.parametrize("change", [rewrite_in_place, store_through_a_map, replace])
def test_times_say_nothing(
    ct: Converted, change: Callable[[Path, bytes], None], seconds: bool
) -> None:
    """Another volume in place of the one that was read stays, whatever its times and record say."""
    change(first(ct), data := other_bytes(ct))
    if seconds:
        os.utime(first(ct), (10**9, 10**9))
    forge(ct, as_read_now(ct.record(), ct.made))
    assert_kept(ct, delete(ct))
    assert first(ct).read_bytes() == data


def test_stores_through_a_map_that_was_open(ct: Converted) -> None:
    """A map that was made before the conversion, and stores after it, changes what is compared."""
    data = other_bytes(ct)
    with first(ct).open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        mapped[0] = mapped[0]
        before = first(ct).stat()
        mapped[:] = data
        forge(ct, as_read_now(ct.record(), ct.made))
        assert before.st_ino == first(ct).stat().st_ino
        assert_kept(ct, delete(ct))
        assert mapped[:] == data


# --- Values that a bound allows -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("volume", "more", "says"),
    [
        (CT.astype(np.float32) / 1000, ("--dtype", "int16", "--step", 10), "precision loss past"),
        (CT.astype(np.float32) * 1e-12, (), "precision loss past the bound"),
        (CT.astype(np.float64) * 1e-12, (), "precision loss past the bound"),
    ],
    ids=["a step of 10 for HU/1000", "float32 around 1e-9", "float64 around 1e-9"],
)
def test_a_bound_that_knows_no_signal(
    make_ctrate: Make, tmp_path: Path, volume: Array, more: tuple[object, ...], says: str
) -> None:
    """A volume of which nothing would be left fails, and keeps its source."""
    data = npz_of(tmp_path, data=volume)
    done = converted_and_deleted(make_ctrate, tmp_path / "out", data, *more)
    assert done.code == ExitCode.SAMPLES_FAILED
    assert says in done.text


def test_bools_that_are_bytes(make_ctrate: Make, tmp_path: Path) -> None:
    """A bool array over bytes from 0 to 29 is no bool array."""
    values = RNG.integers(0, 30, CT.shape).astype(np.uint8)
    data = npz_of(tmp_path, data=values.view(np.bool_))
    done = converted_and_deleted(make_ctrate, tmp_path / "out", data)
    assert done.code == ExitCode.SAMPLES_FAILED
    assert "a bool array holds other bytes than 0 and 1" in done.text


def test_an_accepted_error_is_no_licence(make_ctrate: Make, tmp_path: Path) -> None:
    """--max_error with a step that leaves nothing keeps the source all the same."""
    data = npz_of(tmp_path, data=CT.astype(np.float32) / 1000)
    more = ("--dtype", "int16", "--step", 10, "--max_error", 100)
    done = converted_and_deleted(make_ctrate, tmp_path / "out", data, *more)
    assert done.code in (ExitCode.SAMPLES_FAILED, ExitCode.REFUSED)


def test_same_voxels_are_what_is_left(ct: Converted) -> None:
    """After the deletion of what is equal, the shard gives back each voxel."""
    assert delete(ct).code == ExitCode.DONE
    found = read_dataset(ct.out)
    for number, key in enumerate(ct.made.keys):
        assert same_voxels(found[key].volume, CT + np.int16(number))
    assert Dataset(ct.out).shard(0).exists()
