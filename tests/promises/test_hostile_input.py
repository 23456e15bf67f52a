"""Hostile input costs only itself: it is named with its reason, and everything else goes on."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import stat
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert.errors import ExitCode, SampleError
from ctrate_convert.sources.npz import NpzSource
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from tests.promises.hostile import HOSTILE, ODD_BUT_SOUND, VOLUME, npy_of, npz, packed
from tests.support import (
    DELETE,
    TIMEOUT_S,
    Array,
    Found,
    command,
    convert_words,
    load_originals,
    plan_words,
    read_dataset,
    run_cli,
    same_voxels,
    sources_left,
)

Make = Callable[..., SyntheticCtRate]

UNDISTURBED = 3
PLACES = (
    "link out of the folder",
    "link within the folder",
    "link to nothing",
    "link to itself",
    "hard link",
    "in two folders",
    "folder named as a volume",
    "FIFO named as a volume",
    "in a linked folder",
    "row repeated",
    "rows that differ",
)

# --- One data folder with everything that is bad, converted once ------------------------------


@dataclass
class Zoo:
    """The folder, who is who in it, and what one command made of it."""

    made: SyntheticCtRate
    out: Path
    marker: Path
    keys: dict[str, str] = field(default_factory=dict)
    before: dict[Path, bytes] = field(default_factory=dict)
    code: int = -1
    report: dict[str, Any] = field(default_factory=dict)
    excluded: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    found: dict[str, Found] = field(default_factory=dict)

    def source(self, name: str) -> Path:
        return self.made.sources[self.keys[name]]

    def reason(self, name: str) -> str:
        """Why the sample failed."""
        reasons = {entry["key"]: entry["reason"] for entry in self.report["failed_samples"]}
        return str(reasons[self.keys[name]])

    def kept(self, name: str) -> str:
        """Why its source was kept although it was converted."""
        reasons = {entry["key"]: entry["reason"] for entry in self.report["kept"]}
        return str(reasons[self.keys[name]])

    def assert_untouched(self, name: str) -> None:
        path = self.source(name)
        assert path.read_bytes() == self.before[path]


ODD_NAMES = (
    "train_1.5_a_1",  # a dot: every reader would split its key there
    "train_7_a_1.nii",
    "name with blanks",
    "line\nend",
    os.fsdecode(b"\xff\xfe"),
    "ünïcode",
    "x" * 90,
    "back\\slash",
)
ODD_ROWS = ("../../etc/passwd", "sub/folder", "..", "train_1.5_a_1", "train_7_a_1.nii")


def _put_places(zoo: Zoo, outside: Path) -> None:
    """Links, folders, FIFOs and tables that are not as they should be."""
    folder, source = zoo.made.data_folder, zoo.source
    outside.mkdir()
    for name in ("link out of the folder", "in a linked folder"):
        shutil.move(source(name), outside)
    source("link out of the folder").symlink_to(outside / source("link out of the folder").name)
    (folder / "linked").symlink_to(outside)
    source("link within the folder").unlink()
    source("link within the folder").symlink_to(source("undisturbed 0").name)
    for name, target in (("link to nothing", "nothing"), ("link to itself", None)):
        source(name).unlink()
        source(name).symlink_to(target or source(name).name)
    os.link(source("hard link"), outside / "another name of it")
    (folder / "second").mkdir()
    shutil.copy(source("in two folders"), folder / "second")
    source("folder named as a volume").unlink()
    source("folder named as a volume").mkdir()
    source("FIFO named as a volume").unlink()
    os.mkfifo(source("FIFO named as a volume"))
    for name in ODD_NAMES:
        (folder / f"{name}.npz").write_bytes(npz(VOLUME))

    reports = zoo.made.reports_file
    lines = reports.read_text().splitlines()
    row = {line.partition(".nii.gz")[0]: line for line in lines}
    lines.append(row[zoo.keys["row repeated"]])
    lines.append(row[zoo.keys["rows that differ"]].replace("Without contrast", "With contrast"))
    lines += [f"{name}.nii.gz,,,," for name in ODD_ROWS]
    reports.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Every hostile and odd file among undisturbed ones, converted with deletion by one command."""
    folder = tmp_path_factory.mktemp("zoo")
    names = [
        *(f"undisturbed {number}" for number in range(UNDISTURBED)),
        *PLACES,
        *HOSTILE,
        *ODD_BUT_SOUND,
    ]
    made = write_synthetic_ctrate(
        folder / "ctrate", samples=len(names), shape=(5, 4, 3), layout="flat"
    )
    zoo = Zoo(made, folder / "out", folder / "marker", dict(zip(names, made.keys, strict=True)))
    for name, hostile in HOSTILE.items():
        hostile.write(zoo.source(name), zoo.marker)
    for name, (data, _) in ODD_BUT_SOUND.items():
        zoo.source(name).write_bytes(data)
    _put_places(zoo, folder / "outside")
    zoo.before = {
        path: path.read_bytes()
        for path in made.data_folder.rglob("*")
        if not path.is_symlink() and stat.S_ISREG(path.stat().st_mode)
    }

    planned = run_cli(*plan_words(made, zoo.out, "--delete_source_files", "--json"))
    assert planned.code == ExitCode.DONE, planned.stderr
    zoo.excluded = {entry["key"]: entry for entry in planned.json()["excluded"]}
    zoo.warnings = planned.json()["warnings"]
    done = run_cli("run", zoo.out, "--num_workers", 2, "--yes", "--json")
    zoo.code, zoo.report = done.code, done.json()
    zoo.found = read_dataset(zoo.out)
    return zoo


