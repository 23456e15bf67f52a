"""Refuse a generation of the plan that takes used shard numbers or has another format or trash."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ctrate_convert.deleting.source_states import candidates, survey
from ctrate_convert.errors import RefusedError, SettingsError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_plans, next_numbers
from ctrate_convert.store.records.plan import Plan, PlanSettings

_SHARD_NUMBER = re.compile(r"shard-(\d{6,})\.(?:tar|json)", re.ASCII)


def numbers_in_use(dataset: Dataset) -> dict[int, Path]:
    """Return the shard numbers that a tar or a record has, each with its path."""
    numbers = {}
    for folder in (dataset.out, dataset.records):
        for path in folder.iterdir() if folder.is_dir() else ():
            match = _SHARD_NUMBER.fullmatch(path.name)
            if match is not None:
                numbers[int(match[1])] = path
    return numbers


def refuse_foreign(
    dataset: Dataset, earlier: tuple[Plan, ...], numbers: Mapping[int, Path]
) -> None:
    """Refuse to plan if the next shard numbers are in use, since shards are never overwritten.

    Raises:
        RefusedError: they are in use.
    """
    first_free, _ = next_numbers(earlier)
    # Lower numbers are planned: a tar or a record with such a number is that of a plan here.
    foreign = [numbers[number] for number in sorted(numbers) if number >= first_free]
    if foreign:
        raise RefusedError(
            "the output directory holds shards that no plan here has made",
            where=dataset.out,
            seen=f"{len(foreign)}, the first is {foreign[0].name}",
            expected="an empty directory, or one with its plans" if not earlier else "none",
            next_command="choose another --output_dir; shards are never overwritten",
        )


def refuse_data_folder(native: Dataset, out: Path) -> None:
    """Refuse to mix views with the volumes that their dataset was converted from.

    Raises:
        SettingsError: ``out`` is the data folder, or lies around it; or it lies in it, where the
            dataset itself does not.
    """
    out, shards = out.resolve(), native.out.resolve()
    for folder in {Path(plan.settings.data_folder) for plan in load_plans(native)}:
        inside = folder in out.parents and folder not in shards.parents
        if out == folder or out in folder.parents or inside:
            raise SettingsError(
                "the output directory is the data folder"
                if out == folder
                else "the output directory and the data folder lie in one another",
                where=folder,
                next_command="choose an output directory of its own",
            )


def refuse_other_format(
    dataset: Dataset, earlier: tuple[Plan, ...], settings: PlanSettings
) -> None:
    """Refuse another format than the dataset's: a reader needs one format for all shards.

    Raises:
        RefusedError: ``settings`` ask for another format.
    """
    if not earlier:
        return
    first = earlier[0].settings
    for name in ("layout", "encoding", "dtype"):
        seen, expected = getattr(settings, name), getattr(first, name)
        if seen != expected:
            raise RefusedError(
                f"--{name} is not the one that this dataset was begun with",
                where=dataset.out,
                seen=seen,
                expected=expected,
                next_command=f"give --{name} {expected}, or choose another --output_dir",
            )
    if (mine := settings.view) != (theirs := first.view) and (
        mine is None or theirs is None or mine.recipe_id != theirs.recipe_id
    ):
        raise RefusedError(
            "this dataset was begun with another recipe",
            where=dataset.out,
            seen=f"--view {mine.title}" if mine else "no --view",
            expected=f"the recipe {theirs.title} of its plan" if theirs else "no --view",
            next_command="choose another --output_dir",
        )


def refuse_other_trash(dataset: Dataset, earlier: tuple[Plan, ...], settings: PlanSettings) -> None:
    """Refuse a trash that an earlier plan would not use.

    Raises:
        RefusedError: an earlier plan proposes to delete sources that are left, and names no trash
            or another one.
    """
    others = {
        plan.plan_id: plan.settings.trash
        for plan in earlier
        if plan.settings.delete_source_files and plan.settings.trash != settings.trash
    }
    if not (settings.trash and others):
        return
    for one in candidates(survey(dataset, earlier), earlier, pending=True):
        if one.plan.plan_id in others:
            named = others[one.plan.plan_id]
            raise RefusedError(
                "an earlier plan proposes to let sources go, and a plan never changes",
                where=dataset.out,
                seen=f"--trash {named}" if named else "no --trash",
                expected=f"--trash {settings.trash}",
                next_command="`convert` with --delete_source_files and --trash, or `delete` with "
                "--trash: either moves the sources of every plan",
            )
