"""Propose a deletion to a person: the number of files, their bytes, the rounding and the losses."""

from __future__ import annotations

import dataclasses
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from ctrate_convert.deleting.consents import new_name, ranges, record_consent, user_id, user_name
from ctrate_convert.errors import SampleError, SettingsError
from ctrate_convert.formats.cast import output_dtype
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.plan import Plan, PlanSettings


@dataclass(frozen=True)
class Candidate:
    """A source that may go: its size, its array's type, its sample's error, and its folder.

    The error is None and the folder empty while they are not known.
    """

    plan: Plan
    shard: int
    task: int
    size_bytes: int
    dtype: str
    max_abs_error: float | None = None
    folder: str = ""


@dataclass(frozen=True)
class Proposal:
    """A proposed deletion: the facts that a person is asked about and consents to.

    ``folders`` are those of the sources, for a look if this user may remove files there.
    """

    plans: tuple[Plan, ...]
    shards: tuple[int, ...]
    files: int
    size_bytes: int
    rounding: tuple[str, ...]
    discard_members: tuple[str, ...]
    trash: str
    copies: tuple[str, ...] = ()
    folders: frozenset[str] = frozenset()

    def after(self, earlier: Proposal | None) -> Proposal:
        """Return one proposal for everything that ``earlier`` and this one propose.

        If either names a trash, it is used for both, so that no source is deleted for good
        unexpectedly.
        """
        if earlier is None:
            return self
        return dataclasses.replace(
            self,
            plans=(*earlier.plans, *self.plans),
            shards=(*earlier.shards, *self.shards),
            files=earlier.files + self.files,
            size_bytes=earlier.size_bytes + self.size_bytes,
            rounding=tuple(dict.fromkeys((*earlier.rounding, *self.rounding))),
            trash=self.trash or earlier.trash,
            folders=earlier.folders | self.folders,
        )

    def accept(self, dataset: Dataset, command: str) -> Consent:
        """Record durably that the person at ``command`` allowed it; return the consent."""
        consent = Consent(
            name=new_name(),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            user=user_name(),
            uid=user_id(),
            host=socket.gethostname(),
            command=command,
            plans={plan.plan_id: plan.settings.max_error for plan in self.plans},
            shards=ranges(self.shards),
            files=self.files,
            size_bytes=self.size_bytes,
            rounding=self.rounding,
            discard_members=self.discard_members,
            trash=self.trash,
            copies=self.copies,
        )
        record_consent(dataset, consent)
        return consent


def propose(
    candidates: Iterable[Candidate],
    *,
    discard_members: Sequence[str] = (),
    trash: str = "",
    copies: Sequence[str] = (),
) -> Proposal | None:
    """Sum up ``candidates``; return None if there are none, so that nobody is asked in vain."""
    plans: dict[str, Plan] = {}
    shards: set[int] = set()
    rounded: dict[str, Counter[str]] = {}
    largest: dict[str, float] = {}
    folders: set[str] = set()
    files = size_bytes = 0
    for one in candidates:
        files += 1
        size_bytes += one.size_bytes
        plan_id = one.plan.plan_id
        plans[plan_id] = one.plan
        shards.add(one.shard)
        if one.folder:
            folders.add(one.folder)
        rounded.setdefault(plan_id, Counter())[one.dtype] += 1
        largest[plan_id] = max(largest.get(plan_id, 0.0), one.max_abs_error or 0.0)
    if not files:
        return None
    words = [
        sentence
        for plan_id, dtypes in rounded.items()
        for sentence in rounding_words(dtypes, plans[plan_id].settings, largest[plan_id])
    ]
    return Proposal(
        plans=tuple(plans.values()),
        shards=tuple(sorted(shards)),
        files=files,
        size_bytes=size_bytes,
        rounding=tuple(dict.fromkeys(words)),
        discard_members=tuple(discard_members),
        trash=trash,
        copies=tuple(copies),
        folders=frozenset(folders),
    )


def rounding_words(
    dtypes: Counter[str], settings: PlanSettings, largest_error: float = 0.0
) -> list[str]:
    """Return sentences that say which volumes are rounded, and by how much at most."""
    words = []
    for dtype, number in sorted(dtypes.items()):
        target = _rounded_to(dtype, settings)
        if target is None:
            continue
        stored = target
        if settings.step and target == "int16":
            stored = f"{target} in steps of {settings.step:g}"
        # The wording repeats the bound that conversion applies: see docs/safety.md, The error
        # bound.
        bound = _bound_words(target, settings.max_error)
        if largest_error:
            bound = f"{bound}; the largest error measured is {largest_error:.3g}"
        volumes = f"{number:,} volume" + ("" if number == 1 else "s")
        name = np.dtype(dtype).name
        words.append(f"{volumes} of {name} rounded to {stored}, {bound}")
    return words


def _bound_words(target: str, max_error: float | None) -> str:
    if max_error is not None:
        return f"each voxel by at most {max_error:g}, as --max_error accepts"
    outliers = "half a step" if target == "int16" else "1/2048 of their value"
    return f"each voxel by at most 1/1024 of its volume's spread (outliers: {outliers})"


def _rounded_to(dtype: str, settings: PlanSettings) -> str | None:
    """Return the type that voxels of ``dtype`` are rounded to; None if they stay exact."""
    if not dtype:
        return None
    try:
        target = output_dtype(dtype, settings.dtype)
    except SampleError:
        return None
    source = np.dtype(dtype)
    exact = source.kind != "f" and target == "int16"
    return None if exact or source == np.dtype(target) else target


def one_trash(plans: Iterable[Plan]) -> str:
    """Return the trash that the plans name, or an empty string.

    If only one plan names a trash, the sources of all plans go there: none is deleted for good.

    Raises:
        SettingsError: they name several.
    """
    named = sorted({plan.settings.trash for plan in plans if plan.settings.trash})
    if len(named) > 1:
        raise SettingsError(
            "the plans of this dataset name several trash folders",
            seen=", ".join(named),
            expected="one",
            next_command="run OUT --keep_source_files, then: delete OUT --trash DIR",
        )
    return named[0] if named else ""
