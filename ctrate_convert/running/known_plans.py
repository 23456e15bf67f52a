"""The plans as a worker last read them: read again only once their files have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Planned, identity, planned_shards
from ctrate_convert.store.plan_copies import PLAN_FILE
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.plan import Plan

_Files = tuple[object, ...]


@dataclass(frozen=True)
class KnownPlans:
    """The plans of one dataset with their shards by number; ``files`` is what they were read of."""

    files: _Files
    plans: tuple[Plan, ...]
    planned: Mapping[int, Planned]


_last: KnownPlans | None = None


def known_plans(dataset: Dataset) -> KnownPlans:
    """Return the plans as they are on disk now.

    Raises:
        DamageError: as `load_plans`.
    """
    global _last
    files = _files(dataset)
    if files is None or _last is None or _last.files != files:
        plans = load_plans(dataset)
        _last = KnownPlans(files or (), plans, planned_shards(plans))
    return _last


def _files(dataset: Dataset) -> _Files | None:
    """Return the identities of the files; None if one is missing, and `load_plans` knows why."""
    try:
        folders = sorted(dataset.plans.iterdir())
        return (dataset.plans, *((one, identity(one / PLAN_FILE)) for one in folders))
    except OSError:
        return None
