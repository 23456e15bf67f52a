"""When a large manifest is merged, and that nothing is lost by waiting."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest

from ctrate_convert.store import merger
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, load_manifest
from ctrate_convert.store.locks import Hold, locked
from ctrate_convert.store.merger import merge, merge_when_due
from tests.support import Converted


@pytest.fixture
def merged_once(converted: Converted, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A dataset of two shards whose manifest knows the first alone, and counts as large."""
    dataset = Dataset(converted.out)
    second = dataset.record(1)
    kept = second.read_bytes()
    second.unlink()
    dataset.manifest.unlink()
    merge(dataset, Ledger.load(dataset).plans)
    second.write_bytes(kept)
    monkeypatch.setattr(merger, "_SMALL_BYTES", 1)
    monkeypatch.setattr(merger, "_BYTES_PER_S", 1)
    return dataset


def shards(dataset: Dataset) -> int:
    manifest = load_manifest(dataset)
    return manifest.num_shards if manifest else 0


def test_a_large_manifest_that_was_just_merged_waits(merged_once: Dataset) -> None:
    ledger = Ledger.load(merged_once)
    assert not merge_when_due(merged_once, ledger.record(1))
    assert shards(merged_once) == 1
    merge(merged_once, ledger.plans)  # as the end of a run does, and the finaliser
    assert shards(merged_once) == 2


@pytest.mark.parametrize("age_s", [10**6, -100])
def test_an_old_one_is_merged_and_one_of_the_future_too(merged_once: Dataset, age_s: int) -> None:
    """Clocks of file servers are wrong; waiting for one could last for ever."""
    then = time.time() - age_s
    os.utime(merged_once.manifest, (then, then))
    ledger = Ledger.load(merged_once)
    assert merge_when_due(merged_once, ledger.record(1))
    assert shards(merged_once) == 2


def test_a_small_one_is_merged_at_once(
    merged_once: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merger, "_SMALL_BYTES", 10**6)
    assert merge_when_due(merged_once, None)
    assert shards(merged_once) == 2


def test_an_entry_of_an_earlier_record_never_waits(merged_once: Dataset) -> None:
    """Else the new record would seem to have been changed after it was merged."""
    ledger = Ledger.load(merged_once)
    again = ledger.record(0).model_copy(update={"elapsed_s": 77.0})
    merged_once.record(0).write_bytes(again.to_pretty_json())
    assert 0 in Ledger.load(merged_once).damaged
    assert merge_when_due(merged_once, again)
    assert Ledger.load(merged_once).damaged == {}


def test_without_a_manifest_there_is_nothing_to_wait_for(merged_once: Dataset) -> None:
    merged_once.manifest.unlink()
    assert merge_when_due(merged_once, None)
    assert shards(merged_once) == 2


def test_a_worker_waits_for_no_other_process_that_merges(merged_once: Dataset) -> None:
    """The element or run that it works for merges at its end."""
    merged_once.manifest.unlink()
    ledger = Ledger.load(merged_once)
    with locked(merged_once.lock("manifest")):
        started = time.monotonic()
        assert not merge_when_due(merged_once, ledger.record(1))
        assert time.monotonic() - started < 10
    assert merge_when_due(merged_once, ledger.record(1))
    assert shards(merged_once) == 2


def test_whoever_waited_for_a_merge_does_not_merge_again(merged_once: Dataset) -> None:
    os.utime(merged_once.manifest, (0, 0))

    @contextmanager
    def late(*_: object, **__: object) -> Iterator[Hold]:
        merged_once.manifest.touch()  # by the process that held the lock
        yield Hold.HELD

    with mock.patch.object(merger, "locked", late):
        assert not merge_when_due(merged_once, None)


def test_a_merge_that_was_due_does_not_begin_again(merged_once: Dataset) -> None:
    """Where hundreds of tasks publish, there is a new record after every merge."""
    os.utime(merged_once.manifest, (0, 0))
    with (
        mock.patch.object(merger, "_merge_once", wraps=merger._merge_once) as merged,
        mock.patch.object(merger, "recorded_numbers", lambda dataset: frozenset({7})),
    ):
        assert merge_when_due(merged_once, None)
    assert merged.call_count == 1
