"""What a dataset's plans still want done, derived from records and journals."""

from __future__ import annotations

from collections.abc import Sequence

from ctrate_convert.errors import SettingsError
from ctrate_convert.store.journals import read_journal, settled_keys
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.manifest import planned_shards, recorded_shards, superseded_samples
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.plan import Plan, PlannedShard

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


def pending_work(
    dataset: Dataset, plans: Sequence[Plan], consent: Consent | None = None
) -> list[Work]:
    """Return shards without a record, and recorded ones whose sources ``consent`` lets go."""
    recorded = recorded_shards(dataset)
    superseded = superseded_samples(dataset, plans)
    work = []
    for index, (plan, shard) in planned_shards(plans).items():
        if index not in recorded or (
            allows(consent, plan, shard)
            and not _deletion_settled(dataset, shard, superseded.get(index, frozenset()))
        ):
            work.append((plan, shard))
    return work


def allows(consent: Consent | None, plan: Plan, shard: PlannedShard) -> bool:
    """Return True if ``consent`` names this shard of this plan."""
    return consent is not None and plan.plan_id in consent.plans and consent.names(shard.index)


def _deletion_settled(dataset: Dataset, shard: PlannedShard, superseded: frozenset[str]) -> bool:
    """Return True if each sample's deletion was done or given up, as far as the journal says.

    The source of a superseded sample is the business of the shard that holds it now.
    """
    settled = superseded | settled_keys(read_journal(dataset, shard.index))
    return bool(settled) and len(settled) >= shard.samples
