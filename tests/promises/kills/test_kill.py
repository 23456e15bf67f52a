"""SIGKILL at random moments, the same command again: nothing lost, nothing twice, same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.store.presence import ASIDE_SUFFIX
from ctrate_convert.synthetic import (
    NIFTI_KINDS,
    NPZ_KINDS,
    Kind,
    SyntheticCtRate,
    write_synthetic_ctrate,
)

VOLUMES = 60
KILLS = 200
PARTS = 4


def command(made: SyntheticCtRate, out: Path) -> list[str]:
    """The one command that is given again and again."""
    return [
        sys.executable, "-m", "ctrate_convert", "convert",
        "--data_folder", str(made.data_folder),
        "--reports_file", str(made.reports_file),
        "--meta_file", str(made.meta_file),
        "--labels_file", str(made.labels_file),
        "--output_dir", str(out),
        "--samples_per_shard", "5", "--num_workers", "2",
        "--delete_source_files", "--yes", "--probe", "0",
    ]  # fmt: skip


KINDS = (NPZ_KINDS, NIFTI_KINDS)
"""Of the sources: half of the parts have the ones, half the others."""


def write_volumes(folder: Path, kinds: Sequence[Kind]) -> SyntheticCtRate:
    return write_synthetic_ctrate(folder, samples=VOLUMES, shape=(16, 16, 8), seed=5, kinds=kinds)


def shards(out: Path) -> dict[str, str]:
    """SHA-256 of every shard."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.glob("*.tar")}


def keys_in_shards(out: Path, stems: Collection[str] | None = None) -> Counter[str]:
    """How often each sample is in a shard (of those named ``stems``), as tarfile sees it."""
    found: Counter[str] = Counter()
    for path in out.glob("*.tar"):
        if stems is not None and path.stem not in stems:
            continue
        with tarfile.open(path) as archive:
            found.update(n.split(".")[0] for n in archive.getnames() if n.endswith(".json"))
    return found


def there(made: SyntheticCtRate) -> dict[str, Path]:
    """Each source that is there by its key: under its name, or under the one it leaves by."""
    found = {key: path for key, path in made.sources.items() if path.exists()}
    for path in aside(made):
        found[path.name.removeprefix(".").partition(".")[0]] = path
    return found


def aside(made: SyntheticCtRate) -> list[Path]:
    return [*made.data_folder.rglob(f".*{ASIDE_SUFFIX}")]


def journal(out: Path) -> list[tuple[int, dict[str, Any]]]:
    """Every whole line of every journal, with its shard."""
    lines = []
    for path in out.glob(".run/deletions/*.jsonl"):
        for raw in path.read_bytes().splitlines(keepends=True):
            if raw.endswith(b"\n"):
                lines.append((int(path.stem.rpartition("-")[2]), json.loads(raw)))
    return lines


def assert_allowed(out: Path) -> None:
    """Behind every line of every journal stands a consent that names its shard."""
    for shard, line in journal(out):
        name = line["authorised_by"].partition("(consent ")[2].removesuffix(")")
        consent = json.loads((out / ".run" / "consents" / f"{name}.json").read_bytes())
        assert any(first <= shard <= last for first, last in consent["shards"]), line


def assert_nothing_lost(made: SyntheticCtRate, out: Path, contents: dict[str, bytes]) -> None:
    """Each source is there, unchanged, or its sample is in a shard that has its record.

    A worker that outlives its command for a moment may go on meanwhile.
    """
    told = {line["key"] for _, line in journal(out) if line["event"] in ("deleted", "found_gone")}
    left = there(made)
    for key, path in left.items():
        with contextlib.suppress(FileNotFoundError):
            assert path.read_bytes() == contents[key], key
    recorded = {path.stem for path in out.glob(".run/records/*.json")}
    assert contents.keys() - left.keys() <= set(keys_in_shards(out, recorded))
    assert not told & left.keys()


def kill_after(words: list[str], seconds: float, *, whole_group: bool) -> bool:
    """Run ``words`` and kill it after ``seconds``; False if it had ended by itself before."""
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:  # the workers live on until they notice
            process.kill()
        process.wait()
        return True
    finally:
        if whole_group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0
    return False


@pytest.mark.parametrize("part", range(PARTS))
def test_every_sample_survives_kills_at_random_moments(part: int, tmp_path: Path) -> None:
    """However often and wherever it is killed, the end is that of an undisturbed run."""
    chance, kinds = random.Random(part), KINDS[part % len(KINDS)]
    pristine = write_volumes(tmp_path / "pristine", kinds)
    undisturbed = write_volumes(tmp_path / "undisturbed", kinds)
    started = time.monotonic()
    subprocess.run(
        command(undisturbed, tmp_path / "expected"), check=True, stdout=subprocess.DEVNULL
    )
    duration_s = time.monotonic() - started
    expected = shards(tmp_path / "expected")
    assert len(expected) == VOLUMES // 5

    contents = {key: path.read_bytes() for key, path in pristine.sources.items()}
    kills = 0
    while kills < KILLS // PARTS:
        made = write_volumes(tmp_path / "again", kinds)
        out = tmp_path / "out"
        words = command(made, out)
        patience, anew = chance.randrange(3, 15), True
        while patience:
            seconds = chance.uniform(0.1, duration_s)
            if not kill_after(words, seconds, whole_group=chance.random() < 0.6):
                if anew:  # all of it takes less: the machine may have stalled at the first time
                    duration_s = seconds
                break
            anew = False
            kills += 1
            patience -= 1
            assert_nothing_lost(made, out, contents)
            assert_allowed(out)
        # A worker that outlived its parent may still hold a shard for a moment.
        for _ in range(20):
            final = subprocess.run(words, capture_output=True, text=True, check=False)
            if final.returncode == 0 and not there(made):
                break
            time.sleep(0.2)
        assert final.returncode == 0, final.stdout + final.stderr
        assert shards(out) == expected
        assert set(keys_in_shards(out).values()) == {1}
        assert len(keys_in_shards(out)) == VOLUMES
        assert not there(made), final.stdout
        assert_nothing_lost(made, out, contents)
        assert_allowed(out)
        last = {line["key"]: line["event"] for _, line in journal(out)}
        assert last.keys() == contents.keys()
        assert set(last.values()) <= {"deleted", "found_gone"}
        consents = {line["authorised_by"] for _, line in journal(out)}
        assert len(consents) <= len([*out.glob(".run/consents/*.json")])
        assert not [p.name for p in out.iterdir() if p.name.endswith(".partial")]
        shutil.rmtree(out)
        shutil.rmtree(tmp_path / "again")
