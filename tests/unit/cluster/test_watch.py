"""A second look reads only what can have changed since the first, and sees what has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ctrate_convert.checking.damage import find_damage
from ctrate_convert.cluster.states.status import Status, StatusReader
from ctrate_convert.store.attempts import Attempt
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.damage import Damage
from tests.support import Converted, run_here


class Watch:
    """What `status --watch` does again and again."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._reader = StatusReader(dataset)

    def look(self) -> tuple[Status, list[Damage], set[str]]:
        """The status, the damage, and which files below the dataset were opened."""
        opened: set[str] = set()
        real = os.open

        def noted(path: Any, *more: Any, **named: Any) -> int:
            with_in = Path(os.fsdecode(path)) if isinstance(path, str | bytes | Path) else Path()
            if with_in.is_relative_to(self.dataset.out):
                opened.add(str(with_in.relative_to(self.dataset.out)))
            return real(path, *more, **named)

        with mock.patch.object(os, "open", noted):
            status = self._reader.read()
            return status, find_damage(status.view.ledger), opened


@pytest.fixture
def watch(converted: Converted) -> Watch:
    assert run_here("run", converted.out).code == 0
    Attempt(Dataset(converted.out), [0])  # which goes on
    return Watch(Dataset(converted.out))


def test_a_second_look_reads_the_plan_the_manifest_and_what_runs(watch: Watch) -> None:
    _, damage, first = watch.look()
    assert damage == []
    assert {".run/plans/0000/samples.jsonl", ".run/records/shard-000000.json"} <= first
    _, damage, again = watch.look()
    assert damage == []
    (running,) = watch.dataset.attempts.iterdir()
    allowed = {".run/plans/0000/plan.json", "manifest.json"}
    assert again - {f".run/attempts/{running.name}/{name}" for name in _NOTES} == allowed


_NOTES = ("start.json", "progress.json", "end.json")


@pytest.mark.parametrize("name", ["plan.json", "plan.copy.json", "samples.jsonl", "excluded.jsonl"])
def test_a_plan_that_is_damaged_meanwhile_is_seen(watch: Watch, name: str) -> None:
    watch.look()
    path = watch.dataset.plan(0) / name
    path.write_bytes(path.read_bytes()[:-9] + b" damaged\n")
    assert [one.shard for one in watch.look()[1]] == [f"plans/0000/{name}"]


def test_a_record_that_is_damaged_meanwhile_is_seen(watch: Watch) -> None:
    watch.look()
    watch.dataset.record(1).write_text("{}")
    _, damage, _ = watch.look()
    assert [one.shard for one in damage] == ["records/shard-000001.json"]
