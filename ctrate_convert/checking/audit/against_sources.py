"""Audit the sources that are still there: compare each with its shard, as a deletion would.

Nothing is deleted, renamed or locked. The audit looks for a source under its own name and under the
hidden name that it has while another process compares it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.checking.audit.gathered import Evidence
from ctrate_convert.deleting.compare import Comparison, Pair, compare
from ctrate_convert.deleting.stored_shard import StoredShard, recorded_shard
from ctrate_convert.errors import CtrateError, DamageError
from ctrate_convert.reading.index import stored_sample
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.running.each_process import each_in_a_process
from ctrate_convert.store.durable import drop_page_cache
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.presence import Presence, hidden_names
from ctrate_convert.store.records.audit import ComparedSource, SourcesCompared
from ctrate_convert.store.records.base import sha256_hex
from ctrate_convert.store.records.plan import PlanSettings, shard_name
from ctrate_convert.store.records.record import ConvertedSample, ShardRecord


@dataclass(frozen=True)
class ShardToCompare:
    """One shard and the samples to compare with their sources: values for another process."""

    dataset: Dataset
    settings: PlanSettings
    record: ShardRecord
    samples: tuple[ConvertedSample, ...]


def shards_to_compare(
    dataset: Dataset, evidence: Evidence, share: float, seed: int
) -> list[ShardToCompare]:
    """Choose by ``seed`` a ``share`` (over 0 to 1) of the sources that are there.

    At least one source is chosen if any is there.
    """
    chosen = choose(sources_there(evidence), share, seed)
    return [
        ShardToCompare(dataset, recorded.plan.settings, recorded.record, samples)
        for index, recorded in evidence.recorded.items()
        if (samples := _samples_of(recorded.record, index, chosen))
    ]


def compare_shards(
    work: Sequence[ShardToCompare],
    num_workers: int,
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> list[ComparedSource]:
    """Compare every source of ``work`` with its sample in the shard.

    Raises:
        WorkerDied: a process was killed.
    """
    parts = each_in_a_process(compare_shard, work, num_workers, on_shard)
    return [one for part in parts for one in part]


def sources_there(evidence: Evidence) -> list[tuple[int, str]]:
    """Return shard and key of every converted sample whose source is there; views have none."""
    return [
        (index, sample.key)
        for index, recorded in evidence.recorded.items()
        if recorded.plan.settings.view is None
        for sample in recorded.record.converted
        if sample.key not in recorded.superseded
        and evidence.presence(recorded.plan.settings.data_folder, sample.source.source)
        is Presence.THERE
    ]


def choose(
    samples: Sequence[tuple[int, str]], share: float, seed: int
) -> frozenset[tuple[int, str]]:
    """Return a ``share`` of ``samples``, chosen by ``seed`` in a way that anyone can repeat.

    Each of ``samples`` is a shard's number and a key. If there are any, at least one is chosen.
    """
    # A trifle less, so that a rounding error in the product does not choose one more.
    number = max(1, math.ceil(share * len(samples) - 1e-9))
    # By a hash and not by the module random: anyone can repeat the choice, with whatever program.
    ordered = sorted(samples, key=lambda one: sha256_hex(f"{seed} {one[0]} {one[1]}".encode()))
    return frozenset(ordered[:number])


def _samples_of(
    record: ShardRecord, index: int, chosen: frozenset[tuple[int, str]]
) -> tuple[ConvertedSample, ...]:
    return tuple(sample for sample in record.converted if (index, sample.key) in chosen)


def compare_shard(shard: ShardToCompare) -> list[ComparedSource]:
    """Compare each sample with its source; report what is wrong, never raise."""
    try:
        readable = recorded_shard(shard.dataset, shard.record.shard, shard.record.tar)
        with StoredShard(readable) as opened:
            return [_compare_source(shard, sample, opened) for sample in shard.samples]
    except (CtrateError, OSError) as error:
        why = f"its shard cannot be read: {_words(error)}"
        return [_found(shard, sample, difference=why) for sample in shard.samples]


def _compare_source(
    shard: ShardToCompare, sample: ConvertedSample, opened: ShardFile
) -> ComparedSource:
    source = Path(shard.settings.data_folder) / sample.source.source
    try:
        descriptor = _open(source)
    except FileNotFoundError:
        return _found(shard, sample, went=True)
    except OSError as error:
        return _found(shard, sample, unreadable=_words(error))
    try:
        drop_page_cache(descriptor)
        stored = stored_sample(sample.model_dump(), opened.shard, shard.settings.layout)
        seen = compare(Pair(descriptor, source, opened, stored, shard.settings))
    except DamageError as error:
        return _found(shard, sample, difference=_words(error))
    except (CtrateError, OSError) as error:
        return _found(shard, sample, unreadable=_words(error))
    finally:
        os.close(descriptor)
    return _as_compared(shard, sample, seen)


def _open(source: Path) -> int:
    """Open the source under its own or a hidden name; try its own once more at the end."""
    for path in (source, *map(source.with_name, hidden_names(source.name))):
        try:
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
    # The other process may have given the name back between the two attempts.
    return os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _as_compared(
    shard: ShardToCompare, sample: ConvertedSample, seen: Comparison
) -> ComparedSource:
    left_out = tuple(f"{one.name} ({one.what})" for one in seen.left_out)
    return _found(shard, sample, difference="; ".join(seen.differences), left_out=left_out)


def _found(
    shard: ShardToCompare,
    sample: ConvertedSample,
    *,
    difference: str = "",
    left_out: tuple[str, ...] = (),
    unreadable: str = "",
    went: bool = False,
) -> ComparedSource:
    return ComparedSource(
        key=sample.key,
        data_folder=shard.settings.data_folder,
        source=sample.source.source,
        shard=shard_name(shard.record.shard),
        difference=difference,
        left_out=left_out,
        unreadable=unreadable,
        went=went,
    )


def _words(error: CtrateError | OSError) -> str:
    if isinstance(error, CtrateError):
        return error.one_line()
    return error.strerror or str(error)


def sum_up(there: int, found: Sequence[ComparedSource]) -> SourcesCompared:
    """Return the totals; ``there`` is the number of converted sources that are there."""
    compared = [one for one in found if not (one.unreadable or one.went)]
    equal = [one for one in compared if not one.difference]
    return SourcesCompared(
        there=there,
        compared=len(compared),
        equal=len(equal),
        went_meanwhile=sum(1 for one in found if one.went),
        different=tuple(one for one in compared if one.difference),
        not_wholly_held=tuple(one for one in equal if one.left_out),
        unreadable=tuple(one for one in found if one.unreadable),
    )
