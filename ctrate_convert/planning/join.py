"""Join volumes and tables: each key is planned, or excluded for exactly one reason."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from ctrate_convert.formats.names import parse_key
from ctrate_convert.planning.split import natural_order
from ctrate_convert.planning.survey import Survey
from ctrate_convert.planning.walk import FoundFile, name_problem
from ctrate_convert.sources.kinds import KIND_NAMES
from ctrate_convert.store.records.plan import ExcludedSample, ExclusionReason


@dataclass(frozen=True)
class Joined:
    """The volumes that can be converted, by key, and all excluded samples in natural order."""

    samples: Mapping[str, FoundFile]
    excluded: tuple[ExcludedSample, ...]


def join(survey: Survey, already_planned: Set[str]) -> Joined:
    """Join everything found below the data folder with all rows of the tables.

    Keys in ``already_planned`` are left out: they have their state from an earlier generation.
    """
    samples: dict[str, FoundFile] = {}
    excluded: list[ExcludedSample] = []
    found = survey.found
    keys = survey.tables.keys()
    keys.update(found.files)
    keys -= already_planned
    for key in keys:
        files = found.files.get(key, ())
        why = _why_not(key, files, survey)
        if why is None:
            samples[key] = files[0]
        else:
            excluded.append(_excluded(key, files, *why))
    excluded.sort(key=lambda sample: natural_order(sample.key))
    return Joined(samples, tuple(excluded))


def _excluded(
    key: str, files: tuple[FoundFile, ...], reason: ExclusionReason, detail: str
) -> ExcludedSample:
    return ExcludedSample(
        key=key,
        reason=reason,
        detail=detail,
        source=files[0].source if files else None,
        source_size_bytes=sum(file.size_bytes for file in files),
    )


def _why_not(
    key: str, files: tuple[FoundFile, ...], survey: Survey
) -> tuple[ExclusionReason, str] | None:
    """Return the first reason, in the order of the checks, not to convert the key; None if none."""
    tables = survey.tables
    lists_take_it = key not in survey.exclusion_list and (
        survey.keep_list is None or key in survey.keep_list
    )
    # Most keys by far pass all checks, and these few tell it.
    if (
        lists_take_it
        and len(files) == 1
        and files[0].problem is None
        and key in tables.reports.rows
        and key in tables.labels.rows
        and key in tables.metadata.rows
        and key not in tables.labels.unusable
    ):
        return None
    named = {"reports": tables.reports, "labels": tables.labels, "metadata": tables.metadata}
    listed = [name for name, table in named.items() if key in table]
    # The exclusion list wins over the keep list.
    if key in survey.exclusion_list:
        return "on_exclusion_list", "its name is on an exclusion list"
    if survey.keep_list is not None and key not in survey.keep_list:
        return "not_on_keep_list", "its name is on no keep list"
    if len(files) > 1:
        # Nobody can know which of the files is right, so none is touched.
        return "duplicate_volume", " and ".join(file.source for file in files)
    problem = _bad_name(key, files, listed)
    if problem:
        return "bad_name", problem
    for table in named.values():
        if key in table.conflicting:
            return "conflicting_rows", table.conflicting[key]
    if key not in tables.reports:
        return "no_report", f"{tables.reports.path.name} has no row for it"
    if key not in tables.labels:
        return "no_labels", f"{tables.labels.path.name} has no row for it"
    if key in tables.labels.unusable:
        return "no_labels", f"{tables.labels.path.name}: {tables.labels.unusable[key]}"
    if key not in tables.metadata:
        return "no_metadata", f"{tables.metadata.path.name} has no row for it"
    if not files:
        kind = KIND_NAMES[survey.found.kind]
        is_not = "--files_from names" if survey.found.from_a_list else "there is"
        return "no_volume", f"listed in {', '.join(listed)}, but {is_not} no such {kind} file"
    return None


def _bad_name(key: str, files: tuple[FoundFile, ...], listed: list[str]) -> str | None:
    if not files:
        return name_problem(key)
    # A volume that a table names is one, whatever its name.
    if files[0].problem is None and not listed and parse_key(key) is None:
        return "it is not named as CT-RATE names volumes, and stands in no table"
    return files[0].problem
