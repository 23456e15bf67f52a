"""A short part of the fuzz, always the same; ``python -m tests.promises.fuzz`` goes on longer."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.store.presence import aside_name
from tests.promises.fuzz.names import PLANTED
from tests.promises.fuzz.stage import Found, Stage
from tests.promises.fuzz.turns import TARGETS, one_turn, stages

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


def hidden_place(stage: Stage) -> Path:
    source = [*stage.scenario.made.sources.values()][-1]
    return source.with_name(aside_name(source.name))


def change_what_is_aside(stage: Stage) -> None:
    hidden_place(stage).write_bytes(b"neither a source nor what was planted")


def lose_what_was_planted(stage: Stage) -> None:
    hidden_place(stage).unlink()


@pytest.mark.parametrize("plant", ["file", "FIFO", "link", "folder"])
def test_harm_to_what_was_planted_is_found(stage: Stage, plant: str) -> None:
    """What others put beside a source is known, and that it went is seen."""
    _, tree = next(entry for entry in stage.trees if entry[0].startswith("link shard-000000."))
    stage.put(tree)
    before, place = stage.sources_left(), hidden_place(stage)
    if plant == "file":
        place.write_bytes(PLANTED)
    elif plant == "FIFO":
        os.mkfifo(place)
    elif plant == "link":
        place.symlink_to("anything")
    else:
        place.mkdir()
    planted = stage.foreign()
    assert planted == Counter({plant: 1})
    stage.check(before, {}, planted)
    place.rmdir() if plant == "folder" else place.unlink()
    with pytest.raises(Found):
        stage.check(before, {}, planted)


def test_a_source_that_was_left_aside_is_there(stage: Stage) -> None:
    """Under its hidden name a source is neither lost nor may it be changed."""
    _, tree = next(entry for entry in stage.trees if entry[0].startswith("link shard-000000."))
    stage.put(tree)
    before, place = stage.sources_left(), hidden_place(stage)
    [*stage.scenario.made.sources.values()][-1].rename(place)
    assert stage.sources_left() == before
    stage.check(before, {})
    change_what_is_aside(stage)
    with pytest.raises(Found):
        stage.check(before, {})
    lose_what_was_planted(stage)
    for path in stage.out.glob("*.tar"):
        path.unlink()
    with pytest.raises(Found):
        stage.check(before, {})


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
    with stage.scenario.same_files():
        done = stage.scenario.given("run", stage.out, "--yes", "--num_workers", 1)
    assert done.code == ExitCode.ENVIRONMENT
    assert "Too many levels of symbolic links" in done.text
    stage.check(before, {})
    shard = stage.scenario.made.keys[:2]
    assert set(shard) <= stage.sources_left()
