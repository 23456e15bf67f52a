"""Ask the gate's own functions what the gate would say to a deletion here."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ctrate_convert.checking.doctor.finding import Finding
from ctrate_convert.deleting.consents import load_consents, why_not_believed
from ctrate_convert.deleting.trash import require_trash
from ctrate_convert.deleting.trusted import why_not_lasting, why_not_trusted
from ctrate_convert.errors import CtrateError, SettingsError
from ctrate_convert.store.fresh import fresh_status
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.plan import Plan

DELETION = "deletion"


def findings_about_deletion(folder: Path, sources: Sequence[Path]) -> Iterator[Finding]:
    """Yield what the gate will do in a dataset directory, or in a place for one, and why.

    ``sources`` are some of the sources that the plans name and that are there. The last finding
    sums up the others.
    """
    dataset = Dataset(folder)
    try:
        plans = load_plans(dataset)
        if any(plan.settings.view for plan in plans):
            yield Finding(DELETION, "good", "never: views were made from the shards of a dataset")
            return
        yield from _about_names(sources)
        yield from _about_consents(dataset)
        reason = _why_refused(dataset, plans) or _why_none_may_go(sources)
    except (CtrateError, OSError) as error:
        yield Finding(DELETION, "not tested", str(error), "see: verify OUT")
        return
    if reason:
        yield Finding(DELETION, "weaker", f"refused: {reason}", "every source stays")
    else:
        yield Finding(DELETION, "good", f"allowed: {_on_what_terms(plans)}")


def _about_names(sources: Sequence[Path]) -> Iterator[Finding]:
    """Yield how many sources the gate keeps because they are links or have several names."""
    kept = [path for path in sources if _why_kept(path)]
    if kept:
        yield Finding(
            "names of the sources", "weaker",
            f"{len(kept)} of {len(sources)} looked at, {kept[0]} for one: {_why_kept(kept[0])}",
            "the gate keeps these",
        )  # fmt: skip
    elif sources:
        yield Finding(
            "names of the sources", "good", f"{len(sources)} looked at; each has one name, no link"
        )


def _why_kept(path: Path) -> str:
    status = fresh_status(path)
    if stat.S_ISLNK(status.st_mode):
        return "it is a link"
    if status.st_nlink != 1:
        return f"it has {status.st_nlink} hard links; deleting one would free nothing"
    return ""


def _about_consents(dataset: Dataset) -> Iterator[Finding]:
    """Yield a finding for each consent that the gate does not believe."""
    for consent in load_consents(dataset):
        doubt = why_not_believed(dataset, consent.name)
        if doubt:
            yield Finding(
                "consent", "weaker", doubt, "nothing is deleted under it, every source stays"
            )


def _why_refused(dataset: Dataset, plans: Sequence[Plan]) -> str | None:
    # Without ``.run`` there is no dataset yet, so only the storage can be judged.
    if not dataset.run.is_dir():
        return why_not_lasting(dataset.out)
    return why_not_trusted(dataset) or _why_no_folder(dataset, plans)


def _why_no_folder(dataset: Dataset, plans: Sequence[Plan]) -> str | None:
    """Return what is wrong with the data folders or trashes of the plans; None if nothing is."""
    for settings in (plan.settings for plan in plans):
        folder = Path(settings.data_folder)
        if not folder.is_dir():
            return f"the data folder {folder} cannot be seen now"
        if settings.trash:
            try:
                require_trash(Path(settings.trash), folder, dataset.out)
            except SettingsError as error:
                return error.one_line()
    return None


def _why_none_may_go(sources: Sequence[Path]) -> str | None:
    """Return why this user can remove none of ``sources``; None if some can go."""
    folders = {path.parent for path in sources}
    if folders and not any(os.access(folder, os.W_OK | os.X_OK) for folder in folders):
        return f"this user may not remove files in {min(folders)}"
    return None


def _on_what_terms(plans: Sequence[Plan]) -> str:
    if not plans:
        return "once there is a plan, and after a person consented"
    if any(plan.settings.delete_source_files for plan in plans):
        return "`run`, `submit`, `convert` and `delete` ask a person first, or need --yes"
    return "no plan proposes it; `delete` asks first"
