"""How many files and folders a dataset has for each shard and run: those of docs/scale.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import plan_words, run_cli

SHARD = {".": 1, ".run/records": 1, ".run/locks": 1}
"""The tar, its record, and an empty lock."""

RUN = {".run/attempts/*": 3}
"""The start, the progress and the end of a run, in a folder of its own."""

ONCE = {".": 2, ".run/plans/0000": 4, ".run/locks": 2}
"""The manifest and the card; the plan, its copy and two lists; the locks of both."""


def files(out: Path) -> Counter[str]:
    """How many files each folder holds; all attempts count as one folder."""
    found: Counter[str] = Counter()
    for path in out.rglob("*"):
        if path.is_file():
            folder = path.parent.relative_to(out)
            attempt = folder.parent.name == "attempts"
            found[f"{folder.parent}/*" if attempt else str(folder)] += 1
    return found


def expected(shards: int, runs: int) -> Counter[str]:
    found = Counter(ONCE)
    for part, times in ((SHARD, shards), (RUN, runs)):
        found.update({folder: number * times for folder, number in part.items()})
    return found


@pytest.mark.parametrize("shards_per_task", [1, 3])
def test_a_shard_has_three_files_and_a_run_three(
    make_ctrate: Callable[..., SyntheticCtRate], tmp_path: Path, shards_per_task: int
) -> None:
    """However many tasks there are, and however often a run is begun again."""
    out = tmp_path / "out"
    words = ("--samples_per_shard", 1, "--shards_per_task", shards_per_task, "--probe", 0)
    assert run_cli(*plan_words(make_ctrate(6), out, *words)).code == 0
    for runs, done in ((1, shards_per_task), (2, 6), (2, 6)):
        task = ("--task", 0) if done < 6 else ()
        assert run_cli("run", out, "--num_workers", 2, *task).code == 0
        assert files(out) == expected(done, runs)
    folders = [path for path in out.rglob("*") if path.is_dir()]
    assert len(folders) == 10 + 2  # of the dataset with one plan, and of two runs
