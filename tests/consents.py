"""A person's word for tests that begin below the command line."""

from __future__ import annotations

from typing import Any

from ctrate_convert.deleting.proposal import propose
from ctrate_convert.deleting.source_states import candidates, survey
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.consent import Consent


def allow_deletion(dataset: Dataset, command: str = "the tests", **more: Any) -> Consent:
    """Record a consent to delete every source that is there, converted or still to be."""
    plans = require_plans(dataset)
    dataset.prepare()
    proposal = propose(candidates(survey(dataset, plans), plans, pending=True), **more)
    assert proposal is not None
    return proposal.accept(dataset, command)
