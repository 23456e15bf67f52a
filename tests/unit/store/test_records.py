"""Records share what they have in common, and no record sees another one's changes."""

from __future__ import annotations

import sys

from ctrate_convert.store.records.plan import PlannedShard
from ctrate_convert.store.records.record import Worker
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import settings_for


def shard(index: int) -> PlannedShard:
    return PlannedShard(
        index=index, task=0, samples=1, lines_offset=0, lines_size_bytes=1,
        lines_sha256="a" * 64, source_bytes=1, estimated_output_bytes=1,
        estimated_scratch_bytes=1,
    )  # fmt: skip


def test_records_with_the_same_fields_share_the_set_of_them() -> None:
    """A set for each takes as much memory as all values together."""
    assert shard(1).model_fields_set is shard(2).model_fields_set
    assert sys.getsizeof(shard(1).model_fields_set) > 500


def test_a_changed_copy_leaves_the_others_as_they_are() -> None:
    first, second = shard(1), shard(2)
    copy = first.model_copy(update={"no_field": 1})
    assert "no_field" in copy.model_fields_set
    assert "no_field" not in first.model_fields_set | second.model_fields_set


def test_a_field_that_was_set_by_another_one_is_stored(ctrate: SyntheticCtRate) -> None:
    """`--layout ctclip` sets the type; settings without that layout do not get it."""
    ctclip = settings_for(ctrate, layout="ctclip")
    assert {"layout", "dtype"} <= ctclip.model_fields_set
    assert "dtype" not in settings_for(ctrate, layout="webdataset").model_fields_set


def test_what_was_not_given_is_not_hashed() -> None:
    """So a record of an earlier version keeps its hash."""
    worker = Worker(attempt="a", host="h", pid=1)
    assert worker.stored_sha256() == worker.as_stored().stored_sha256()
