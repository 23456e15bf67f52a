"""Build a generation of the plan, and what every planner needs for it: folders, report, dry run."""

from __future__ import annotations

import contextlib
import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from ctrate_convert import __version__
from ctrate_convert.planning.estimate import peak_extra_bytes, sample_cost, tar_bytes
from ctrate_convert.planning.samples.staged import StagedLines
from ctrate_convert.planning.split import shard_ranges
from ctrate_convert.store.durable import PartialFile
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plan_copies import PLAN_COPY_FILE, PLAN_FILE
from ctrate_convert.store.plans import EXCLUDED_FILE, SAMPLES_FILE, next_numbers
from ctrate_convert.store.records.base import sha256_hex
from ctrate_convert.store.records.plan import (
    ExcludedSample,
    Plan,
    PlanEstimate,
    PlannedShard,
    PlanSettings,
    Probe,
)
from ctrate_convert.store.records.volume_list import VolumeList

LOCK_PATIENCE_S = 600.0

# A placeholder: the id is the hash of the plan's content, and so is known last.
_NO_ID = "0" * 64


@dataclass(frozen=True)
class Draft:
    """A plan and the four files that publish it; two of them hold the plan itself."""

    plan: Plan
    files: dict[str, bytes | PartialFile]


class Prediction(Protocol):
    """What a probe foresees of a plan."""

    def probe(self, output_bytes: int) -> Probe | None:
        """Return the probe's record, for a plan that takes ``output_bytes``."""


Predict = Callable[[int], int | None]
"""A function that predicts the size of a sample's array in the shard, by the sample's index."""


def draft_of(
    lines: StagedLines,
    settings: PlanSettings,
    *,
    table_sha256: Mapping[str, str],
    lists: Sequence[VolumeList],
    excluded: Sequence[ExcludedSample],
    earlier: Sequence[Plan],
    retries: Sequence[str] = (),
    repairs: Mapping[str, int] | None = None,
    prediction: Prediction | None = None,
    predict: Predict = lambda index: None,
    parts: Sequence[range] | None = None,
) -> Draft:
    """Return the generation after ``earlier`` with the samples of ``lines``.

    ``parts`` are the samples of each shard; without them the settings cut the plan into shards.
    """
    excluded_data = b"".join(sample.to_json() + b"\n" for sample in excluded)
    shards, samples_sha256 = _shards(lines, settings, predict, earlier, parts)
    output_bytes = sum(shard.estimated_output_bytes for shard in shards)
    plan = Plan(
        plan_id=_NO_ID,
        generation=len(earlier),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        program_version=__version__,
        settings=settings,
        table_sha256=dict(table_sha256),
        lists=tuple(lists),
        samples=len(lines),
        samples_sha256=samples_sha256,
        retries=tuple(retries),
        repairs=dict(repairs or {}),
        excluded=dict(sorted(Counter(sample.reason for sample in excluded).items())),
        excluded_sha256=sha256_hex(excluded_data),
        shards=shards,
        estimate=PlanEstimate(
            source_bytes=sum(lines.source_bytes),
            output_bytes=output_bytes,
            largest_volume_bytes=max(lines.volume_bytes),
            peak_extra_bytes=peak_extra_bytes(shards, deleting=settings.delete_source_files),
        ),
        probe=prediction.probe(output_bytes) if prediction else None,
    )
    # The id is the hash of the plan as it will be read back, with every field set.
    plan = plan.as_stored()
    plan = plan.model_copy(update={"plan_id": plan.content_id()})
    data = plan.to_pretty_json()
    return Draft(
        plan,
        {
            SAMPLES_FILE: lines.file,
            PLAN_FILE: data,
            PLAN_COPY_FILE: data,
            EXCLUDED_FILE: excluded_data,
        },
    )


def _shards(
    lines: StagedLines,
    settings: PlanSettings,
    predict: Predict,
    earlier: Sequence[Plan],
    parts: Sequence[range] | None,
) -> tuple[tuple[PlannedShard, ...], str]:
    """Return the shards, and the hash of all lines."""
    output_bytes, scratch_bytes = array("q"), array("q")
    sizes = zip(lines.array_bytes, lines.beside_bytes, lines.turned_bytes, strict=True)
    for index, size in enumerate(sizes):
        cost = sample_cost(*size, settings.encoding, predict(index))
        output_bytes.append(cost.output_bytes)
        scratch_bytes.append(cost.scratch_bytes)
    # Numbers go on from the earlier generations: no shard or task ever gets a used number.
    first_shard, first_task = next_numbers(earlier)
    shards = []
    digest = hashlib.sha256()
    for number, part in enumerate(parts or shard_ranges(output_bytes, settings)):
        data = lines.data(part)
        digest.update(data)
        inside = slice(part.start, part.stop)
        shards.append(
            PlannedShard(
                index=first_shard + number,
                task=first_task + number // settings.shards_per_task,
                samples=len(part),
                lines_offset=lines.offset(part.start),
                lines_size_bytes=len(data),
                lines_sha256=sha256_hex(data),
                source_bytes=sum(lines.source_bytes[inside]),
                estimated_output_bytes=tar_bytes(output_bytes[inside]),
                estimated_scratch_bytes=max(scratch_bytes[inside]),
            )
        )
    return tuple(shards), digest.hexdigest()


@dataclass(frozen=True)
class PlanReport:
    """The result of planning. ``plan`` is None if nothing was new and nothing was written.

    ``rows`` counts keys by the setting that names their table. ``already_planned`` counts the
    samples of earlier generations, ``left_for_later`` those that test mode did not take. ``lists``
    are the lists of volumes that were read.
    """

    plan: Plan | None
    excluded: tuple[ExcludedSample, ...]
    warnings: tuple[str, ...]
    volumes_found: int
    rows: Mapping[str, int]
    already_planned: int
    left_for_later: int
    lists: tuple[VolumeList, ...]


class DryRun(Exception):
    """Leaves planning with the report, so that all that was made for it is removed again."""

    def __init__(self, report: PlanReport) -> None:
        super().__init__()
        self.report = report


@contextlib.contextmanager
def prepared(dataset: Dataset, allowed: int) -> Iterator[None]:
    """Make the folders; remove them again if the block fails and there is no plan yet."""
    made = dataset.missing_folders()
    dataset.prepare(allowed)
    with contextlib.ExitStack() as after_a_failure:
        after_a_failure.callback(dataset.remove_unused, made)
        yield
        after_a_failure.pop_all()
