"""A worker that serves several shards knows the plans as they are now."""

from __future__ import annotations

import pytest

from ctrate_convert.errors import DamageError
from ctrate_convert.running.known_plans import known_plans
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plan_copies import PLAN_COPY_FILE, PLAN_FILE
from tests.support import Converted


def test_plans_are_read_again_once_they_have_changed(converted: Converted) -> None:
    dataset = Dataset(converted.out)
    first = known_plans(dataset)
    assert known_plans(dataset) is first
    folder = dataset.plan(0)
    (folder / PLAN_FILE).write_bytes((folder / PLAN_COPY_FILE).read_bytes())
    again = known_plans(dataset)
    assert again is not first and again.plans == first.plans


def test_a_damaged_plan_is_not_taken_for_the_one_that_was_read(converted: Converted) -> None:
    dataset = Dataset(converted.out)
    known_plans(dataset)
    (dataset.plan(0) / PLAN_FILE).unlink()
    assert known_plans(dataset).plans  # by its copy
    (dataset.plan(0) / PLAN_COPY_FILE).write_text("{}")
    with pytest.raises(DamageError):
        known_plans(dataset)
