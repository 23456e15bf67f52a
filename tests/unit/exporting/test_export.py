"""Convert, delete, export: what comes back equals what was there, or says by how much not."""

from __future__ import annotations

import gzip
import io
import json
import signal
import stat
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import (
    DELETE,
    Array,
    Converted,
    command,
    convert_here,
    convert_words,
    partials,
    run_cli,
    run_here,
    sources_left,
)
from tests.unit.deleting.scenes import Make, delete
from tests.unit.sources.made_nifti import MADE, Made

ENCODINGS = ("npy", "npy.gz", "b2nd")
VOLUME = np.random.default_rng(5).integers(-1024, 3000, (7, 6, 5)).astype(np.int16)


def unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.lower().endswith(".gz") else data


def entries(path: Path) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The comment, and each member's name and bytes."""
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
        return archive.comment, members


def content(path: Path) -> object:
    return entries(path) if path.name.endswith(".npz") else unpacked(path)


def assert_comes_back(made: SyntheticCtRate, out: Path, again: Path, *more: object) -> None:
    """One command converts and deletes, one gives everything back."""
    before = {path: content(path) for path in made.sources.values()}
    done = run_here(*convert_words(made, out, *DELETE, *more))
    assert done.code == ExitCode.DONE, done.text
    assert sources_left(made) == set()
    done = run_here("export", out, again, "--all")
    assert done.code == ExitCode.DONE, done.text
    assert f"Exported {len(before)} file" in done.text
    assert "rounded" not in done.text
    after = {path: content(again / path.relative_to(made.data_folder)) for path in before}
    assert after == before


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["volume", "data", "arr", "resampled", "nii.gz", "nii"])
def test_every_kind_of_source(make_ctrate: Make, tmp_path: Path, kind: str, encoding: str) -> None:
    """Array, header, order and entries, bit for bit; only the compression may differ."""
    made = make_ctrate(2, kinds=(kind,), layout="nested", shape=(9, 8, 7))
    assert_comes_back(made, tmp_path / "out", tmp_path / "again", "--encoding", encoding)


def npz_with(array: Array, **more: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, data=array, **more)
    return stream.getvalue()


def odd_header() -> bytes:
    """An npy header of version 2, in other words than numpy's, with a comment."""
    text = b"{'shape': (7, 6, 5), 'descr': '<i2', 'fortran_order': False} # a comment\n"
    npy = b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text + VOLUME.tobytes()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.comment = b"made by hand"
        archive.writestr("notes.txt", "beside")
        archive.writestr("data.npy", npy)
    return stream.getvalue()


