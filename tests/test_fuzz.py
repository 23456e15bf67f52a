"""A short part of the fuzz, always the same; ``python -m tests.fuzz`` goes on for longer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from unittest import mock

import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.operations import run
from tests import fuzz
from tests.crash.scenario import orders_here, quick_folder
from tests.support import run_here

VOLUMES, TABLES, DATASETS = 5_000, 500, 500


@pytest.fixture(scope="module")
def stage() -> Iterator[fuzz.Stage]:
    with quick_folder("fuzz") as folder:
        yield fuzz.Stage.make(folder)


@pytest.mark.parametrize(
    ("target", "turns"), [("volume", VOLUMES), ("table", TABLES), ("dataset", DATASETS)]
)
def test_nothing_is_found(stage: fuzz.Stage, target: str, turns: int) -> None:
    """Damaged files are read or refused; tampered ones make no command do harm or lose its way."""
    came = Counter(fuzz.one_turn(target, seed, stage) for seed in range(turns))
    assert len(came) > 1, "every turn came to the same: nothing was tried"


def lose_a_source(stage: fuzz.Stage) -> None:
    next(iter(stage.scenario.made.sources.values())).unlink()


def lose_what_no_plan_names(stage: fuzz.Stage) -> None:
    (stage.scenario.disk_folder / "npz" / "extra.npz").unlink()


def change_outside(stage: fuzz.Stage) -> None:
    (stage.outside / "notes.jsonl").write_text("changed")


def make_outside(stage: fuzz.Stage) -> None:
    (stage.outside / "new").touch()


def change_a_shard(stage: fuzz.Stage) -> None:
    with next(stage.out.glob("*.tar")).open("ab") as stream:
        stream.write(b"x")


@pytest.mark.parametrize(
    "harm",
    [lose_a_source, lose_what_no_plan_names, change_outside, make_outside, change_a_shard],
)
def test_harm_is_found(stage: fuzz.Stage, harm: Callable[[fuzz.Stage], None]) -> None:
    """The check that every turn ends with sees each kind of harm."""
    _, tree = next(entry for entry in stage.trees if entry[0].startswith("link shard-000000."))
    stage.put(tree)
    before = stage.sources_left()
    shards = {path: path.read_bytes() for path in stage.out.glob("*.tar")}
    if harm is lose_a_source:
        for path in shards:
            path.unlink()
        shards = {}
    stage.check(before, shards)
    harm(stage)
    with pytest.raises(fuzz.Found):
        stage.check(before, shards)


def test_a_journal_that_is_a_link(stage: fuzz.Stage) -> None:
    """Nothing is appended through a link, and without a journal nothing is deleted."""
    _, tree = next(entry for entry in stage.trees if entry[0] == "link shard-000000.json")
    stage.put(tree)
    before = stage.sources_left()
    journal = stage.out / ".run" / "deletions" / "shard-000000.jsonl"
    journal.symlink_to(stage.outside / "notes.jsonl")
    with stage.scenario.same_files(), mock.patch.object(run, "run_orders", orders_here):
        done = run_here("run", stage.out, "--num_workers", 1)
    assert done.code == ExitCode.ENVIRONMENT
    assert "Too many levels of symbolic links" in done.text
    stage.check(before, {})
    shard = stage.scenario.made.keys[:2]
    assert set(shard) <= stage.sources_left()