def test_the_run_ends_with_its_own_exit_code(zoo: Zoo) -> None:
    """Sources that the gate kept make exit code 4; every failed sample is in the report."""
    assert zoo.code == ExitCode.REFUSED
    assert {entry["key"] for entry in zoo.report["failed_samples"]} == {
        zoo.keys[name] for name in HOSTILE
    }
    assert zoo.report["failed_shards"] == {}
    assert not any("unexpected" in entry["reason"] for entry in zoo.report["failed_samples"])
    states = zoo.report["samples"]
    assert states["pending"] == 0
    assert states["total"] == sum(states[state] for state in states if state != "total")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file(zoo: Zoo, name: str) -> None:
    """A hostile file fails as a sample, with its reason; its source stays as it was."""
    assert HOSTILE[name].says.replace("%s", str(zoo.source(name))) in zoo.reason(name)
    assert zoo.keys[name] not in zoo.found
    zoo.assert_untouched(name)


@pytest.mark.parametrize("name", ODD_BUT_SOUND)
def test_odd_but_sound_file(zoo: Zoo, name: str) -> None:
    """An odd file that holds a volume is converted like any other, and its source deleted."""
    _, original = ODD_BUT_SOUND[name]
    volume = zoo.found[zoo.keys[name]].volume
    assert volume.flags.c_contiguous
    assert volume.dtype.byteorder in "=|<"
    assert np.array_equal(volume, original.astype(volume.dtype))
    assert volume.dtype.kind == ("f" if original.dtype.kind == "f" else "i")
    if name == "something before the zip":
        assert "bytes-before (7 bytes before the first member)" in zoo.kept(name)
        zoo.assert_untouched(name)
    else:
        assert not zoo.source(name).exists()


def test_nothing_hostile_ran(zoo: Zoo) -> None:
    """A pickle in an NPZ is never loaded."""
    assert not zoo.marker.exists()


@pytest.mark.parametrize("number", range(UNDISTURBED))
def test_undisturbed_sample(zoo: Zoo, number: int) -> None:
    """Samples beside the hostile ones are converted, and their sources deleted."""
    assert zoo.keys[f"undisturbed {number}"] in zoo.found
    assert not zoo.source(f"undisturbed {number}").exists()


@pytest.mark.parametrize("name", ["link out of the folder", "link within the folder"])
def test_linked_volume(zoo: Zoo, name: str) -> None:
    """A link is read, and neither it nor what it leads to is deleted for its sake."""
    assert zoo.keys[name] in zoo.found
    assert zoo.source(name).is_symlink()
    assert "it is a link; links are neither followed nor deleted" in zoo.kept(name)
    assert any(
        "symbolic links" in warning and zoo.keys[name] in warning for warning in zoo.warnings
    )


