"""Build a generation of the plan: lines, shards, tasks, estimate, hashes."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ctrate_convert import __version__
from ctrate_convert.errors import SampleError
from ctrate_convert.planning.estimate import (
    SampleCost,
    peak_extra_bytes,
    sample_cost,
    tar_bytes,
)
from ctrate_convert.planning.probe_estimate import ProbeEstimate
from ctrate_convert.planning.split import shard_ranges
from ctrate_convert.planning.survey import Survey
from ctrate_convert.store.plan_copies import PLAN_COPY_FILE, PLAN_FILE
from ctrate_convert.store.plans import EXCLUDED_FILE, SAMPLES_FILE, next_numbers
from ctrate_convert.store.records.base import sha256_hex
from ctrate_convert.store.records.plan import (
    ArrayHeader,
    ExcludedSample,
    Plan,
    PlanEstimate,
    PlannedSample,
    PlannedShard,
    PlanSettings,
)
from ctrate_convert.store.records.volume_list import VolumeList

# A placeholder: the id is the hash of the plan's content, and so is known last.
_NO_ID = "0" * 64


@dataclass(frozen=True)
class Draft:
    """A plan and the four files that publish it; two of them hold the plan itself."""

    plan: Plan
    files: dict[str, bytes]


def write_draft(
    survey: Survey,
    settings: PlanSettings,
    headers: Mapping[str, ArrayHeader | SampleError],
    *,
    excluded: Sequence[ExcludedSample],
    retries: Sequence[str],
    earlier: Sequence[Plan],
    prediction: ProbeEstimate | None,
) -> Draft:
    """Return the generation after ``earlier`` with the samples of ``headers``, in that order."""
    return draft_of(
        (planned_sample(survey, key, header) for key, header in headers.items()),
        settings,
        table_sha256={name: table.sha256 for name, table in survey.tables.by_setting.items()},
        lists=survey.lists,
        excluded=excluded,
        retries=retries,
        earlier=earlier,
        prediction=prediction,
    )


def draft_of(
    samples: Iterable[PlannedSample],
    settings: PlanSettings,
    *,
    table_sha256: Mapping[str, str],
    lists: Sequence[VolumeList],
    excluded: Sequence[ExcludedSample],
    earlier: Sequence[Plan],
    retries: Sequence[str] = (),
    repairs: Mapping[str, int] | None = None,
    prediction: ProbeEstimate | None = None,
) -> Draft:
    """Return the generation after ``earlier`` with ``samples``, in that order."""
    lines = io.BytesIO()
    ends: list[int] = []
    costs: list[SampleCost] = []
    for sample in samples:
        lines.write(sample.to_json() + b"\n")
        ends.append(lines.tell())
        predicted = prediction.chosen_array_bytes(sample.key) if prediction else None
        costs.append(sample_cost(sample, settings, predicted))
    samples_data = lines.getvalue()
    excluded_data = b"".join(sample.to_json() + b"\n" for sample in excluded)
    shards = _shards(samples_data, ends, costs, settings, earlier)
    output_bytes = sum(shard.estimated_output_bytes for shard in shards)
    plan = Plan(
        plan_id=_NO_ID,
        generation=len(earlier),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        program_version=__version__,
        settings=settings,
        table_sha256=dict(table_sha256),
        lists=tuple(lists),
        samples=len(costs),
        samples_sha256=sha256_hex(samples_data),
        retries=tuple(retries),
        repairs=dict(repairs or {}),
        excluded=dict(sorted(Counter(sample.reason for sample in excluded).items())),
        excluded_sha256=sha256_hex(excluded_data),
        shards=shards,
        estimate=PlanEstimate(
            source_bytes=sum(cost.source_bytes for cost in costs),
            output_bytes=output_bytes,
            largest_volume_bytes=max(cost.volume_bytes for cost in costs),
            peak_extra_bytes=peak_extra_bytes(shards, deleting=settings.delete_source_files),
        ),
        probe=prediction.probe(output_bytes) if prediction else None,
    )
    # The id is the hash of the plan as it will be read back, with every field set.
    plan = plan.as_stored()
    plan = plan.model_copy(update={"plan_id": plan.content_id()})
    return Draft(
        plan,
        {
            PLAN_FILE: plan.to_pretty_json(),
            PLAN_COPY_FILE: plan.to_pretty_json(),
            SAMPLES_FILE: samples_data,
            EXCLUDED_FILE: excluded_data,
        },
    )


def planned_sample(survey: Survey, key: str, header: ArrayHeader | SampleError) -> PlannedSample:
    """Return the planned sample with everything that the tables hold about it."""
    tables, found = survey.tables, survey.found.files[key][0]
    metadata = tables.metadata.row(key)
    return PlannedSample(
        key=key,
        volume_name=metadata["VolumeName"],
        source=found.source,
        source_size_bytes=found.size_bytes,
        source_mtime_ns=found.mtime_ns,
        header=None if isinstance(header, SampleError) else header,
        report=tables.reports.row(key),
        labels=tables.label_values(key),
        metadata=metadata,
    )


def _shards(
    samples_data: bytes,
    ends: Sequence[int],
    costs: Sequence[SampleCost],
    settings: PlanSettings,
    earlier: Sequence[Plan],
) -> tuple[PlannedShard, ...]:
    # Numbers go on from the earlier generations: no shard or task ever gets a used number.
    first_shard, first_task = next_numbers(earlier)
    shards = []
    for number, part in enumerate(shard_ranges([c.output_bytes for c in costs], settings)):
        offset = ends[part.start - 1] if part.start else 0
        end = ends[part.stop - 1]
        inside = costs[part.start : part.stop]
        shards.append(
            PlannedShard(
                index=first_shard + number,
                task=first_task + number // settings.shards_per_task,
                samples=len(part),
                lines_offset=offset,
                lines_size_bytes=end - offset,
                lines_sha256=sha256_hex(samples_data[offset:end]),
                source_bytes=sum(cost.source_bytes for cost in inside),
                estimated_output_bytes=tar_bytes(inside),
                estimated_scratch_bytes=max(cost.scratch_bytes for cost in inside),
            )
        )
    return tuple(shards)
