"""Tell which views a dataset offers, from its plans and records; no shard is read for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ctrate_convert.errors import DamageError, RefusedError, SampleError, SettingsError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, Recorded, Unreadable
from ctrate_convert.store.plans import load_samples
from ctrate_convert.store.privacy import Permission
from ctrate_convert.store.records.plan import (
    ArrayHeader,
    ExcludedSample,
    PlannedSample,
    PlanSettings,
)
from ctrate_convert.store.records.record import ConvertedSample
from ctrate_convert.store.records.view import NativeArray
from ctrate_convert.views.described import facts_of_record, view_header
from ctrate_convert.views.view import View


@dataclass
class Offer:
    """The views that a dataset offers, by key in shard order.

    ``excluded`` are its samples that there can be no view of, ``damaged`` its shards that cannot be
    relied on, each with the reason. ``permissions`` are those of its shards, ``times`` when each
    was changed last: (mtime, ctime) in ns.
    """

    samples: dict[str, PlannedSample] = field(default_factory=dict)
    excluded: list[ExcludedSample] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    permissions: set[Permission] = field(default_factory=set)
    times: dict[str, tuple[int, int]] = field(default_factory=dict)


def offer_of(
    native: Dataset, settings: PlanSettings, progress: Callable[[int, int], None]
) -> Offer:
    """Return the views that the published samples of ``native`` have by ``settings.view``.

    Raises:
        SettingsError: it has no plan, or no published shard.
        RefusedError: it holds views itself.
        DamageError: a plan was changed.
    """
    ledger = Ledger.load(native)
    if any(plan.settings.view for plan in ledger.plans):
        raise RefusedError(
            "this dataset holds views; a view of a view would be resampled twice", where=native.out,
            next_command="give the dataset that they were made from as --from",
        )  # fmt: skip
    offer = Offer()
    for number, one in enumerate(ledger.shards()):
        progress(number, len(ledger.known))
        try:
            if isinstance(one, Unreadable):
                raise one.error
            _add_shard(offer, ledger, one, settings)
        except (DamageError, FileNotFoundError) as error:
            what = error.one_line() if isinstance(error, DamageError) else str(error)
            offer.damaged.append(f"{one.shard.name} ({what})")
    if not offer.samples and not offer.excluded:
        raise SettingsError(
            "no shard is published yet" if not offer.damaged else "no shard can be relied on",
            where=native.out, seen="; ".join(offer.damaged[:3]) or None,
            next_command=f"ctrate-convert run {native.out}" if not offer.damaged
            else f"ctrate-convert verify {native.out} --full --repair",
        )  # fmt: skip
    return offer


def _add_shard(offer: Offer, ledger: Ledger, one: Recorded, settings: PlanSettings) -> None:
    if not one.live:
        return
    native = ledger.dataset
    lines = {line.key: line for line in load_samples(native, one.plan, one.shard)}
    record_sha256 = one.record.stored_sha256()
    merged = ledger.merged.get(one.shard.name)
    if merged and merged.record_sha256 != record_sha256:
        raise DamageError("its record is not the one that the manifest knows")
    status = native.shard(one.shard.index).stat()
    offer.permissions.add(Permission.of(status))
    offer.times[one.shard.name] = (status.st_mtime_ns, status.st_ctime_ns)
    for sample in one.live:
        line = lines[sample.key].model_copy(
            update={
                "source": one.shard.name,
                "source_size_bytes": sum(member.size_bytes for member in sample.all_members),
                "source_mtime_ns": status.st_mtime_ns,
            }
        )
        of = NativeArray(
            shard=one.shard.name, record_sha256=record_sha256, blake3=sample.array.blake3
        )
        try:
            header = _header(settings, sample, line.metadata, of)
        except SampleError as error:
            offer.excluded.append(
                ExcludedSample(
                    key=sample.key, reason="no_view", detail=error.what, source=one.shard.name
                )
            )
            continue
        offer.samples[sample.key] = line.model_copy(update={"header": header})


def _header(
    settings: PlanSettings, sample: ConvertedSample, metadata: Mapping[str, str], of: NativeArray
) -> ArrayHeader:
    if settings.view is None:
        raise SettingsError("no recipe for the views")
    return view_header(
        View(settings.view, facts_of_record(sample, metadata, settings.assume_axes)), of
    )
