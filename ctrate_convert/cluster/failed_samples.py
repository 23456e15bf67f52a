"""Plan the samples that failed by their own fault into new shards: a new generation of the plan."""

from __future__ import annotations

from ctrate_convert.planning.make import PlanReport, make_plan
from ctrate_convert.planning.views.plan import plan_views
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import planned_before, require_plans


def failed_samples(dataset: Dataset) -> frozenset[str]:
    """Return the keys of the samples that failed where they were planned last."""
    return frozenset(planned_before(dataset, require_plans(dataset)).failed)


def plan_failed_samples(dataset: Dataset) -> frozenset[int]:
    """Plan every failed sample anew, and nothing else; return the new tasks, if any."""
    keys = failed_samples(dataset)
    if not keys:
        return frozenset()
    # All of them, however many samples that plan was limited to.
    unlimited = {"test_mode": False, "limit": None}
    settings = require_plans(dataset)[-1].settings.model_copy(update=unlimited)
    if settings.view is None:
        reports: tuple[PlanReport, ...] = (make_plan(dataset, settings, retry_failed=keys),)
    else:
        reports = plan_views(dataset, settings, retry_failed=keys)
    return frozenset(task for one in reports if one.plan for task in one.plan.tasks)
