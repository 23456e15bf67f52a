"""Refuse plans of views: in the wrong place, of another dataset, or of nothing at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ctrate_convert.errors import RefusedError, SettingsError
from ctrate_convert.planning.views.offer import Offer
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_samples
from ctrate_convert.store.records.plan import Plan, PlannedSample, PlanSettings


def refuse_one_in_the_other(native: Path, out: Path) -> None:
    """Refuse a dataset of views that lies in the dataset that they are made from, or around it.

    Raises:
        RefusedError: it does.
    """
    one, other = native.resolve(), out.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise RefusedError(
            "a dataset of views needs a folder of its own", where=out,
            expected=f"a folder neither in {native} nor around it",
        )  # fmt: skip


def refuse_another_dataset(
    dataset: Dataset, earlier: Sequence[Plan], settings: PlanSettings, offer: Offer
) -> None:
    """Refuse views of another dataset, which may have volumes of the same names.

    A dataset that was moved still has records that the earlier views were planned from.

    Raises:
        RefusedError: no earlier view was planned from a record of this dataset.
    """
    here = _records(offer.samples.values())
    for plan in earlier:
        if plan.settings.data_folder == settings.data_folder:
            continue
        for shard in plan.shards:
            if here & _records(load_samples(dataset, plan, shard)):
                return
        raise RefusedError(
            "these are views of another dataset", where=dataset.out,
            seen=settings.data_folder, expected=plan.settings.data_folder,
            next_command="give that one as --from, or choose another --output_dir",
        )  # fmt: skip


def _records(samples: Iterable[PlannedSample]) -> set[str]:
    """Return the SHA-256 of the records that these views are planned from."""
    views = (sample.header.view for sample in samples if sample.header)
    return {view.native.record_sha256 for view in views if view and view.native}


def no_view(settings: PlanSettings, offer: Offer) -> SettingsError:
    """Return the error to raise where no sample has a view: what was seen, and how often."""
    reasons = Counter(one.detail for one in offer.excluded)
    return SettingsError(
        "there is no view of any sample", where=settings.data_folder,
        seen="; ".join(f"{reason}: {number:,}" for reason, number in reasons.most_common()),
        expected="known axes, spacing and Hounsfield units; voxels in each axis",
        next_command="--assume_axes tells the axes where the shards do not"
        if any(reason.endswith("what this volume's axes are") for reason in reasons)
        else "ctrate-convert recipes; another recipe, or --from another dataset",
    )  # fmt: skip
