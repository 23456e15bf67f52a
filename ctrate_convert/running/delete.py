"""Free disk space: let the sources of converted shards go, each compared right before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from ctrate_convert.deleting.copies import require_copies
from ctrate_convert.deleting.proposal import Proposal
from ctrate_convert.deleting.source_states import Source
from ctrate_convert.deleting.trash import prepare_trash_for, require_trash
from ctrate_convert.deleting.trusted import require_trusted
from ctrate_convert.running.result import RunResult
from ctrate_convert.running.run import Crew, run_work
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Planned, planned_shards
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.plan import Plan


def deletable_work(plans: Sequence[Plan], sources: Sequence[Source]) -> list[Planned]:
    """Return the shards with sources that may go, or with an interrupted deletion."""
    planned = planned_shards(plans)
    shards = {
        source.shard
        for source in sources
        if source.shard is not None and (source.state == "deletable" or source.interrupted)
    }
    return [planned[index] for index in sorted(shards)]


def require_deletable(dataset: Dataset, proposal: Proposal) -> None:
    """Refuse, before anybody is asked, a deletion that could not be carried out; make nothing.

    Raises:
        RefusedError: the output cannot be trusted with a deletion.
        SettingsError: the trash or the copies cannot serve.
    """
    require_trusted(dataset)
    require_places(dataset, proposal.plans, proposal.trash, proposal.copies)


def require_places(
    dataset: Dataset, plans: Iterable[Plan], trash: str, copies: Sequence[str]
) -> None:
    """Refuse a trash or copies that cannot serve; make nothing, and read no copy.

    Raises:
        SettingsError: one cannot serve.
    """
    require_copies(dataset, copies)
    if trash:
        for folder in sorted({plan.settings.data_folder for plan in plans}):
            require_trash(Path(trash), Path(folder), dataset.out)


def with_interrupted(proposal: Proposal | None, work: Sequence[Planned]) -> Proposal:
    """Return the proposal for all of ``work``, including interrupted deletions without files.

    An interrupted deletion whose file is gone needs only its last line in the journal.
    """
    plans = {plan.plan_id: plan for plan, _ in work}
    shards = tuple(sorted(shard.index for _, shard in work))
    if proposal is None:
        # No files: under such a consent the gate closes intents and lets nothing go.
        return Proposal(tuple(plans.values()), shards, 0, 0, (), (), "")
    plans = {plan.plan_id: plan for plan in proposal.plans} | plans
    return dataclasses.replace(proposal, plans=tuple(plans.values()), shards=shards)


def delete_sources_of(
    dataset: Dataset,
    work: Sequence[Planned],
    consent: Consent,
    crew: Crew,
) -> RunResult:
    """Read each shard of ``work`` again from storage, compare its sources with it, let them go.

    Interrupted deletions of an earlier call are finished on the way. Raises what
    `make_ready_to_delete` raises.
    """
    plans = require_plans(dataset)
    make_ready_to_delete(dataset, plans, consent)
    merge(dataset, plans)
    return run_work(dataset, work, crew, consent)


def make_ready_to_delete(dataset: Dataset, plans: Sequence[Plan], consent: Consent) -> None:
    """Make the trash, if the consent names one; raise if a deletion could not be carried out here.

    Raises:
        RefusedError: the output cannot be trusted with a deletion.
        SettingsError: the consent's trash or copies cannot serve.
    """
    require_trusted(dataset)
    require_copies(dataset, consent.copies)
    if consent.trash:
        prepare_trash_for(Path(consent.trash), plans, dataset.out)