def test_target_of_a_link_out_of_the_folder(zoo: Zoo) -> None:
    """A file outside the data folder is never deleted."""
    assert zoo.source("link out of the folder").resolve(strict=True).is_file()


@pytest.mark.parametrize("name", ["link to nothing", "link to itself", "FIFO named as a volume"])
def test_what_is_no_file(zoo: Zoo, name: str) -> None:
    """What cannot be opened as a file is named, and its sample has no volume."""
    assert zoo.excluded[zoo.keys[name]]["reason"] == "no_volume"
    assert any(f"{zoo.keys[name]}.npz" in warning for warning in zoo.warnings)
    assert os.path.lexists(zoo.source(name))


def test_folder_named_as_a_volume(zoo: Zoo) -> None:
    """A folder is a folder, whatever its name."""
    name = "folder named as a volume"
    assert zoo.excluded[zoo.keys[name]]["reason"] == "no_volume"
    assert zoo.source(name).is_dir()


def test_linked_folder(zoo: Zoo) -> None:
    """A linked folder is not entered, which is said."""
    name = "in a linked folder"
    assert zoo.excluded[zoo.keys[name]]["reason"] == "no_volume"
    assert any("linked folders were not entered" in warning for warning in zoo.warnings)
    assert (zoo.made.data_folder / "linked" / zoo.source(name).name).is_file()


def test_hard_link(zoo: Zoo) -> None:
    """A file with another name is converted and kept: deleting one name would free nothing."""
    assert zoo.keys["hard link"] in zoo.found
    assert "it has 2 hard links" in zoo.kept("hard link")
    zoo.assert_untouched("hard link")


def test_one_name_in_two_folders(zoo: Zoo) -> None:
    """Of two files of one name none is taken, since nobody can tell which is right."""
    entry = zoo.excluded[zoo.keys["in two folders"]]
    assert entry["reason"] == "duplicate_volume"
    assert f"second/{zoo.source('in two folders').name}" in entry["detail"]
    zoo.assert_untouched("in two folders")
    copy = zoo.made.data_folder / "second" / zoo.source("in two folders").name
    assert copy.read_bytes() == zoo.before[copy]


def test_repeated_row(zoo: Zoo) -> None:
    """A row that is repeated word for word counts once."""
    assert zoo.keys["row repeated"] in zoo.found
    assert any("repeats 1 rows word for word" in warning for warning in zoo.warnings)


def test_rows_that_differ(zoo: Zoo) -> None:
    """Where two rows of one name differ, the sample is left out and the column named."""
    entry = zoo.excluded[zoo.keys["rows that differ"]]
    assert entry["reason"] == "conflicting_rows"
    assert "differ in Technique_EN" in entry["detail"]
    zoo.assert_untouched("rows that differ")


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_name_that_no_key_can_be(zoo: Zoo, name: str) -> None:
    """A file whose name cannot be a key is left out, named readably, and stays."""
    readable = os.fsencode(name).decode("utf-8", "backslashreplace").replace("\n", "\\n")
    assert zoo.excluded[readable]["reason"] == "bad_name"
    path = zoo.made.data_folder / f"{name}.npz"
    assert path.read_bytes() == zoo.before[path]


@pytest.mark.parametrize("name", ODD_ROWS)
def test_row_that_names_a_path(zoo: Zoo, name: str) -> None:
    """A VolumeName with dots or slashes leads nowhere."""
    assert zoo.excluded[name]["reason"] == "bad_name"
    assert zoo.excluded[name]["source"] in (None, f"{name}.npz")


# --- What a plan found and a run does not -----------------------------------------------------


