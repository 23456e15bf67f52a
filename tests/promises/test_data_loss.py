"""Every way in which the original script loses data, tried on this program: none of them does."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.synthetic import SyntheticCtRate
from tests.promises.disks.small_disk import on_small_disk
from tests.support import (
    DELETE,
    TIMEOUT_S,
    Finished,
    assert_finished,
    assert_nothing_lost,
    command,
    convert_words,
    load_originals,
    needs,
    partials,
    read_dataset,
    run_at_terminal,
    run_cli,
    same_voxels,
    sources_left,
    strict_json,
)

TINY = (4, 4, 2)

Make = Callable[..., SyntheticCtRate]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@contextmanager
def started(folder: Path, *words: object) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A command under way in a process group of its own; what it says goes to a file."""
    said = folder / "said.txt"
    with (
        said.open("w") as stream,
        subprocess.Popen(
            command(*words),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process, said
        finally:
            process.kill()


def wait_until(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """Wait until something has happened, which must be before the process ends."""
    deadline = time.monotonic() + TIMEOUT_S
    while not happened():
        assert process.poll() is None, "the command ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def records(out: Path) -> int:
    return len(list((out / ".run" / "records").glob("shard-*.json")))


def everything_in(folder: Path) -> dict[Path, bytes | None]:
    """All files below ``folder`` with what they hold, and all folders."""
    return {
        path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))
    }


# --- Step 1, then step 3, into the same output directory -------------------------------------


def test_test_mode_and_then_everything_into_one_directory(make_ctrate: Make, out: Path) -> None:
    """100 of 250 samples in test mode, then all: the second run adds 150 and loses none."""
    made = make_ctrate(250, shape=TINY)
    originals = load_originals(made)

    first = run_cli(*convert_words(made, out, "--test_mode", *DELETE))
    assert first.code == ExitCode.DONE
    assert "Left for a later plan: 150 samples" in first.text
    assert "Deleted 100 source files" in first.text
    assert len(read_dataset(out)) == 100
    assert len(sources_left(made)) == 150
    assert_nothing_lost(made, originals, out)
    shards = {path: path.read_bytes() for path in out.glob("*.tar")}

    second = run_cli(*convert_words(made, out, *DELETE))
    assert second.code == ExitCode.DONE
    assert "Already planned: 100 samples" in second.text
    assert "Converted 150 samples" in second.text
    assert {path: path.read_bytes() for path in shards} == shards
    assert_finished(made, originals, out)
    assert not sources_left(made)


# --- SIGTERM in mid-run ----------------------------------------------------------------------


@pytest.mark.parametrize("whole_group", [False, True], ids=["the command", "its process group"])
def test_sigterm_and_the_same_command_again(
    make_ctrate: Make, out: Path, tmp_path: Path, whole_group: bool
) -> None:
    """After SIGTERM in mid-run the same command goes on; finished shards stay as they are."""
    made = make_ctrate(400, shape=TINY, kinds=("data", "volume"))
    originals = load_originals(made)
    words = convert_words(made, out, "--samples_per_shard", 20, *DELETE)

    with started(tmp_path, *words) as (process, said):
        wait_until(process, lambda: records(out) >= 2)
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == ExitCode.INTERRUPTED
    assert "Stopped by SIGTERM; nothing is lost, the same command goes on." in said.read_text()
    assert 0 < len(read_dataset(out)) < 400
    assert_nothing_lost(made, originals, out)
    shards = {path: path.read_bytes() for path in out.glob("*.tar")}

    again = run_cli(*words)
    assert again.code == ExitCode.DONE
    assert {path: path.read_bytes() for path in shards} == shards
    assert_finished(made, originals, out)
    assert not sources_left(made)
    assert not partials(out)


# --- One worker killed -----------------------------------------------------------------------


def worker_in_mid_shard(process: subprocess.Popen[str]) -> psutil.Process | None:
    """A worker, stopped, that has an unpublished shard open."""
    try:
        helpers = psutil.Process(process.pid).children()
        workers = [worker for helper in helpers for worker in helper.children()]
    except psutil.NoSuchProcess:
        return None
    for worker in workers:
        try:
            worker.suspend()
            if any(".partial" in file.path for file in worker.open_files()):
                return worker
            worker.resume()
        except psutil.NoSuchProcess:
            continue
    return None


def test_one_worker_killed(make_ctrate: Make, out: Path, tmp_path: Path) -> None:
    """A worker that is killed costs its shard for now; the others finish, nothing is lost."""
    made = make_ctrate(400, shape=TINY, kinds=("data", "volume"))
    originals = load_originals(made)
    words = convert_words(made, out, "--samples_per_shard", 40, *DELETE)
    victims: list[psutil.Process] = []

    def caught() -> bool:
        victims.extend(filter(None, [worker_in_mid_shard(process)]))
        return bool(victims)

    with started(tmp_path, *words) as (process, said):
        wait_until(process, caught)
        victims[0].kill()
        assert process.wait(TIMEOUT_S) == ExitCode.ENVIRONMENT
    text = said.read_text()
    assert "died: killed by SIGKILL (often the kernel or the scheduler, out of memory)" in text
    assert "give the same command again" in text
    assert len(read_dataset(out)) == 360
    assert len(sources_left(made)) == 40
    assert_nothing_lost(made, originals, out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["samples"]["pending"] == 40

    assert run_cli(*words).code == ExitCode.DONE
    assert_finished(made, originals, out)
    assert not sources_left(made)
    assert not partials(out)


# --- No space --------------------------------------------------------------------------------


def test_one_short_no_space_in_the_middle_of_a_member(make_ctrate: Make, out: Path) -> None:
    """One write that finds no space publishes nothing, deletes nothing, and is said."""
    needs("strace", "strace", "-o", "/dev/null", "true")
    made = make_ctrate(50, shape=TINY, kinds=("data", "volume"))
    originals = load_originals(made)
    words = convert_words(made, out, *DELETE)

    inject = "inject=write:error=ENOSPC:when=300"
    strace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=write", "-e", inject]
    first = run_cli(*words, before=strace)
    assert first.code == ExitCode.ENVIRONMENT
    assert "No space left on device (free some space there; nothing was lost)" in first.text
    assert not read_dataset(out)
    assert len(sources_left(made)) == 50
    assert not partials(out)

    assert run_cli(*words).code == ExitCode.DONE
    assert_finished(made, originals, out)
    assert not sources_left(made)


def test_a_file_size_limit_in_the_middle_of_a_member(make_ctrate: Make, out: Path) -> None:
    """A write cut short by a limit is no shard either."""
    made = make_ctrate(50, shape=TINY, kinds=("data", "volume"))
    originals = load_originals(made)
    words = convert_words(made, out, *DELETE)
    limit = 200_000

    first = run_cli(
        *words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert first.code == ExitCode.ENVIRONMENT
    assert "File too large (a file size limit (ulimit -f) is in the way)" in first.text
    assert not read_dataset(out)
    assert len(sources_left(made)) == 50

    assert run_cli(*words).code == ExitCode.DONE
    assert_finished(made, originals, out)


FULL_DISK = """
full=$1 roomy=$2; shift 2
"$@"; echo "full disk: $?"
cp -a "$out/." "$full"
rm "$disk/filler"
"$@"; echo "more space: $?"
cp -a "$out/." "$roomy"
"""


def test_disk_really_full(make_ctrate: Make, out: Path, tmp_path: Path) -> None:
    """On a full disk no truncated tar counts; with more space the same command goes on."""
    made = make_ctrate(60, shape=TINY, kinds=("data", "volume"))
    originals = load_originals(made)
    full, roomy = tmp_path / "full", tmp_path / "roomy"
    for folder in (out, full, roomy):
        folder.mkdir()

    words = convert_words(made, out, "--samples_per_shard", 6, "--min_free_gb", 1e-9, *DELETE)
    script = on_small_disk(FULL_DISK, out, tmp_path, free_bytes=700 * 2**10)
    done = subprocess.run(
        [*script, str(full), str(roomy), *command(*words)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert f"full disk: {int(ExitCode.ENVIRONMENT)}" in done.stdout, done.stdout + done.stderr
    assert "No space left on device" in done.stdout + done.stderr
    assert f"more space: {int(ExitCode.DONE)}" in done.stdout, done.stdout + done.stderr
    in_time = read_dataset(full)
    assert 0 < len(in_time) < 60
    for key, found in in_time.items():
        assert same_voxels(found.volume, originals[key].astype(found.volume.dtype))
    assert_finished(made, originals, roomy)
    assert not sources_left(made)


def test_memory_is_no_storage(make_ctrate: Make, out: Path) -> None:
    """Where the output is memory a deletion is refused, with the reason; every source stays."""
    mount = 'mount -t tmpfs tmpfs "$0" && shift 0 && "$@"'
    needs("unshare", "unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt")
    made = make_ctrate(6, shape=TINY)
    out.mkdir()
    before = ["unshare", "-rm", "sh", "-c", mount, str(out)]
    refused = run_cli(*convert_words(made, out, *DELETE), before=before)
    assert refused.code == ExitCode.REFUSED, refused.text
    assert "no source is deleted: the output lies in memory (tmpfs" in refused.text
    assert sources_left(made) == set(made.keys)


# --- Another key -----------------------------------------------------------------------------


def test_another_key_than_data(make_ctrate: Make, out: Path) -> None:
    """The one numeric 3-D array is taken, whatever its key."""
    made = make_ctrate(10, shape=TINY, kinds=("data",))
    for number, path in enumerate(made.sources.values()):
        volume = np.full(TINY, number, np.int16)
        arrays: dict[str, Any] = {f"voxels {number}": volume, "spacing": np.ones(3), "note": "CT"}
        np.savez(path, **arrays)
    originals = load_originals(made)

    done = run_cli(*convert_words(made, out, *DELETE))
    assert done.code == ExitCode.DONE
    assert_finished(made, originals, out)
    assert not sources_left(made)


def test_no_volume_in_any_npz(make_ctrate: Make, out: Path) -> None:
    """Where no NPZ has a volume, no empty tar appears, and each sample is named with its reason."""
    made = make_ctrate(10, shape=TINY)
    for path in made.sources.values():
        np.savez(path, table=np.zeros((3, 3)))

    done = run_cli(*convert_words(made, out, *DELETE))
    assert done.code == ExitCode.SAMPLES_FAILED
    assert not list(out.glob("*.tar"))
    assert len(sources_left(made)) == 10
    for key in made.keys:
        assert f"failed, source kept: {key}: no numeric 3-D array" in done.text
    assert "seen table.npy (float64 3×3), expected one numeric 3-D array" in done.text
    assert "0 converted + 10 failed + 0 pending + 1 excluded = 11" in done.text


# --- The question ----------------------------------------------------------------------------


def test_without_a_terminal_and_without_yes(make_ctrate: Make, out: Path) -> None:
    """Under sbatch, deletion without --yes is refused before anything is begun."""
    made = make_ctrate(10, shape=TINY)
    done = run_cli(*convert_words(made, out, "--delete_source_files"))
    assert done.code == ExitCode.REFUSED
    assert "there is no terminal to ask at" in done.stderr
    assert "the same command with --yes" in done.stderr
    assert "Traceback" not in done.text
    assert not out.exists()
    assert len(sources_left(made)) == 10


def test_typed_delete(make_ctrate: Make, out: Path) -> None:
    """The warning gives the true count; the typed word DELETE allows deletion."""
    made = make_ctrate(10, shape=TINY, faults=("no_report",))
    originals = load_originals(made)
    left_out = set(made.faults)
    done = run_at_terminal("DELETE\n", *convert_words(made, out, "--delete_source_files"))
    assert done.code == ExitCode.DONE
    assert "WARNING: up to 9 source files" in done.stderr
    assert "DELETE converts and deletes" in done.stderr
    assert sources_left(made) == left_out
    assert_finished(made, {k: v for k, v in originals.items() if k not in left_out}, out)


@pytest.mark.parametrize("answer", ["delete\n", "\n", "yes\n", "DELETE it\n", "\x04"])
def test_another_answer(make_ctrate: Make, out: Path, answer: str) -> None:
    """Any other answer, and none, does nothing at all: no plan, no folder, no file is touched."""
    made = make_ctrate(6, shape=TINY)
    before = everything_in(out.parent)
    done = run_at_terminal(answer, *convert_words(made, out, "--delete_source_files"))
    assert done.code == (ExitCode.INTERRUPTED if answer == "\x04" else ExitCode.REFUSED), done.text
    assert not out.exists()
    assert everything_in(out.parent) == before


def test_another_answer_in_a_folder_that_is_there(make_ctrate: Make, out: Path) -> None:
    """A folder that was there before stays, with what is in it; ``.run`` is not left behind."""
    made = make_ctrate(6, shape=TINY)
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    before = everything_in(out.parent)
    done = run_at_terminal("no\n", *convert_words(made, out, "--delete_source_files"))
    assert done.code == ExitCode.REFUSED, done.text
    assert not (out / ".run").exists()
    assert everything_in(out.parent) == before


def test_another_answer_with_a_trash(make_ctrate: Make, out: Path, tmp_path: Path) -> None:
    """The trash is not made before the answer is there."""
    made = make_ctrate(6, shape=TINY)
    words = convert_words(made, out, "--delete_source_files", "--trash", tmp_path / "trash")
    assert run_at_terminal("no\n", *words).code == ExitCode.REFUSED
    assert not out.exists()
    assert not (tmp_path / "trash").exists()


def test_keep(make_ctrate: Make, out: Path) -> None:
    """``keep`` converts and deletes nothing, and is not remembered as a consent."""
    made = make_ctrate(6, shape=TINY)
    originals = load_originals(made)
    done = run_at_terminal("keep\n", *convert_words(made, out, "--delete_source_files"))
    assert done.code == ExitCode.DONE, done.text
    assert "Nothing will be deleted." in done.stderr
    assert_finished(made, originals, out)
    assert sources_left(made) == set(made.keys)
    assert not list((out / ".run" / "consents").glob("*.json"))
    assert run_cli("run", out).code == ExitCode.REFUSED  # it would delete, and cannot ask
    assert run_cli("run", out, "--keep_source_files").code == ExitCode.DONE
    assert sources_left(made) == set(made.keys)


# --- Missing cells ---------------------------------------------------------------------------


def test_missing_cells(make_ctrate: Make, out: Path) -> None:
    """A missing cell is empty text; the word "nan" and JSON's NaN appear nowhere."""
    made = make_ctrate(6, shape=TINY, kinds=("data",))
    for table in (made.reports_file, made.meta_file):
        header, *rows = table.read_text().splitlines()
        names = [row.partition(",")[0] for row in rows]
        lines = [header, *(name + "," * header.count(",") for name in names)]
        table.write_text("\n".join(lines) + "\n")

    done = run_cli(*convert_words(made, out))
    assert done.code == ExitCode.DONE
    for key, found in read_dataset(out).items():
        assert found.members["report.txt"] == b"\n"
        assert b"nan" not in found.members["json"].lower()
        fields = strict_json(found.members["json"])
        assert fields["spacing_mm"] == []
        assert fields["metadata"].pop("VolumeName") == f"{key}.nii.gz"
        assert set(fields["metadata"].values()) == {""}
        assert set(fields["report"].values()) == {""}


# --- 3,039 volumes at 50 a shard -------------------------------------------------------------


def test_3039_volumes_at_50_a_shard(make_ctrate: Make, out: Path) -> None:
    """The last, smaller shard is there, is in the manifest, and is read like all others."""
    made = make_ctrate(3039, shape=(2, 2, 1), kinds=("data",), split="valid")
    done = run_cli(*convert_words(made, out, "--samples_per_shard", 50))
    assert done.code == ExitCode.DONE
    assert "3,039 converted + 0 failed + 0 pending + 1 excluded = 3,040" in done.text
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["num_shards"] == 61
    assert manifest["total_samples"] == 3039
    assert [shard["samples"] for shard in manifest["shards"]] == [50] * 60 + [39]
    assert sorted(path.name for path in out.glob("*.tar")) == [
        s["name"] for s in manifest["shards"]
    ]
    assert_finished(made, load_originals(made), out)


# --- Axis order ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["webdataset", "ctclip"])
def test_axis_order_and_shape(make_ctrate: Make, out: Path, layout: str) -> None:
    """Volumes of different shapes and axis orders load as they were, by what their sample says."""
    made = make_ctrate(4, shape=(7, 5, 3), kinds=("volume", "arr_0", "arr"))
    odd = made.keys[3]
    np.savez(made.sources[odd], data=np.arange(2 * 9 * 4, dtype=np.int16).reshape(2, 9, 4))
    originals = load_originals(made)
    assert {array.shape for array in originals.values()} == {(7, 5, 3), (3, 7, 5), (2, 9, 4)}

    done = run_cli(*convert_words(made, out, "--layout", layout))
    assert done.code == ExitCode.DONE
    found = read_dataset(out)
    assert found.keys() == originals.keys()
    for key, original in originals.items():
        fields = strict_json(found[key].members["json"])
        assert fields["shape"] == list(original.shape)
        if layout == "ctclip":
            assert fields["volume_shape"] == list(original.shape)
            volume = np.frombuffer(found[key].members["bin"], np.float16)
            volume = volume.reshape(fields["volume_shape"])
            assert same_voxels(volume, original.astype(np.float16))
        else:
            volume = np.load(io.BytesIO(found[key].members["volume.npy"]))
            assert same_voxels(volume, original.astype(volume.dtype))


def test_the_same_command_again_does_nothing(make_ctrate: Make, out: Path) -> None:
    """After a finished run with deletion the same command changes nothing and ends well."""
    made = make_ctrate(10, shape=TINY)
    originals = load_originals(made)
    words = convert_words(made, out, *DELETE)
    outcomes: list[Finished] = [run_cli(*words)]
    before = {path: path.read_bytes() for path in sorted(out.glob("[!.]*"))}
    outcomes.append(run_cli(*words))
    assert [done.code for done in outcomes] == [ExitCode.DONE, ExitCode.DONE]
    assert {path: path.read_bytes() for path in sorted(out.glob("[!.]*"))} == before
    assert_finished(made, originals, out)
