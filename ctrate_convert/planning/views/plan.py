"""Plan the views of a dataset: a dataset of its own, whose shards are made from that one's shards.

Each shard of the views is made from one shard, in one pass over it. Tables are not read again: the
plan of the dataset holds the rows. A later plan adds the views of what is new, and plans again, as
repairs, those whose volume has changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from ctrate_convert.errors import (
    EnvironmentProblem,
    environment_problem,
)
from ctrate_convert.planning.draft import LOCK_PATIENCE_S, DryRun, PlanReport, draft_of, prepared
from ctrate_convert.planning.refusals import (
    numbers_in_use,
    refuse_data_folder,
    refuse_foreign,
    refuse_other_format,
)
from ctrate_convert.planning.samples.staged import staged
from ctrate_convert.planning.split import TEST_MODE_SAMPLES
from ctrate_convert.planning.views.offer import Offer, offer_of
from ctrate_convert.planning.views.probe import elements_bytes, probe_views
from ctrate_convert.planning.views.refusals import (
    no_view,
    refuse_another_dataset,
    refuse_one_in_the_other,
)
from ctrate_convert.store.durable import PartialFile, publish_directory
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.leavings import remove_stale_partials
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.locks import locked
from ctrate_convert.store.plans import load_plans, planned_before
from ctrate_convert.store.privacy import granted
from ctrate_convert.store.records.plan import (
    ArrayHeader,
    ExcludedSample,
    Plan,
    PlannedSample,
    PlanSettings,
)
from ctrate_convert.store.records.record import FailedSample

Progress = Callable[[int, int], None]


def plan_views(
    dataset: Dataset,
    settings: PlanSettings,
    progress: Progress = lambda done, total: None,
    *,
    retry_failed: frozenset[str] | None = None,
    on_probe: Progress = lambda done, total: None,
    dry_run: bool = False,
) -> tuple[PlanReport, ...]:
    """Plan the views of all samples of ``settings.data_folder`` that have none, or an outdated one.

    Return a report for each generation that was published: one with what is new, one with the
    views whose volume was converted again since, with other voxels. Without either, one report
    says that nothing is new. With ``retry_failed`` only these samples are planned. With ``dry_run``
    nothing is published and nothing left behind.

    Raises:
        SettingsError: the dataset has no plan, or no sample that there can be a view of.
        RefusedError: it holds views itself; or ``dataset`` holds other shards, or those of another
            recipe, or lies in it.
        DamageError: a plan of either was changed.
        EnvironmentProblem: no space or permission.
    """
    native = Dataset(Path(settings.data_folder))
    refuse_one_in_the_other(native.out, dataset.out)
    refuse_data_folder(native, dataset.out)
    try:
        offer = offer_of(native, settings, progress)
        reports = []
        allowed = granted(offer.permissions, (), (native.out,), dataset.out.absolute())
        try:
            with (
                prepared(dataset, allowed),
                locked(dataset.lock("plan"), timeout_s=LOCK_PATIENCE_S),
            ):
                earlier = _earlier(dataset, settings, offer)
                before = _compared(Ledger(dataset, earlier), offer)
                chosen = _new(dataset, settings, offer, earlier, retry_failed)
                how = _How(on_probe, dry_run)
                if chosen.keys:
                    reports.append(_publish(dataset, settings, offer, chosen, how))
                if before.outdated and retry_failed is None:
                    chosen = _changed(before.outdated, offer, chosen, reports)
                    reports.append(_publish(dataset, settings, offer, chosen, how))
        except DryRun as done:
            reports.append(done.report)
    except OSError as error:
        raise environment_problem(error, "planning views") from error
    reports = reports or [_report(offer, None, chosen)]
    return (replace(reports[0], warnings=_warnings(offer, before)), *reports[1:])


@dataclass(frozen=True)
class _Chosen:
    """The samples of one generation, after the ``earlier`` ones, which ``planned`` others."""

    keys: Sequence[str]
    earlier: tuple[Plan, ...]
    planned: frozenset[str]
    retries: Sequence[str] = ()
    repairs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _How:
    on_probe: Progress
    dry_run: bool


def _earlier(dataset: Dataset, settings: PlanSettings, offer: Offer) -> tuple[Plan, ...]:
    """Return the plans of ``dataset``; refuse one of another making, format, recipe or dataset."""
    numbers = numbers_in_use(dataset)
    earlier = load_plans(dataset)
    refuse_foreign(dataset, earlier, numbers)
    refuse_other_format(dataset, earlier, settings)
    refuse_another_dataset(dataset, earlier, settings, offer)
    return earlier


def _new(
    dataset: Dataset,
    settings: PlanSettings,
    offer: Offer,
    earlier: tuple[Plan, ...],
    retry_failed: frozenset[str] | None,
) -> _Chosen:
    """Choose the samples without a view, and those whose view may not fail again."""
    before = planned_before(dataset, earlier)
    again = {
        key
        for key, failed in before.failed.items()
        if key in offer.samples and _may_not_fail_again(failed, offer.samples[key].source, offer)
    }
    again |= retry_failed or frozenset()
    new: list[str] = []
    if retry_failed is None:
        new = [key for key in offer.samples if key not in before.keys][: _most(settings)]
    if not (earlier or offer.samples):
        raise no_view(settings, offer)
    wanted = {*new, *again}
    keys = [key for key in offer.samples if key in wanted]
    retries = [key for key in keys if key in before.failed]
    return _Chosen(keys, earlier, before.keys, retries)


def _may_not_fail_again(failed: FailedSample, shard: str, offer: Offer) -> bool:
    # A repair has put the volume into another shard, or a person has mended this one.
    then = (failed.source_mtime_ns, failed.source_ctime_ns)
    return failed.unreadable or shard != failed.source or offer.times[shard] != then


def _changed(
    outdated: Mapping[str, int], offer: Offer, new: _Chosen, published: Sequence[PlanReport]
) -> _Chosen:
    """Choose the samples whose view would be another one now; ``new`` were chosen before."""
    plans = [report.plan for report in published if report.plan]
    return _Chosen(
        keys=[key for key in offer.samples if key in outdated],
        earlier=(*new.earlier, *plans),
        planned=new.planned | set(new.keys),
        repairs=outdated,
    )


def _publish(
    dataset: Dataset, settings: PlanSettings, offer: Offer, chosen: _Chosen, how: _How
) -> PlanReport:
    """Publish a generation with the samples that were chosen."""
    remove_stale_partials(dataset.plans, frozenset())
    samples = [offer.samples[key] for key in chosen.keys]
    probed = probe_views(samples, settings, dataset.plans, how.on_probe)

    def predict(index: int) -> int | None:
        return probed.array_bytes(elements_bytes(samples[index])) if probed else None

    with PartialFile(dataset.plans / "samples") as file:
        draft = draft_of(
            staged(samples, settings, file),
            settings,
            table_sha256={},
            lists=(),
            excluded=_excluded(offer, chosen),
            retries=chosen.retries,
            repairs=chosen.repairs,
            earlier=chosen.earlier,
            prediction=probed,
            predict=predict,
            parts=list(_by_shard(samples)),
        )
        report = _report(offer, draft.plan, chosen)
        if how.dry_run:
            raise DryRun(report)
        if not publish_directory(draft.files, dataset.plan(draft.plan.generation)):
            raise EnvironmentProblem(
                "another planner published at the same moment", where=dataset.plans,
                next_command="give the same command again",
            )  # fmt: skip
    return report


def _most(settings: PlanSettings) -> int | None:
    most = [settings.limit] if settings.limit else []
    most += [TEST_MODE_SAMPLES] if settings.test_mode else []
    return min(most, default=None)


def _by_shard(samples: Sequence[PlannedSample]) -> Iterator[range]:
    """Yield the samples of each shard: those that come from the same one."""
    start = 0
    for _, some in groupby(samples, key=lambda sample: sample.source):
        stop = start + len(list(some))
        yield range(start, stop)
        start = stop


@dataclass(frozen=True)
class _Before:
    """The views that were made before and would not be the same now.

    ``outdated`` would be others: each key with the shard of its view. Of ``without`` there would be
    none: their keys.
    """

    outdated: dict[str, int] = field(default_factory=dict)
    without: list[str] = field(default_factory=list)


def _compared(ledger: Ledger, offer: Offer) -> _Before:
    """Compare the views that were made before with those that are offered now."""
    found = _Before()
    excluded = {one.key for one in offer.excluded}
    for one in ledger.readable():
        for sample in one.live:
            if sample.key in excluded:
                found.without.append(sample.key)
            now = offer.samples.get(sample.key)
            if now and now.header and _made_of(now.header) != _made_of(sample.source_header):
                found.outdated[sample.key] = one.shard.index
    return found


def _made_of(header: ArrayHeader) -> tuple[object, ...]:
    """Return what decides a view's voxels and facts; where the volume's copy lies does not."""
    view = header.view
    if view is None:
        return (header,)
    return view.native and view.native.blake3, view.model_copy(update={"native": None})


def _excluded(offer: Offer, chosen: _Chosen) -> tuple[ExcludedSample, ...]:
    """Return the samples without a view; one that had a view before is counted with those."""
    return tuple(one for one in offer.excluded if one.key not in chosen.planned)


def _report(offer: Offer, plan: Plan | None, chosen: _Chosen) -> PlanReport:
    return PlanReport(
        plan=plan,
        excluded=_excluded(offer, chosen),
        warnings=(),
        volumes_found=len(offer.samples) + len(offer.excluded),
        rows={},
        already_planned=len(chosen.planned),
        left_for_later=len(offer.samples.keys() - chosen.planned - set(chosen.keys)),
        lists=(),
    )


def _warnings(offer: Offer, before: _Before) -> tuple[str, ...]:
    """Return what a person has to know of this dataset, and of the one with the volumes."""
    warnings = []
    if offer.damaged:
        warnings.append(
            f"{len(offer.damaged)} shards cannot be relied on, and there is no view of their "
            f"samples: {', '.join(offer.damaged[:3])}"
        )
    if before.without:
        reasons = {one.key: one.detail for one in offer.excluded}
        first = ", ".join(f"{key} ({reasons[key]})" for key in before.without[:3])
        warnings.append(
            f"{len(before.without)} views were made before and stay, although there is no view of "
            f"their volume as it is now: {first}"
        )
    return tuple(warnings)
