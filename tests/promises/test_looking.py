"""Looking changes nothing on disk and waits for no lock."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ctrate_convert.store.layout import Dataset
from tests.support import Converted, run_cli

LOOKING = (["status"], ["status", "--json"], ["history"], ["report"], ["report", "--json"])


def everything(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and folder with its inode, size and times, but the access time."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        found[str(path)] = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    return found


@contextmanager
def all_locks_held(dataset: Dataset) -> Iterator[None]:
    """As a merger, a planner and a submitter that hang would hold them."""
    dataset.lock("manifest").parent.mkdir(exist_ok=True)
    held = []
    for name in ("manifest", "plan", "submit", "shard-000000", "shard-000001"):
        descriptor = os.open(dataset.lock(name), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        held.append(descriptor)
    yield
    for descriptor in held:
        os.close(descriptor)


@pytest.mark.parametrize("manifest", ["whole", "missing", "behind"])
@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_looking_changes_nothing_and_waits_for_nobody(
    converted: Converted, words: list[str], manifest: str
) -> None:
    """Not even the manifest, which is a cache, is brought up to date; the numbers are right."""
    dataset = converted.dataset
    if manifest == "missing":
        dataset.manifest.unlink()
    elif manifest == "behind":
        facts = json.loads(dataset.manifest.read_bytes())
        facts["shards"] = facts["shards"][:1]
        dataset.manifest.write_text(json.dumps(facts))
    with all_locks_held(dataset):
        before = everything(dataset.out)
        command, *more = words
        done = run_cli(command, dataset.out, *more)
        assert everything(dataset.out) == before
    assert done.code == 0, done.text
    if words == ["status", "--json"]:
        assert done.json()["samples"]["converted"] == 8
