"""Make a plan: decide once, for good, which volume goes into which shard, and estimate the cost.

A plan is published whole or not at all, as one folder for each generation, and never changed. A
later plan adds a generation with the new volumes. If several people plan at the same time, one
wins, and the others plan what is left.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.deleting.trash import require_trash
from ctrate_convert.errors import EnvironmentProblem, environment_problem
from ctrate_convert.planning.discover import Discovery
from ctrate_convert.planning.draft import (
    LOCK_PATIENCE_S,
    DryRun,
    PlanReport,
    Predict,
    draft_of,
    prepared,
)
from ctrate_convert.planning.join import join
from ctrate_convert.planning.probe.choice import Volume, with_stored_peeked
from ctrate_convert.planning.probe.trials import Findings, probe
from ctrate_convert.planning.probe_estimate import ProbeEstimate
from ctrate_convert.planning.refusals import (
    numbers_in_use,
    refuse_foreign,
    refuse_other_format,
    refuse_other_trash,
)
from ctrate_convert.planning.removable import why_some_stay
from ctrate_convert.planning.samples.header_cache import FILE as HEADER_CACHE_FILE
from ctrate_convert.planning.samples.header_cache import LEAST_SAMPLES, HeaderCache
from ctrate_convert.planning.samples.scan import chunks, lines_of
from ctrate_convert.planning.samples.spread import Spread, in_this_process
from ctrate_convert.planning.samples.staged import StagedLines
from ctrate_convert.planning.split import arrange
from ctrate_convert.planning.survey import Survey, absolute, nothing_to_convert, take_survey
from ctrate_convert.planning.warnings import probe_warnings, survey_warnings
from ctrate_convert.store.durable import PartialFile, publish_directory
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.leavings import remove_stale_partials
from ctrate_convert.store.locks import locked
from ctrate_convert.store.plans import (
    PlannedBefore,
    load_excluded,
    load_plans,
    load_samples,
    planned_before,
)
from ctrate_convert.store.privacy import granted
from ctrate_convert.store.records.plan import ExcludedSample, Plan, PlanSettings

__all__ = ["PlanReport", "load_excluded", "load_plans", "load_samples", "make_plan"]

_log = logging.getLogger(__name__)

Approve = Callable[[PlanReport, Sequence[str]], None]
"""A function that gets the report and each new sample's array type; empty if that is unknown."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _How:
    """How to plan, as the caller of `make_plan` asks for it."""

    progress: Progress
    on_probe: Progress
    spread: Spread
    approve: Approve | None
    dry_run: bool


@dataclass(frozen=True)
class _Selection:
    """The samples that the next generation takes, given the earlier ones."""

    numbers: Set[int]
    earlier: tuple[Plan, ...]
    before: PlannedBefore
    keys: tuple[str, ...]
    retries: tuple[str, ...]
    excluded: tuple[ExcludedSample, ...]
    left_for_later: int


def make_plan(
    dataset: Dataset,
    settings: PlanSettings,
    progress: Progress | None = None,
    *,
    on_probe: Progress = lambda done, total: None,
    retry_failed: frozenset[str] | None = None,
    approve: Approve | None = None,
    spread: Spread = in_this_process,
    files_from: Path | None = None,
    dry_run: bool = False,
) -> PlanReport:
    """Plan all volumes that no earlier generation has planned, and publish the next generation.

    A failed sample is planned again if its source could not be read, if its source has changed
    since, or if ``array_key``, ``step`` or ``max_error`` differ now. Samples in ``retry_failed``
    are planned again in any case, and then no others are. ``progress`` is called with the number
    of volumes found and 0, and then with the numbers of headers read and of all; ``on_probe`` with
    those of volumes probed and chosen. ``approve`` is called with the report that is about to be
    published; if it raises, nothing is published and nothing is left behind. It answers for the
    trash of the earlier plans, too: without it, a new trash that they would not use is refused.
    ``spread`` runs the reading of headers, such as in worker processes. ``files_from`` is a list of
    the files to look at, instead of looking through the data folder. With ``dry_run`` nothing is
    published either, and nothing left behind.

    Raises:
        SettingsError: a path or table is unusable, or nothing at all can be converted.
        RefusedError: the directory holds shards of another making or another format, or an earlier
            plan would not use the trash.
        DamageError: an earlier generation or a record was changed.
        EnvironmentProblem: no space or permission.
    """
    how = _How(progress or (lambda done, total: None), on_probe, spread, approve, dry_run)
    settings = absolute(settings)
    survey = take_survey(
        settings,
        dataset.out,
        files_from=files_from,
        on_found=lambda found: how.progress(found, 0),
    )
    _log.info("%d volumes found below %s", len(survey.found.files), settings.data_folder)
    try:
        if settings.trash:
            require_trash(Path(settings.trash), Path(settings.data_folder), dataset.out)
        # Refuse, or find nothing new, before making a folder or waiting for the lock.
        selection = _select(dataset, settings, survey, retry_failed, approve)
        if not selection.keys:
            return _report(survey, selection)
        allowed = _who_may_read(dataset, settings, survey)
        # Even without the lock no plan is overwritten: the first to give its generation the name
        # wins.
        with (
            prepared(dataset, allowed),
            locked(dataset.lock("plan"), timeout_s=LOCK_PATIENCE_S),
        ):
            for _ in range(2):
                # Under the lock: another planner may have published meanwhile.
                if _is_outdated(dataset, selection):
                    selection = _select(dataset, settings, survey, retry_failed, approve)
                if not selection.keys:
                    return _report(survey, selection)
                report = _publish(dataset, settings, survey, selection, how)
                if report is not None:
                    return report
                # Another planner was first, on a file system whose locks exclude nobody: plan the
                # rest.
    except DryRun as done:
        return done.report
    except OSError as error:
        raise environment_problem(error, "planning") from error
    raise EnvironmentProblem(
        "other planners keep publishing into this directory",
        where=dataset.plans,
        next_command="give the same command again",
    )


