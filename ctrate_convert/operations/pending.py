"""What a dataset's plans still want done, derived from records and journals."""

from __future__ import annotations

from collections.abc import Sequence

from ctrate_convert.conversion.deletion import read_journal
from ctrate_convert.conversion.manifest import planned_shards, recorded_shards, superseded_samples
from ctrate_convert.conversion.plans import load_plans
from ctrate_convert.errors import SettingsError
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.plan import Plan, PlannedShard

Work = tuple[Plan, PlannedShard]


def load(dataset: Dataset) -> tuple[Plan, ...]:
    """All plans of the dataset.

    Raises:
        SettingsError: there is none.
        DamageError: one has been tampered with.
    """
    plans = load_plans(dataset)
    if not plans:
        raise SettingsError(
            "no plan here",
            where=dataset.out,
            next_command="ctrate-convert plan --output_dir OUT …, or: ctrate-convert demo",
        )
    return plans


def pending_work(dataset: Dataset, plans: Sequence[Plan], *, deleting: bool) -> list[Work]:
    """Shards without a record; and, when deleting, recorded ones whose sources await the gate."""
    recorded = recorded_shards(dataset)
    superseded = superseded_samples(dataset, plans)
    work = []
    for index, (plan, shard) in planned_shards(plans).items():
        delete_here = deleting or plan.settings.delete_source_files
        if index not in recorded or (
            delete_here
            and not _deletion_settled(dataset, shard, superseded.get(index, frozenset()))
        ):
            work.append((plan, shard))
    return work


def _deletion_settled(dataset: Dataset, shard: PlannedShard, superseded: frozenset[str]) -> bool:
    """Whether each sample's deletion was done or given up, as far as the journal tells.

    The source of a superseded sample is the business of the shard that holds it now.
    """
    settled = superseded | {
        line.key for line in read_journal(dataset, shard.index) if line.event != "intent"
    }
    return bool(settled) and len(settled) >= shard.samples