def test_files_that_changed_between_plan_and_run(make_ctrate: Make, tmp_path: Path) -> None:
    """A run believes what it finds, not what the plan saw; nothing that changed is lost."""
    made = make_ctrate(8, kinds=("data",))
    out = tmp_path / "out"
    gone, cut, folder, fifo, link, other, *rest = made.keys
    assert run_cli(*plan_words(made, out, "--delete_source_files")).code == ExitCode.DONE
    sources = made.sources
    sources[gone].rename(tmp_path / "elsewhere.npz")
    sources[cut].write_bytes(sources[cut].read_bytes()[:-9])
    for key in (folder, fifo, link):
        sources[key].unlink()
    sources[folder].mkdir()
    os.mkfifo(sources[fifo])
    sources[link].symlink_to(tmp_path / "elsewhere.npz")
    np.savez(sources[other], volume=VOLUME)

    done = run_cli("run", out, "--yes")
    assert done.code == ExitCode.REFUSED
    assert f"{gone}: source is missing" in done.text
    assert f"{cut}: not a readable NPZ: File is not a zip file" in done.text
    assert f"{folder}: not a regular file" in done.text
    assert f"{fifo}: not a regular file" in done.text
    assert f"{link}: it is a link" in done.text
    assert "4 failed" in done.text
    found = read_dataset(out)
    assert found.keys() == {link, other, *rest}
    assert same_voxels(found[other].volume, VOLUME)
    assert sources_left(made) == {cut, folder, fifo, link}


def test_unreadable_file_and_folder(make_ctrate: Make, tmp_path: Path) -> None:
    """A file without permission fails as a sample, a folder without is named; both stay."""
    made = make_ctrate(4, kinds=("data",), layout="nested")
    out = tmp_path / "out"
    hidden, denied, *_ = made.keys[::-1]
    made.sources[denied].chmod(0)
    if os.access(made.sources[denied], os.R_OK):
        pytest.skip("this user reads everything")
    made.sources[hidden].parent.chmod(0)
    try:
        done = run_cli(*convert_words(made, out, *DELETE))
    finally:
        made.sources[hidden].parent.chmod(0o755)
        made.sources[denied].chmod(0o644)
    assert done.code == ExitCode.SAMPLES_FAILED
    assert f"{denied}: source cannot be read: Permission denied" in done.text
    assert "could not be looked at" in done.text
    assert {hidden, denied} <= sources_left(made)


# --- While it is being read -------------------------------------------------------------------


def write_large(path: Path) -> Array:
    """A stored volume of 2 MiB, which takes several reads."""
    volume = np.random.default_rng(0).integers(-1000, 1000, (128, 128, 64), np.int16)
    path.write_bytes(packed(("data.npy", npy_of(volume))))
    return volume


def truncate(path: Path) -> None:
    os.truncate(path, 600_000)


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def overwrite(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-900_000] + bytes(900_000))


def change_backwards_in_time(path: Path) -> None:
    """Same size, same mtime, other content."""
    status = path.stat()
    with path.open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"other")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def start_reading(path: Path) -> tuple[NpzSource, Iterator[Array]]:
    volume = NpzSource(path)
    blocks = volume.blocks(2**17)
    next(blocks)
    return volume, blocks


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (truncate, "zip file cut short while it was read"),
        (append, "source changed while it was read"),
        (overwrite, "CRC-32 wrong"),
        (os.utime, "source changed while it was read"),
    ],
)
def test_changed_while_it_is_read(
    tmp_path: Path, change: Callable[[Path], None], says: str
) -> None:
    """A source that changes under the reader is no sample."""
    path = tmp_path / "train_1_a_1.npz"
    write_large(path)
    volume, blocks = start_reading(path)
    with volume:
        change(path)
        with pytest.raises(SampleError, match=says):
            list(blocks)
            volume.fingerprint(path.name)


def test_changed_with_size_and_mtime_put_back(tmp_path: Path) -> None:
    """A change whose traces were removed does not get into the record's fingerprint."""
    path = tmp_path / "train_1_a_1.npz"
    write_large(path)
    volume, blocks = start_reading(path)
    with volume:
        list(blocks)
        time.sleep(0.02)  # ctime ticks with the kernel's clock
        change_backwards_in_time(path)
        assert volume.fingerprint(path.name).ctime_ns != path.stat().st_ctime_ns