def _who_may_read(dataset: Dataset, settings: PlanSettings, survey: Survey) -> int:
    tables = (settings.reports_file, settings.meta_file, settings.labels_file)
    found = survey.found
    return granted(
        found.permissions,
        map(Path, (*tables, *settings.exclude_file, *settings.keep_file)),
        found.holding_folders,
        dataset.out.absolute(),
    )


def _publish(
    dataset: Dataset,
    settings: PlanSettings,
    survey: Survey,
    selection: _Selection,
    how: _How,
) -> PlanReport | None:
    """Publish the next generation; return None if another planner has taken its place."""
    # What a killed planner left behind may be as large as the plan.
    remove_stale_partials(dataset.plans, frozenset())
    with PartialFile(dataset.plans / "samples") as file:
        cache = HeaderCache(dataset.plans / HEADER_CACHE_FILE)
        is_large = len(selection.keys) >= LEAST_SAMPLES
        lines = StagedLines(file)
        found = how.spread(
            lines_of, chunks(survey, settings, selection.keys, cache if is_large else None)
        )
        with contextlib.closing(found):
            for some in found:
                lines.add(some)
                cache.add(some.to_cache)
                how.progress(len(lines), len(selection.keys))
        findings, problem = _probe(dataset, settings, survey, selection.keys, lines, how.on_probe)
        prediction = ProbeEstimate(findings) if findings else None
        draft = draft_of(
            lines,
            settings,
            table_sha256={name: table.sha256 for name, table in survey.tables.by_setting.items()},
            lists=survey.lists,
            excluded=selection.excluded,
            retries=selection.retries,
            earlier=selection.earlier,
            prediction=prediction,
            predict=_predicting(prediction, selection.keys),
        )
        more_warnings = [*lines.notes.warnings(settings), *problem]
        if findings:
            more_warnings += probe_warnings(findings)
        if settings.delete_source_files:
            stay = why_some_stay([*map(str, survey.found.holding_folders)])
            more_warnings += [stay] if stay else []
        report = _report(survey, selection, draft.plan, more_warnings)
        with contextlib.ExitStack() as if_refused:
            if_refused.callback(cache.remove)
            if how.approve is not None:
                how.approve(report, [form.dtype for form in lines.forms])
            if how.dry_run:
                raise DryRun(report)
            if_refused.pop_all()
        if not publish_directory(draft.files, dataset.plan(draft.plan.generation)):
            return None
    cache.remove()
    return report


def _predicting(prediction: ProbeEstimate | None, keys: Sequence[str]) -> Predict:
    if prediction is None:
        return lambda index: None
    return lambda index: prediction.chosen_array_bytes(keys[index])


def _probe(
    dataset: Dataset,
    settings: PlanSettings,
    survey: Survey,
    keys: Sequence[str],
    lines: StagedLines,
    on_probe: Progress,
) -> tuple[Findings | None, list[str]]:
    """Return the probe's findings, or None and the reason.

    A failed probe does not prevent a plan.
    """
    if settings.probe == 0:
        return None, []
    population = [
        Volume.of(key, form, voxels, size_bytes)
        for key, form, voxels, size_bytes in zip(
            keys, lines.forms, lines.voxels, lines.source_bytes, strict=True
        )
        if form.dtype
    ]
    if not population:
        return None, []
    folder, files = survey.found.data_folder, survey.found.files
    places = {key: index for index, key in enumerate(keys)}
    try:
        found = probe(
            with_stored_peeked(population, lambda key: folder / files[key][0].source),
            settings,
            lambda key: lines.sample(places[key]),
            dataset.plans,
            on_probe,
        )
    except OSError as error:
        return None, [
            f"no volume could be probed ({error}); sizes are given as if nothing were compressed"
        ]
    return found, []