ARRAYS: dict[str, Callable[[], bytes]] = {
    "bool": lambda: npz_with(VOLUME > 0),
    "uint8": lambda: npz_with((VOLUME % 200).astype(np.uint8)),
    "uint16": lambda: npz_with((VOLUME + 1024).astype(np.uint16)),
    "int64": lambda: npz_with(VOLUME.astype(np.int64)),
    "int32 beyond int16": lambda: npz_with(VOLUME.astype(np.int32) * 1000),
    "big-endian": lambda: npz_with(VOLUME.astype(">i2")),
    "big-endian Fortran": lambda: npz_with(np.asfortranarray(VOLUME.astype(">i4"))),
    "float16": lambda: npz_with((VOLUME / 2000).astype(np.float16)),
    "with entries": lambda: npz_with(VOLUME, affine=np.eye(4), note=np.array("x")),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_every_type_of_array(make_ctrate: Make, tmp_path: Path, name: str) -> None:
    made = make_ctrate(1, kinds=("data",))
    made.sources[made.keys[0]].write_bytes(ARRAYS[name]())
    assert_comes_back(made, tmp_path / "out", tmp_path / "again")


def test_an_odd_header_and_a_comment(make_ctrate: Make, tmp_path: Path) -> None:
    """All entries are equal; the volume is the first of them."""
    made = make_ctrate(1, kinds=("data",))
    source = made.sources[made.keys[0]]
    source.write_bytes(odd_header())
    comment, members = entries(source)
    assert run_here(*convert_words(made, tmp_path / "out", *DELETE)).code == ExitCode.DONE
    assert run_here("export", tmp_path / "out", tmp_path / "again", "--all").code == ExitCode.DONE
    found = entries(tmp_path / "again" / source.name)
    assert found == (comment, members[::-1])


LOSSLESS = [name for name, made in MADE.items() if made.voxels.dtype.kind != "f"]


@pytest.mark.parametrize("name", LOSSLESS)
def test_every_nifti_header(make_ctrate: Make, tmp_path: Path, name: str) -> None:
    """Extensions, byte order, scaling: the uncompressed file is the same."""
    made = of_nifti(make_ctrate, MADE[name])
    assert_comes_back(made, tmp_path / "out", tmp_path / "again")


def of_nifti(make: Make, how: Made) -> SyntheticCtRate:
    made = make(1, kinds=("nii.gz",))
    path = made.sources[made.keys[0]]
    path.unlink()
    path = path.with_name(f"{made.keys[0]}{how.suffix}")
    path.write_bytes(how.file())
    made.sources[made.keys[0]] = path  # type: ignore[index]
    return made


@pytest.mark.parametrize("name", ["f4", "big-endian f4", "f8"])
def test_rounded_volumes_say_by_how_much(make_ctrate: Make, tmp_path: Path, name: str) -> None:
    """The header is the source's, the voxels are within the error that is told."""
    made = of_nifti(make_ctrate, MADE[name])
    original = np.asanyarray(nibabel.load(made.sources[made.keys[0]]).dataobj)
    converted = convert_here(made, tmp_path / "out")
    error = converted.record().converted[0].array.max_abs_error
    assert error > 0
    done = run_here("export", converted.out, tmp_path / "again", "--all")
    assert done.code == ExitCode.DONE
    assert f"at most {error:.4g} off, in {made.keys[0]}" in done.text.replace("\n", " ")
    image = nibabel.load(tmp_path / "again" / made.sources[made.keys[0]].name)
    assert image.header.get_data_dtype() == np.dtype(MADE[name].order + name[-2:])
    found = np.asanyarray(image.dataobj)
    assert float(np.abs(found - original).max()) <= error
    facts = run_here("export", converted.out, tmp_path / "json", "--all", "--json").json()
    assert [one["max_abs_error"] for one in facts["exported"]] == [error]


# --- Other forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_as_nifti(make_ctrate: Make, tmp_path: Path, encoding: str) -> None:
    """Any sample with an affine: nibabel gives the shard's array, its affine, and HU."""
    made = make_ctrate(4, shape=(20, 24, 12), kinds=("resampled", "data"))
    converted = convert_here(made, tmp_path / "out", encoding=encoding)
    done = run_here("export", converted.out, tmp_path / "look", "--all", "--as", "nifti")
    assert done.code == ExitCode.SAMPLES_FAILED
    for key in made.keys:
        path = tmp_path / "look" / f"{key}.nii.gz"
        assert path.exists() == (made.kinds[key] == "resampled")
        if path.exists():
            image = nibabel.load(path)
            with np.load(made.sources[key]) as arrays:
                assert np.array_equal(image.get_fdata(), arrays["volume"])
                affine = json.loads(arrays["metadata"].item())["affine"]["final"]
            assert np.allclose(image.affine, affine)
        else:
            assert f"not exported: {key} — its place and orientation are not known" in done.text


def test_as_nifti_in_hounsfield_units(make_ctrate: Make, tmp_path: Path) -> None:
    """The slope and intercept of the exported header are the sample's."""
    made = make_ctrate(1, kinds=("volume",), shape=(24, 24, 12))
    source = made.sources[made.keys[0]]
    with np.load(source) as arrays:
        hu = arrays["volume"].clip(-1000, 1000)
    np.savez(source, arr_0=(hu / 1000).astype(np.float32), affine=np.diag([1, 1, 2, 1.0]))
    converted = convert_here(made, tmp_path / "out", dtype="int16", step=0.001)
    key = made.keys[0]
    done = run_here("export", converted.out, tmp_path / "look", "--key", key, "--as", "nifti")
    assert done.code == ExitCode.DONE, done.text
    image = nibabel.load(tmp_path / "look" / f"{key}.nii.gz")
    assert np.allclose(image.get_fdata(), hu, atol=1e-3)
    assert np.array_equal(image.affine, np.diag([1, 1, 2, 1.0]))


def test_as_npz(make_ctrate: Make, tmp_path: Path) -> None:
    """The array as the shard has it, with what is known of it; it converts again to the same."""
    made = make_ctrate(2, kinds=("nii.gz",), shape=(20, 24, 12))
    converted = convert_here(made, tmp_path / "out")
    look = tmp_path / "look"
    assert run_here("export", converted.out, look, "--all", "--as", "npz").code == ExitCode.DONE
    for sample in converted.record().converted:
        with np.load(look / f"{sample.key}.npz") as arrays:
            assert np.array_equal(arrays["data"], converted.originals[sample.key])
            told = json.loads(arrays["metadata"].item())
            assert told["affine"]["final"] == [list(row) for row in sample.geometry.affine]
            header = gzip.decompress(made.sources[sample.key].read_bytes())[:352]
            assert arrays["nifti_header"].tobytes() == header


# --- Which samples, and where ---------------------------------------------------------------------


@pytest.fixture
def four(make_ctrate: Make, tmp_path: Path) -> Converted:
    made = make_ctrate(4, kinds=("data", "volume"))
    return convert_here(made, tmp_path / "out", samples_per_shard=2)


def exported(folder: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in folder.rglob("*") if path.is_file()}


def test_keys_by_option_and_by_list(four: Converted, tmp_path: Path) -> None:
    listed = tmp_path / "keys.txt"
    first, second, third, _ = four.made.keys
    listed.write_text(f"# wanted\n/old/place/{second}.nii.gz\n{third}\n")
    words = ("--key", first, "--keys", listed)
    assert run_here("export", four.out, tmp_path / "again", *words).code == ExitCode.DONE
    assert exported(tmp_path / "again") == {first, second, third}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "which samples are to be exported?"),
        (("--all", "--key", "train_1_a_1"), "which samples are to be exported?"),
        (("--key", "train_9_z_9"), "1 of the keys are in no readable shard"),
        (("--keys", "missing.txt"), "--keys cannot be read"),
    ],
)
def test_unclear_wishes(four: Converted, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    done = run_here("export", four.out, tmp_path / "again", *words)
    assert (done.code, says in done.text) == (ExitCode.USAGE, True)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("place", [".", "again", ".run/again"])
def test_not_into_the_dataset(four: Converted, place: str) -> None:
    done = run_here("export", four.out, four.out / place, "--all")
    assert done.code == ExitCode.USAGE
    assert "the folder lies in the dataset directory" in done.text


def test_nothing_is_overwritten(four: Converted, tmp_path: Path) -> None:
    """What is there stays, link or file; the rest is written."""
    again = tmp_path / "again"
    again.mkdir()
    first, second = (again / four.made.sources[key].name for key in four.made.keys[:2])
    first.write_bytes(b"mine")
    second.symlink_to(tmp_path / "nowhere")
    done = run_here("export", four.out, again, "--all")
    assert done.code == ExitCode.DONE
    assert "Exported 2 files" in done.text
    assert "2 files with these names were there already" in done.text
    assert first.read_bytes() == b"mine"
    assert second.is_symlink()
    assert not (tmp_path / "nowhere").exists()


def test_back_into_the_data_folder(four: Converted) -> None:
    """Exported sources are sources: they can be deleted again, after a comparison."""
    assert delete(four).code == ExitCode.DONE
    assert run_here("export", four.out, four.made.data_folder, "--all").code == ExitCode.DONE
    assert sources_left(four.made) == set(four.made.keys)
    assert run_here("verify", four.out, "--full").code == ExitCode.DONE
    assert run_here("report", four.out).code == ExitCode.DONE


def test_a_damaged_shard_costs_only_its_sample(four: Converted, tmp_path: Path) -> None:
    """A flipped byte in an array or a JSON member: that sample is not exported, exit code 3."""
    victim = four.record().converted[0]
    json_member = four.record().converted[1].members[0]
    shard = four.dataset.shard(0)
    data = bytearray(shard.read_bytes())
    data[victim.array.offset + victim.array.size_bytes - 3] ^= 1
    data[json_member.offset + 5] ^= 1
    shard.write_bytes(data)
    done = run_here("export", four.out, tmp_path / "again", "--all")
    assert done.code == ExitCode.DAMAGE
    assert f"not exported: {victim.key} — {victim.array.name} is not what its record says" in (
        done.text
    )
    assert exported(tmp_path / "again") == set(four.made.keys[2:])


def test_files_are_as_private_as_the_dataset(four: Converted, tmp_path: Path) -> None:
    (four.out / ".run").chmod(0o700)
    assert run_cli("export", four.out, tmp_path / "again", "--all").code == ExitCode.DONE
    for path in [tmp_path / "again", *(tmp_path / "again").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_killed_export_leaves_no_half_file(make_ctrate: Make, tmp_path: Path) -> None:
    """Whatever has its name is whole, and the same command writes the rest."""
    made = make_ctrate(12, kinds=("nii.gz", "nii"), shape=(96, 96, 64))
    converted = convert_here(made, tmp_path / "out")
    before = {key: unpacked(path) for key, path in made.sources.items()}
    again = tmp_path / "again"
    words = command("export", converted.out, again, "--all")
    for _ in range(6):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        count = len(exported(again)) if again.exists() else 0
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            if again.exists() and len(list(again.glob("train*"))) > count:
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for key, path in made.sources.items():
            found = again / path.name
            assert not found.exists() or unpacked(found) == before[key]
    assert subprocess.run(words, check=False, capture_output=True).returncode == ExitCode.DONE
    assert {key: unpacked(again / path.name) for key, path in made.sources.items()} == before
    assert not partials(again)