def test_replaced_while_it_is_read(tmp_path: Path) -> None:
    """A new file under the same name is not the one that was read, and the record shows it."""
    path = tmp_path / "train_1_a_1.npz"
    write_large(path)
    volume, blocks = start_reading(path)
    with volume:
        new = tmp_path / "new"
        shutil.copy2(path, new)
        os.replace(new, path)
        list(blocks)
        assert volume.fingerprint(path.name).inode != path.stat().st_ino


READS = {"x86_64": (295, 327), "aarch64": (69, 286)}
"""The numbers of preadv and preadv2."""


def being_read(path: Path, process: subprocess.Popen[str]) -> bool:
    """Whether a process is within a read of ``path``'s array."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            call, descriptor, *_ = (folder / "syscall").read_text().split()
            if int(call) in READS[platform.machine()]:
                held = os.readlink(folder / "fd" / str(int(descriptor, 16)))
                if held == str(path):
                    return True
    assert process.poll() is None, "the command ended too early"
    return False


def test_changed_while_a_worker_reads_it(make_ctrate: Make, tmp_path: Path) -> None:
    """The command goes on with the other samples, and keeps what changed under its reader."""
    strace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=preadv,preadv2"]
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if subprocess.run([*strace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not permitted here")
    if platform.machine() not in READS:
        pytest.skip("this processor's system call numbers are not known here")
    made = make_ctrate(4, kinds=("data",))
    out, (_, cut, grown, _) = tmp_path / "out", made.keys
    originals = load_originals(made)
    for key in (cut, grown):
        write_large(made.sources[key])
        del originals[key]
    assert run_cli(*plan_words(made, out, "--delete_source_files")).code == ExitCode.DONE

    slowly = [*strace, "-e", "inject=preadv,preadv2:delay_enter=200000"]
    with subprocess.Popen(
        [*slowly, *command("run", out, "--yes")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for key, change in ((cut, truncate), (grown, append)):
            while not being_read(made.sources[key], process):
                time.sleep(0.005)
            change(made.sources[key])
        said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == ExitCode.SAMPLES_FAILED
    assert f"{cut}: zip file cut short" in said
    assert f"{grown}: source changed while it was read" in said
    assert sources_left(made) == {cut, grown}
    found = read_dataset(out)
    assert found.keys() == originals.keys()
    assert all(same_voxels(found[key].volume, originals[key]) for key in originals)


# --- Several arrays ---------------------------------------------------------------------------


def test_array_key_names_one_of_several(make_ctrate: Make, tmp_path: Path) -> None:
    """Where an NPZ holds several volumes, --array_key says which one is meant."""
    made = make_ctrate(3)
    for path in made.sources.values():
        path.write_bytes(packed(("image.npy", npy_of(VOLUME)), ("mask.npy", npy_of(VOLUME > 9))))
    out = tmp_path / "out"
    done = run_cli(*convert_words(made, out, "--array_key", "image", *DELETE))
    assert done.code == ExitCode.DONE
    assert all(same_voxels(found.volume, VOLUME) for found in read_dataset(out).values())
    assert not sources_left(made)


def test_array_key_after_the_failure_that_asked_for_it(make_ctrate: Make, tmp_path: Path) -> None:
    """The option that the message asks for mends the samples that failed without it."""
    made = make_ctrate(3)
    key = made.keys[1]
    data = packed(("image.npy", npy_of(VOLUME)), ("mask.npy", npy_of(VOLUME > 9)))
    made.sources[key].write_bytes(data)
    out = tmp_path / "out"
    first = run_cli(*convert_words(made, out))
    assert first.code == ExitCode.SAMPLES_FAILED
    assert f"{key}: several arrays of 3-D or more; name one with --array_key" in first.text
    second = run_cli(*convert_words(made, out, "--array_key", "image"))
    assert second.code == ExitCode.DONE
    assert same_voxels(read_dataset(out)[key].volume, VOLUME)


def test_zip_bomb_takes_no_space(tmp_path: Path) -> None:
    """An honest NPZ of zeros is small on disk, and is read a block at a time."""
    path = tmp_path / "zeros.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", npy_of(np.zeros((512, 512, 64), np.int16)))
    assert path.stat().st_size < 2**20
    with NpzSource(path) as volume:
        assert max(block.size for block in volume.blocks(2**17)) <= 2**17