def _report(
    survey: Survey,
    selection: _Selection,
    plan: Plan | None = None,
    more_warnings: Iterable[str] = (),
) -> PlanReport:
    warnings = survey_warnings(survey, selection.keys, selection.before.keys)
    return PlanReport(
        plan=plan,
        excluded=selection.excluded,
        warnings=(*warnings, *more_warnings),
        volumes_found=sum(len(files) for files in survey.found.files.values()),
        rows={name: len(table) for name, table in survey.tables.by_setting.items()},
        already_planned=len(selection.before.keys) - len(selection.retries),
        left_for_later=selection.left_for_later,
        lists=survey.lists,
    )


def _select(
    dataset: Dataset,
    settings: PlanSettings,
    survey: Survey,
    retry_failed: frozenset[str] | None,
    approve: Approve | None,
) -> _Selection:
    # List the numbers first: a shard seen now cannot belong to a plan that is published later.
    numbers = numbers_in_use(dataset)
    earlier = load_plans(dataset)
    refuse_foreign(dataset, earlier, numbers)
    refuse_other_format(dataset, earlier, settings)
    # A retry has the settings of a plan that stands: it brings no new trash.
    if approve is None and retry_failed is None:
        refuse_other_trash(dataset, earlier, settings)
    before = planned_before(dataset, earlier)
    mended = _mended(before, survey.found, settings)
    if retry_failed is not None:
        mended |= retry_failed & before.failed.keys() & survey.found.files.keys()
    joined = join(survey, before.keys - mended)
    # A failed sample that would be excluded now stays failed: no key is both planned and excluded.
    excluded = tuple(sample for sample in joined.excluded if sample.key not in mended)
    # With earlier plans it is no mistake that nothing new was found.
    if not earlier and not joined.samples:
        raise nothing_to_convert(survey, excluded)
    wanted = (key for key in joined.samples if retry_failed is None or key in retry_failed)
    keys = arrange(wanted, settings)
    known = before.keys | joined.samples.keys() | {sample.key for sample in excluded}
    return _Selection(
        numbers=numbers.keys(),
        earlier=earlier,
        before=before,
        keys=tuple(keys),
        retries=tuple(key for key in keys if key in mended),
        excluded=(*excluded, *_excluded_elsewhere(dataset, earlier, settings, known)),
        left_for_later=len(joined.samples) - len(keys),
    )


def _is_outdated(dataset: Dataset, selection: _Selection) -> bool:
    """Return True if a plan was published, or a shard, since the selection was made."""
    numbers = numbers_in_use(dataset)
    earlier = load_plans(dataset)
    refuse_foreign(dataset, earlier, numbers)
    known = [plan.plan_id for plan in selection.earlier]
    return [plan.plan_id for plan in earlier] != known or numbers.keys() != selection.numbers


def _mended(before: PlannedBefore, found: Discovery, settings: PlanSettings) -> frozenset[str]:
    """Return the failed samples that may not fail again.

    Their source, array key, step or error bound differs now, or storage could not deliver the
    source.
    """
    mended = set()
    for key, failed in before.failed.items():
        last = before.failed_with[key]
        asked_for = (last.array_key, last.step, last.max_error)
        asks_for = (settings.array_key, settings.step, settings.max_error)
        if failed.unreadable or asks_for != asked_for:
            mended |= {key} & found.files.keys()
        for file in found.files.get(key, ()):
            then = (failed.source_mtime_ns, failed.source_ctime_ns)
            if (file.mtime_ns, file.ctime_ns) != then:
                mended.add(key)
    return frozenset(mended)


def _excluded_elsewhere(
    dataset: Dataset, earlier: tuple[Plan, ...], settings: PlanSettings, known: Set[str]
) -> tuple[ExcludedSample, ...]:
    """Return the samples that earlier plans excluded in another data folder.

    The new plan lists them too, so that its list is complete.
    """
    folders = {plan.settings.data_folder for plan in earlier}
    if folders <= {settings.data_folder}:
        return ()
    last = earlier[-1]
    return tuple(
        sample.model_copy(update={"source": _in_folder(last.settings.data_folder, sample.source)})
        for sample in load_excluded(dataset, last)
        if sample.key not in known
    )


def _in_folder(folder: str, source: str | None) -> str | None:
    return None if source is None else os.fspath(Path(folder) / source)
