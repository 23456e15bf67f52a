"""Sources on storage of its own ways: below another mount, without links, in whole seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ctrate_convert.errors import ExitCode
from tests.support import Array, Converted, Finished, convert_here, load_original, sources_left
from tests.unit.deleting.scenes import Make, in_namespace, write_volume

VOLUME: Array = np.arange(60, dtype=np.int16).reshape(5, 4, 3)


def below(make: Make, tmp_path: Path) -> tuple[Converted, Path]:
    """A dataset whose sources lie in a folder that something is going to be mounted on."""
    made = make(2, layout="nested")
    for path in made.sources.values():
        write_volume(path, VOLUME)
    converted = convert_here(made, tmp_path / "out")
    folder = made.data_folder / "train_1"
    shutil.copytree(folder, tmp_path / "aside")
    return converted, folder


def delete_in(script: str, converted: Converted, folder: Path, *more: object) -> Finished:
    """Delete where ``script`` mounts something over the folder, and list what is left there."""
    aside = converted.out.parent / "aside"
    listing = converted.out.parent / "listing"
    fill = f"{script}\ncp -r '{aside}'/. '{folder}'"
    after = f"\"$@\" || code=$?\nfind '{folder}' -type f > '{listing}'\nexit ${{code:-0}}\n"
    return in_namespace(f"{fill}\n{after}", "delete", converted.out, "--yes", *more)


def left(converted: Converted) -> list[str]:
    return (converted.out.parent / "listing").read_text().splitlines()


def image(kind: str, tmp_path: Path, folder: Path, *options: str) -> str:
    """Mount a file system of its own kind."""
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    path = tmp_path / "image"
    make = f"mkfs.{kind} {' '.join(options)} '{path}' > /dev/null"
    return f"truncate -s 16M '{path}'\n{make}\nmount -o loop '{path}' '{folder}'"


def skip_without_mount(done: Finished) -> None:
    if "mount:" in done.stderr or "mkfs" in done.stderr:
        pytest.skip(f"cannot be mounted here: {done.stderr.strip()}")


def test_another_file_system_below(make_ctrate: Make, tmp_path: Path) -> None:
    """A source on a file system that is mounted below the data folder goes like any other."""
    converted, folder = below(make_ctrate, tmp_path)
    done = delete_in(f"mount -t tmpfs tmpfs '{folder}'", converted, folder)
    assert done.code == ExitCode.DONE, done.text
    assert left(converted) == []


def test_a_trash_on_another_file_system(make_ctrate: Make, tmp_path: Path) -> None:
    """A source that would have to be copied to the trash stays under its name."""
    converted, folder = below(make_ctrate, tmp_path)
    script = f"mount -t tmpfs tmpfs '{folder}'"
    done = delete_in(script, converted, folder, "--trash", tmp_path / "trash")
    assert done.code == ExitCode.REFUSED
    assert "it could not be taken away: Invalid cross-device link" in done.text
    assert sorted(left(converted)) == sorted(map(str, converted.made.sources.values()))


def test_a_source_that_is_a_mount(make_ctrate: Make, tmp_path: Path) -> None:
    """A file that another one is mounted on cannot be renamed, and stays."""
    converted, _ = below(make_ctrate, tmp_path)
    path = converted.made.sources[converted.made.keys[0]]
    (other := tmp_path / "other.npz").write_bytes(path.read_bytes())
    script = f"mount --bind '{other}' '{path}'"
    done = in_namespace(script, "delete", converted.out, "--yes")
    assert done.code == ExitCode.REFUSED
    assert "it could not be renamed: Device or resource busy" in done.text
    assert converted.made.keys[0] in sources_left(converted.made)
    assert load_original(other).shape == VOLUME.shape


def test_whole_seconds(make_ctrate: Make, tmp_path: Path) -> None:
    """Where times are whole seconds, a source that was just written stays for the moment."""
    converted, folder = below(make_ctrate, tmp_path)
    script = image("ext4", tmp_path, folder, "-q", "-F", "-I", "128")
    now = delete_in(script, converted, folder)
    skip_without_mount(now)
    if now.code == ExitCode.REFUSED:  # unless it took more than two seconds to come to either
        told = now.text.count("this file system knows whole seconds only")
        assert told and len(left(converted)) >= 1
    wait = f"cp -r '{tmp_path / 'aside'}'/. '{folder}'\ntouch -d @1000000000 '{folder}'/*/*.npz"
    later = in_namespace(
        f"{script}\n{wait}\n",
        "delete",
        converted.out,
        "--yes",
    )
    assert later.code == ExitCode.DONE, later.text


def test_no_links_and_no_case(make_ctrate: Make, tmp_path: Path) -> None:
    """On FAT, without links, case and fine times, sources of long ago go."""
    converted, folder = below(make_ctrate, tmp_path)
    script = image("vfat", tmp_path, folder)
    old = f"cp -r '{tmp_path / 'aside'}'/. '{folder}'\ntouch -d @1000000000 '{folder}'/*/*.npz"
    done = in_namespace(f"{script}\n{old}", "delete", converted.out, "--yes")
    skip_without_mount(done)
    assert done.code == ExitCode.DONE, done.text
