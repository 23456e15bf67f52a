"""Indexes for other readers: their formats byte for byte, and places that lead to the members.

``tests/readers`` opens them with the readers themselves.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from tests.support import (
    Converted,
    Finished,
    command,
    convert_here,
    repair_without_a_source,
    run_cli,
    run_here,
)

Make = Callable[..., SyntheticCtRate]
KINDS = ("wids", "dali", "energon")


def export(out: Path, folder: Path, kind: str) -> Finished:
    done = run_here("export", out, folder, "--index", kind)
    assert done.code == ExitCode.DONE, done.text
    return done


def samples_of(tar: Path) -> dict[str, list[tarfile.TarInfo]]:
    """The members of each sample, as tarfile finds them by reading the tar."""
    found: dict[str, list[tarfile.TarInfo]] = {}
    with tarfile.open(tar) as archive:
        for info in archive:
            found.setdefault(info.name.partition(".")[0], []).append(info)
    return found


def content(folder: Path) -> dict[str, bytes]:
    """Every file and link, by its name."""
    return {
        str(path.relative_to(folder)): os.fsencode(os.readlink(path))
        if path.is_symlink()
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


# --- Formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_links_to_the_shards(converted: Converted, tmp_path: Path, kind: str) -> None:
    """The folder is a whole dataset without a copied byte, and the dataset directory as before."""
    before = content(converted.out)
    done = export(converted.out, tmp_path / kind, kind)
    assert f"is ready for {kind}: 8 samples in 2 shards." in done.text.replace("\n", " ")
    links = sorted((tmp_path / kind).glob("*.tar"))
    assert [one.name for one in links] == ["shard-000000.tar", "shard-000001.tar"]
    assert [one.readlink() for one in links] == [converted.dataset.shard(n) for n in (0, 1)]
    assert content(converted.out) == before


def test_wids(converted: Converted, tmp_path: Path) -> None:
    export(converted.out, tmp_path / "wids", "wids")
    sizes = [converted.dataset.shard(number).stat().st_size for number in (0, 1)]
    assert json.loads((tmp_path / "wids" / "index.json").read_text()) == {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "shardlist": [
            {"url": "shard-000000.tar", "nsamples": 4, "filesize": sizes[0]},
            {"url": "shard-000001.tar", "nsamples": 4, "filesize": sizes[1]},
        ],
    }


@pytest.mark.parametrize("layout", ["webdataset", "ctclip"])
def test_dali(ctrate: SyntheticCtRate, tmp_path: Path, layout: str) -> None:
    """What DALI's wds2idx.py writes when it reads the tar."""
    converted = convert_here(ctrate, tmp_path / "out", samples_per_shard=4, layout=layout,
                             dtype="float16")  # fmt: skip
    export(converted.out, tmp_path / "dali", "dali")
    for number in (0, 1):
        samples = samples_of(converted.dataset.shard(number))
        lines = [f"v1.2 {len(samples)}\n"]
        for members in samples.values():
            parts = [
                f"{one.name.partition('.')[2]} {one.offset_data} {one.size} {one.name}"
                for one in members
            ]
            lines.append(" ".join(parts) + "\n")
        written = tmp_path / "dali" / f"shard-{number:06d}.idx"
        assert written.read_text() == "".join(lines)


@pytest.mark.parametrize("encoding", ["npy", "npy.gz", "b2nd"])
def test_energon_offsets(ctrate: SyntheticCtRate, tmp_path: Path, encoding: str) -> None:
    """Where each sample's first header stands, and where the last member's blocks end."""
    converted = convert_here(ctrate, tmp_path / "out", samples_per_shard=4, encoding=encoding)
    export(converted.out, tmp_path / "energon", "energon")
    for number in (0, 1):
        with tarfile.open(converted.dataset.shard(number)) as archive:
            archive.getmembers()
            end = archive.offset  # where the end-of-archive blocks begin
        samples = samples_of(converted.dataset.shard(number))
        begins = [members[0].offset for members in samples.values()]
        written = (tmp_path / "energon" / f"shard-{number:06d}.tar.idx").read_bytes()
        assert written == struct.pack("<5Q", *begins, end)


def test_energon_settings(converted: Converted, tmp_path: Path) -> None:
    export(converted.out, tmp_path / "energon", "energon")
    meta = tmp_path / "energon" / ".nv-meta"
    assert {path.name for path in meta.iterdir()} == {
        ".info.json", "dataset.yaml", "split.yaml", "index.sqlite", "index.uuid",
    }  # fmt: skip
    assert json.loads((meta / ".info.json").read_text()) == {
        "shard_counts": {"shard-000000.tar": 4, "shard-000001.tar": 4}
    }
    assert (meta / "dataset.yaml").read_text() == (
        "__module__: megatron.energon\n__class__: CrudeWebdataset\n"
    )
    assert (meta / "split.yaml").read_text() == (
        "split_parts:\n  train:\n  - shard-000000.tar\n  - shard-000001.tar\nexclude: []\n"
    )


