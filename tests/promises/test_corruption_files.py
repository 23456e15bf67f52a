"""Damage beside the shards is found, named and located: plans' lists, journals, manifest."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from ctrate_convert.errors import DamageError, ExitCode
from tests.promises.test_corruption import BAD, damage_found, flip, name_of
from tests.support import Converted, command, run_here

SAMPLES, EXCLUDED = "plans/0000/samples.jsonl", "plans/0000/excluded.jsonl"
JOURNAL = "deletions/shard-000000.jsonl"


@pytest.fixture
def deleted(converted: Converted) -> Converted:
    """The same eight samples after their sources were deleted: with a journal a shard."""
    assert run_here("delete", converted.out, "--yes").code == ExitCode.DONE
    return converted


def path_of(deleted: Converted, name: str) -> Path:
    return deleted.dataset.run / name


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def change_manifest(deleted: Converted, edit: Callable[[dict[str, Any]], None]) -> None:
    fields = json.loads(deleted.dataset.manifest.read_bytes())
    edit(fields)
    deleted.dataset.manifest.write_text(json.dumps(fields))


# --- What can happen to them ------------------------------------------------------------------


def flip_in_samples(deleted: Converted) -> None:
    flip(path_of(deleted, SAMPLES), deleted.planned(0).lines_size_bytes // 2)


def flip_in_samples_of_the_second_shard(deleted: Converted) -> None:
    flip(path_of(deleted, SAMPLES), deleted.planned(1).lines_offset + 9)


def flip_in_excluded(deleted: Converted) -> None:
    flip(path_of(deleted, EXCLUDED), 12)


def add_to_excluded(deleted: Converted) -> None:
    path = path_of(deleted, EXCLUDED)
    path.write_bytes(path.read_bytes() * 2)


def remove_excluded(deleted: Converted) -> None:
    path_of(deleted, EXCLUDED).unlink()


def flip_in_journal(deleted: Converted) -> None:
    """In the second line, which is none any more."""
    path = path_of(deleted, JOURNAL)
    flip(path, path.read_bytes().index(b"\n") + 1)


def cut_the_middle_out_of_journal(deleted: Converted) -> None:
    path = path_of(deleted, JOURNAL)
    data = path.read_bytes()
    path.write_bytes(data[:40] + data[60:])


def another_key_in_journal(deleted: Converted) -> None:
    change(path_of(deleted, JOURNAL), '"key":"train_', '"key":"valid_')


def another_source_in_journal(deleted: Converted) -> None:
    change(path_of(deleted, JOURNAL), ".npz", ".npy")


def journal_of_no_shard(deleted: Converted) -> None:
    path = path_of(deleted, JOURNAL)
    path.with_name("shard-000009.jsonl").write_bytes(path.read_bytes())


def folder_for_a_journal(deleted: Converted) -> None:
    path_of(deleted, JOURNAL).unlink()
    path_of(deleted, JOURNAL).mkdir()


def lose_shard_and_record(deleted: Converted) -> None:
    (deleted.out / BAD).unlink()
    deleted.dataset.record(0).unlink()


def lose_all_but_the_journal(deleted: Converted) -> None:
    lose_shard_and_record(deleted)
    deleted.dataset.manifest.unlink()


def cut_manifest(deleted: Converted) -> None:
    os.truncate(deleted.dataset.manifest, 200)


def zero_manifest(deleted: Converted) -> None:
    deleted.dataset.manifest.write_bytes(bytes(99))


def folder_for_a_manifest(deleted: Converted) -> None:
    deleted.dataset.manifest.unlink()
    deleted.dataset.manifest.mkdir()


def another_total_in_manifest(deleted: Converted) -> None:
    change_manifest(deleted, lambda fields: fields.update(total_samples=7))


def another_state_in_manifest(deleted: Converted) -> None:
    change(deleted.dataset.manifest, '"converted"', '"conserved"')


def another_size_in_manifest(deleted: Converted) -> None:
    change_manifest(deleted, lambda fields: fields["shards"][1].update(size_bytes=1))


def another_digest_in_manifest(deleted: Converted) -> None:
    change_manifest(deleted, lambda fields: fields["shards"][1].update(sha256="0" * 64))


def superseded_in_manifest(deleted: Converted) -> None:
    key = deleted.record(0).converted[0].key
    change_manifest(deleted, lambda f: f["shards"][0].update(superseded=[key], samples=3))


def manifest_of_another_plan(deleted: Converted) -> None:
    change_manifest(deleted, lambda fields: fields.update(plans=["0" * 64]))


def unknown_shard_in_manifest(deleted: Converted) -> None:
    def add(fields: dict[str, Any]) -> None:
        fields["shards"].append({**fields["shards"][0], "name": "shard-000007.tar", "samples": 0})

    change_manifest(deleted, add)


FILE_DAMAGE: list[tuple[Callable[[Converted], None], str]] = [
    (flip_in_samples, f"{SAMPLES}: the lines of {BAD} (bytes 0–"),
    (flip_in_samples_of_the_second_shard, f"{SAMPLES}: the lines of shard-000001.tar (bytes "),
    (flip_in_excluded, f"{EXCLUDED}: the plan's list was changed after it was written"),
    (add_to_excluded, f"{EXCLUDED}: the plan's list was changed after it was written"),
    (remove_excluded, f"{EXCLUDED}: a file of the plan is missing; restore the file from a copy"),
    (flip_in_journal, f"{JOURNAL}: line 2 cannot be read: "),
    (cut_the_middle_out_of_journal, f"{JOURNAL}: line 1 cannot be read: "),
    (another_key_in_journal, f"{JOURNAL}: line 1 tells of valid_"),
    (another_source_in_journal, f"{JOURNAL}: line 1 tells of train_"),
    (journal_of_no_shard, "deletions/shard-000009.jsonl: a journal of a shard that no plan knows"),
    (folder_for_a_journal, f"{JOURNAL}: is no regular file"),
    (lose_shard_and_record, f"shard-000000.json: is missing, and the manifest lists {BAD}"),
    (lose_all_but_the_journal, f"{JOURNAL}: it tells of 4 sources that were taken away; their "),
    (cut_manifest, "manifest.json: not a valid Manifest"),
    (zero_manifest, "manifest.json: not a valid Manifest"),
    (folder_for_a_manifest, "manifest.json: not a regular file; move it away, then: "),
    (another_total_in_manifest, "manifest.json: total_samples: seen 7, expected 8; move it away"),
    (another_state_in_manifest, "manifest.json: samples: seen "),
    (another_size_in_manifest, "manifest.json: shard-000001.tar, size_bytes: seen 1, expected "),
    (another_digest_in_manifest, "manifest.json: shard-000001.tar, sha256: seen 000"),
    (superseded_in_manifest, f"manifest.json: {BAD}, superseded: seen ['train_"),
    (manifest_of_another_plan, "manifest.json: plans: seen "),
    (unknown_shard_in_manifest, "manifest.json: lists shard-000007.tar, which no plan knows"),
]


@pytest.mark.parametrize(("damage", "found"), FILE_DAMAGE, ids=name_of)
def test_damaged_file(deleted: Converted, damage: Callable[[Converted], None], found: str) -> None:
    """Named, located, with exit code 3; reading shards whole is not needed for it."""
    damage(deleted)
    seen = run_here("verify", deleted.out, "--num_samples", 0)
    assert seen.code == ExitCode.DAMAGE, seen.text
    assert f"  {found}" in seen.stdout, seen.stdout
    assert "No damage found" not in seen.stdout


def test_a_flip_anywhere_in_a_plan_or_a_record(converted: Converted) -> None:
    """Wherever a byte changes, the file is named."""
    for path in (
        path_of(converted, "plans/0000/plan.json"),
        path_of(converted, SAMPLES),
        path_of(converted, EXCLUDED),
        converted.dataset.record(1),
    ):
        size = path.stat().st_size
        for place in {*range(0, size, 1 + size // 40), size - 2}:
            flip(path, place)
            try:
                found = damage_found(converted, whole=False)
            except DamageError as error:
                found = [error.one_line()]
            assert any(path.name in one for one in found), f"{path.name}, byte {place}: {found}"
            flip(path, place)
    assert damage_found(converted) == []


def test_a_missing_manifest_is_told_of(deleted: Converted) -> None:
    """It is a cache: no damage, but what it would have shown was not looked at."""
    deleted.dataset.manifest.unlink()
    seen = run_here("verify", deleted.out, "--full")
    assert seen.code == ExitCode.DONE
    told = "Note: manifest.json is missing: whether records were changed since is not known."
    assert f"{told} Make it with: ctrate-convert merge {deleted.out}" in seen.stdout
    assert run_here("merge", deleted.out).code == ExitCode.DONE
    assert "manifest.json" not in run_here("verify", deleted.out).stdout


def test_what_is_not_merged_yet_is_told_of(deleted: Converted) -> None:
    """A record that is in no manifest cannot be compared with it; merging brings it in."""
    before = deleted.dataset.manifest.read_bytes()
    deleted.dataset.manifest.unlink()
    aside = deleted.dataset.record(1).rename(deleted.out / "aside")
    assert run_here("merge", deleted.out).code == ExitCode.DONE
    aside.rename(deleted.dataset.record(1))
    seen = run_here("verify", deleted.out)
    assert seen.code == ExitCode.DONE, seen.text
    assert "Note: manifest.json lacks 1 recorded shards" in seen.stdout
    assert run_here("merge", deleted.out).code == ExitCode.DONE
    assert len(deleted.dataset.manifest.read_bytes()) >= len(before)
    assert "lacks" not in run_here("verify", deleted.out).stdout


@pytest.mark.parametrize("left", ["short", "zeros", "zeros at its end", "short, and gone on"])
def test_what_a_crash_leaves_in_a_journal_is_no_damage(deleted: Converted, left: str) -> None:
    """A line that never got to its end is told of; the sources' state does not rest on it."""
    path = path_of(deleted, JOURNAL)
    line = path.read_bytes().splitlines()[0]
    cut = {
        "short": line[: len(line) // 2],
        "zeros": bytes(len(line)),
        "zeros at its end": line[:60] + bytes(80),
        "short, and gone on": line[:-1] + b"\n" + line + b"\n",
    }
    number = len(path.read_bytes().splitlines()) + 1
    with path.open("ab") as stream:
        stream.write(cut[left])
    seen = run_here("verify", deleted.out)
    assert seen.code == ExitCode.DONE, seen.text
    assert f"Note: {JOURNAL}: line {number} was cut short, as a crash leaves it" in seen.stdout


# --- The processes that look at the shards ----------------------------------------------------


STOPS_WORKERS = """
import os, signal, sys
if "multiprocessing.forkserver" in sys.orig_argv[-1]:
    os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGSTOP))
"""


def start_and_stop_workers(converted: Converted) -> tuple[subprocess.Popen[str], list[int]]:
    """A full verification whose two workers stop at once, as if storage hung."""
    hook = converted.out.parent / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(STOPS_WORKERS)
    path = os.pathsep.join(filter(None, (str(hook), os.environ.get("PYTHONPATH"))))
    words = command("verify", converted.out, "--full", "--num_workers", 2)
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    workers: list[int] = []
    while len(workers) < 2:
        assert process.poll() is None
        with contextlib.suppress(psutil.NoSuchProcess):
            workers = sorted(
                worker.pid
                for child in psutil.Process(process.pid).children()
                for worker in child.children()
                if worker.status() == psutil.STATUS_STOPPED
            )
        time.sleep(0.005)
    return process, workers


def test_ctrl_c_ends_a_verification_at_once(converted: Converted) -> None:
    """It says so, with exit code 130, and no process goes on."""
    process, workers = start_and_stop_workers(converted)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == ExitCode.INTERRUPTED, stderr
    assert "interrupted" in stderr and "Traceback" not in stderr
    assert not any(map(psutil.pid_exists, workers))


def test_a_killed_worker_is_not_taken_for_sound(converted: Converted) -> None:
    """What it was looking at was not looked at: exit code 5, and the next command."""
    process, workers = start_and_stop_workers(converted)
    os.kill(workers[0], signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == ExitCode.ENVIRONMENT, stdout + stderr
    assert "a worker process died: killed by SIGKILL" in stderr
    assert "No damage found" not in stdout
    assert not any(map(psutil.pid_exists, workers))


def test_workers_end_with_the_one_who_started_them(converted: Converted) -> None:
    """A command that is killed leaves no process behind."""
    process, workers = start_and_stop_workers(converted)
    process.kill()
    process.wait(20)
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)
    process.communicate(timeout=20)  # nobody holds its output open any more
    deadline = time.monotonic() + 20
    while any(map(psutil.pid_exists, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
