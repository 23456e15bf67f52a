"""A short part of the fuzz, always the same; ``python -m tests.fuzz`` goes on for longer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from unittest import mock

import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.operations import run
from tests.crash.scenario import orders_here
from tests.fuzz.stage import Found, Stage
from tests.fuzz.turns import TARGETS, one_turn, stages
from tests.support import run_here

TURNS = {"volume": 5_000, "table": 500, "dataset": 500, "trash": 200}


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, Stage]]:
    with stages() as made:
        yield made


@pytest.fixture
def stage(made: dict[str, Stage]) -> Stage:
    return made["dataset"]


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found(made: dict[str, Stage], target: str) -> None:
    """Damaged files are read or refused; tampered ones make no command do harm or lose its way."""
    came = Counter(one_turn(target, seed, made[target]) for seed in range(TURNS[target]))
    assert len(came) > 1, "every turn came to the same: nothing was tried"


def lose_a_source(stage: Stage) -> None:
    next(iter(stage.scenario.made.sources.values())).unlink()


def lose_what_no_plan_names(stage: Stage) -> None:
    (stage.scenario.disk_folder / "npz" / "extra.npz").unlink()


def change_outside(stage: Stage) -> None:
    (stage.outside / "notes.jsonl").write_text("changed")


def make_outside(stage: Stage) -> None:
    (stage.outside / "new").touch()


def change_a_shard(stage: Stage) -> None:
    with next(stage.out.glob("*.tar")).open("ab") as stream:
        stream.write(b"x")


@pytest.mark.parametrize(
    "harm",
    [lose_a_source, lose_what_no_plan_names, change_outside, make_outside, change_a_shard],
)
def test_harm_is_found(stage: Stage, harm: Callable[[Stage], None]) -> None:
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
    with pytest.raises(Found):
        stage.check(before, shards)


def test_a_journal_that_is_a_link(stage: Stage) -> None:
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