def test_energon_calls_the_validation_set_val(tmp_path: Path) -> None:
    made = write_synthetic_ctrate(tmp_path / "in", samples=3, shape=(6, 5, 4), split="valid")
    converted = convert_here(made, tmp_path / "out")
    export(converted.out, tmp_path / "energon", "energon")
    written = (tmp_path / "energon" / ".nv-meta" / "split.yaml").read_text()
    assert written == "split_parts:\n  val:\n  - shard-000000.tar\nexclude: []\n"


def test_energon_database(converted: Converted, tmp_path: Path) -> None:
    """Every sample and every member at its place, in the tables that energon asks."""
    export(converted.out, tmp_path / "energon", "energon")
    path = tmp_path / "energon" / ".nv-meta" / "index.sqlite"
    with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as database:
        samples = database.execute("SELECT * FROM samples ORDER BY 1, 3").fetchall()
        parts = database.execute("SELECT * FROM sample_parts ORDER BY 1, 2, 4").fetchall()
        indexes = {row[0] for row in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")}  # fmt: skip
    database.close()
    expected_samples, expected_parts = [], []
    for number in (0, 1):
        for index, (key, members) in enumerate(samples_of(converted.dataset.shard(number)).items()):
            begin, last = members[0].offset, members[-1]
            size_bytes = last.offset_data + -(-last.size // 512) * 512 - begin
            expected_samples.append((number, key, index, begin, size_bytes))
            expected_parts += [
                (number, index, one.name.partition(".")[2], one.offset_data, one.size)
                for one in members
            ]
    assert samples == expected_samples
    assert parts == expected_parts
    assert indexes == {"idx_samples_by_tar_and_idx", "idx_sample_parts_seq",
                       "idx_sample_parts_full"}  # fmt: skip


# --- What does not count, and what is damaged ----------------------------------------------------


@pytest.fixture
def repaired(converted: Converted) -> Converted:
    """A damaged shard of which a repair made all samples again, but for one without a source."""
    repair_without_a_source(converted)
    assert converted.dataset.shard(2).exists()
    return converted


def test_a_superseded_copy_is_not_read(repaired: Converted, tmp_path: Path) -> None:
    """DALI and energon leave it out; wids counts it, as else it would number others wrongly."""
    for kind in KINDS:
        export(repaired.out, tmp_path / kind, kind)
    first = [sample.key for sample in repaired.record().converted]
    lines = [
        path.read_text().splitlines()[1:] for path in sorted((tmp_path / "dali").glob("*.idx"))
    ]
    keys = [[line.split()[3].partition(".")[0] for line in of_shard] for of_shard in lines]
    assert [keys[0], keys[2]] == [first[3:], first[:3]]
    meta = tmp_path / "energon" / ".nv-meta"
    excluded = "".join(f"- shard-000000.tar/{key}\n" for key in first[:3])
    assert (meta / "split.yaml").read_text().endswith(f"exclude:\n{excluded}")
    counts = list(json.loads((meta / ".info.json").read_text())["shard_counts"].values())
    assert counts == [4, 4, 3]
    with sqlite3.connect(meta / "index.sqlite") as database:
        rows = database.execute("SELECT tar_file_id, sample_index, sample_key FROM samples")
        assert {(2, n, key) for n, key in enumerate(first[:3])} | {(0, 3, first[3])} <= set(rows)
    database.close()
    wids = json.loads((tmp_path / "wids" / "index.json").read_text())["shardlist"]
    assert [one["nsamples"] for one in wids] == [4, 4, 3]
    told = export(repaired.out, tmp_path / "wids", "wids").text.replace("\n", " ")
    assert "8 samples in 3 shards" in told
    assert "3 samples of which a repair made another copy" in told


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_shard_is_left_out(converted: Converted, tmp_path: Path, kind: str) -> None:
    """Also from a folder that had it, and it comes back once the shard is as it was."""
    export(converted.out, tmp_path / kind, kind)
    before = content(tmp_path / kind)
    shard = converted.dataset.shard(0)
    data = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(data[:-512])
    done = run_here("export", converted.out, tmp_path / kind, "--index", kind)
    text = " ".join(done.text.split())
    assert done.code == ExitCode.DAMAGE
    assert "left out: shard-000000.tar — a shard has another length than its record says" in text
    assert "4 samples in 1 shard" in text
    names = {name for name in content(tmp_path / kind) if name.startswith("shard-")}
    assert names
    assert all(name.startswith("shard-000001") for name in names)
    shard.write_bytes(data)
    export(converted.out, tmp_path / kind, kind)
    assert content(tmp_path / kind) == before


def test_damaged_records_and_missing_shards(converted: Converted, tmp_path: Path) -> None:
    """Where nothing is left, nothing is written."""
    converted.dataset.record(0).write_bytes(b"{")
    converted.dataset.shard(1).unlink()
    done = run_here("export", converted.out, tmp_path / "wids", "--index", "wids")
    assert done.code == ExitCode.DAMAGE
    assert "no shard is left for an index" in done.text
    assert not (tmp_path / "wids").exists()


def test_before_the_first_shard(converted: Converted, tmp_path: Path) -> None:
    for number in (0, 1):
        converted.dataset.record(number).unlink()
        converted.dataset.shard(number).unlink()
    converted.dataset.manifest.unlink()
    done = run_here("export", converted.out, tmp_path / "wids", "--index", "wids")
    assert (done.code, "no shard is published yet" in done.text) == (ExitCode.USAGE, True)


# --- The folder ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_again_changes_nothing(converted: Converted, tmp_path: Path, kind: str) -> None:
    export(converted.out, tmp_path / kind, kind)
    before = content(tmp_path / kind)
    report = run_here("export", converted.out, tmp_path / kind, "--index", kind, "--json").json()
    assert (report["written"], report["removed"], report["kept"]) == (0, 0, [])
    assert content(tmp_path / kind) == before


def test_a_dataset_that_moved(converted: Converted, tmp_path: Path) -> None:
    """The links follow with the same command."""
    export(converted.out, tmp_path / "dali", "dali")
    moved = tmp_path / "moved"
    shutil.move(converted.out, moved)
    export(moved, tmp_path / "dali", "dali")
    assert (tmp_path / "dali" / "shard-000000.tar").readlink() == moved / "shard-000000.tar"


def test_what_a_person_changed_is_kept(converted: Converted, tmp_path: Path) -> None:
    """Somebody else's sample type in dataset.yaml stays, and is told."""
    export(converted.out, tmp_path / "energon", "energon")
    changed = tmp_path / "energon" / ".nv-meta" / "dataset.yaml"
    changed.write_text("mine")
    done = export(converted.out, tmp_path / "energon", "energon")
    assert "changed since it was written, and kept: .nv-meta/dataset.yaml" in done.text
    assert changed.read_text() == "mine"
    changed.unlink()
    export(converted.out, tmp_path / "energon", "energon")
    assert "CrudeWebdataset" in changed.read_text()


@pytest.mark.parametrize("made", ["file", "link", "folder"])
def test_what_was_there_is_not_overwritten(converted: Converted, tmp_path: Path, made: str) -> None:
    folder = tmp_path / "wids"
    folder.mkdir()
    foreign = folder / "index.json"
    if made == "file":
        foreign.write_text("mine")
    elif made == "link":
        foreign.symlink_to(tmp_path / "nowhere")
    else:
        foreign.mkdir()
    done = run_here("export", converted.out, folder, "--index", "wids")
    assert done.code == ExitCode.REFUSED
    assert "index.json" in done.text
    assert list(folder.iterdir()) == [foreign]
    assert not (tmp_path / "nowhere").exists()


def test_one_reader_a_folder(converted: Converted, tmp_path: Path) -> None:
    export(converted.out, tmp_path / "one", "dali")
    before = content(tmp_path / "one")
    done = run_here("export", converted.out, tmp_path / "one", "--index", "wids")
    assert done.code == ExitCode.REFUSED
    assert "the folder holds the index of another reader" in done.text
    assert content(tmp_path / "one") == before


def test_not_into_the_dataset(converted: Converted) -> None:
    done = run_here("export", converted.out, converted.out / "wids", "--index", "wids")
    assert done.code == ExitCode.USAGE
    assert "the folder lies in the dataset directory" in done.text


@pytest.mark.parametrize("more", [("--all",), ("--key", "train_1_a_1"), ("--as", "npz")])
def test_an_index_has_all_samples(
    converted: Converted, tmp_path: Path, more: tuple[str, ...]
) -> None:
    done = run_here("export", converted.out, tmp_path / "wids", "--index", "wids", *more)
    assert (done.code, "an index is always of all samples" in done.text) == (ExitCode.USAGE, True)
    assert not (tmp_path / "wids").exists()


def test_indexes_are_as_private_as_the_dataset(converted: Converted, tmp_path: Path) -> None:
    (converted.out / ".run").chmod(0o700)
    done = run_cli("export", converted.out, tmp_path / "energon", "--index", "energon")
    assert done.code == ExitCode.DONE
    for path in [tmp_path / "energon", *(tmp_path / "energon").rglob("*")]:
        assert path.is_symlink() or path.stat().st_mode & 0o077 == 0, path


def test_a_killed_export_goes_on(make_ctrate: Make, tmp_path: Path) -> None:
    """Kill it anywhere: every file is whole, and the same command writes the rest."""
    made = make_ctrate(40)
    converted = convert_here(made, tmp_path / "out", samples_per_shard=1)
    export(converted.out, tmp_path / "whole", "energon")
    expected = content(tmp_path / "whole")
    folder = tmp_path / "killed"
    words = command("export", converted.out, folder, "--index", "energon")
    for files in (1, 10, 40, 70):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if folder.exists() and len(list(folder.iterdir())) > files:
                break
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for name, data in content(folder).items() if folder.exists() else ():
            assert name not in expected or name == ".ctrate-convert.json" or data == expected[name]
    assert run_cli(*words[3:]).code == ExitCode.DONE
    assert content(folder) == expected
