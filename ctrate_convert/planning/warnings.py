"""Warn a plan's reader before converting; each warning says what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from ctrate_convert.planning.intensity import intensity_notes
from ctrate_convert.planning.probe.trials import Findings
from ctrate_convert.planning.survey import Survey
from ctrate_convert.sources.kinds import KIND_NAMES

_NAMED = 5


def survey_warnings(survey: Survey, planned: Iterable[str], planned_before: Set[str]) -> list[str]:
    """Return warnings about names, links, tables and lists; ``planned`` are the new plan's keys."""
    found, warnings = survey.found, []
    if found.of_other_kind:
        other = next(name for kind, name in KIND_NAMES.items() if kind != found.kind)
        warnings.append(
            f"{found.of_other_kind:,} {other} files lie in the data folder too; this plan has "
            f"nothing to do with them"
        )
    linked = [key for key in planned if found.files[key][0].linked]
    if linked:
        warnings.append(
            f"{len(linked)} volumes are symbolic links; they are converted, their files are never "
            f"deleted: {_names(linked)}"
        )
    if found.linked_folders:
        warnings.append(
            f"{len(found.linked_folders)} linked folders were not entered; give their target as "
            f"--data_folder to convert what is there: {_names(found.linked_folders)}"
        )
    if found.unreadable:
        warnings.append(
            f"{len(found.unreadable)} folders or files could not be looked at; a later plan adds "
            f"what they hold: {_names(found.unreadable)}"
        )
    for table in survey.tables.by_setting.values():
        if table.repeated_rows:
            warnings.append(
                f"{table.path.name} repeats {table.repeated_rows} rows word for word; each counts "
                "once"
            )
    return [
        *warnings,
        *_exclusion_warnings(survey, planned_before),
        *_keep_warnings(survey, planned_before),
    ]


def _exclusion_warnings(survey: Survey, planned_before: Set[str]) -> list[str]:
    listed = survey.exclusion_list
    if not listed:
        return []
    late = sorted(listed & planned_before)
    if late:
        return [
            f"{len(late)} names on the exclusion lists were planned before they were listed and "
            f"stay planned: {_names(late)}"
        ]
    if listed.isdisjoint(survey.found.files.keys() | survey.tables.keys()):
        return [
            f"none of the {len(listed)} names on the exclusion lists is a volume or stands in a "
            f"table: is it the list of another split? {_names(sorted(listed))}"
        ]
    return []


def _keep_warnings(survey: Survey, planned_before: Set[str]) -> list[str]:
    if survey.keep_list is None:
        return []
    warnings = []
    unknown = survey.keep_list - survey.found.files.keys() - survey.tables.keys() - planned_before
    if unknown or not survey.keep_list:
        warnings.append(
            f"{len(unknown)} of the {len(survey.keep_list)} names on the keep lists are no volume "
            f"and stand in no table: {_names(sorted(unknown)) or 'the lists are empty'}"
        )
    others = planned_before - survey.keep_list
    if others:
        warnings.append(
            f"{len(others)} samples that were planned before are on no keep list and stay planned: "
            f"{_names(sorted(others))}"
        )
    return warnings


def probe_warnings(findings: Findings) -> list[str]:
    """Return warnings from the probed volumes: their scale, and what could not be converted."""
    warnings = []
    if findings.unreadable:
        reasons = [f"{key}: {reason}" for key, reason in findings.unreadable.items()]
        warnings.append(
            f"{len(reasons)} of the volumes chosen for the probe could not be converted; the "
            f"promises are made without them: {_names(reasons)}"
        )
    if findings.surprises:
        warnings.append(
            "errors in the probe that are no known fault of a volume; what they befell is offered "
            f"only where it is the plan's own choice: {_names(findings.surprises)}"
        )
    of = f" (of {len(findings.looked):,} probed volumes)"
    return warnings + [note + of for note in intensity_notes(findings.looked)]


def _names(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
