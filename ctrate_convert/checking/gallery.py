"""Choose samples worth looking at, and look at them beside their sources."""

from __future__ import annotations

import enum
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ctrate_convert.errors import CtrateError, RefusedError, SampleError, SettingsError
from ctrate_convert.looking.look import Look
from ctrate_convert.reading.index import Index, StoredSample
from ctrate_convert.reading.look import look_at
from ctrate_convert.sources.look import cuts_of_file, look_at_file
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.geometry import Axes
from ctrate_convert.store.records.recipe import Recipe
from ctrate_convert.store.records.record import ConvertedSample, FailedSample


class Chosen(enum.Enum):
    """Which samples to take where nobody names them."""

    SPREAD = "spread evenly"
    OUTLIERS = "least like the others"


def choose(
    out: Path, keys: Sequence[str], number: int, by: Chosen = Chosen.SPREAD
) -> list[StoredSample]:
    """Return the samples named by ``keys``, or ``number`` of them.

    Raises:
        SettingsError: there is no manifest, or no such sample.
    """
    samples = {sample.key: sample for sample in Index(out)}
    if keys:
        unknown = [key for key in keys if key not in samples]
        if unknown:
            raise SettingsError(
                f"no sample {unknown[0]!r}",
                where=out,
                next_command=f"ctrate-convert preview {out}",
            )
        return [samples[key] for key in keys]
    every = list(samples.values())
    if by is Chosen.OUTLIERS:
        return _outliers(Dataset(out), samples, number)
    places = np.linspace(0, len(every) - 1, min(number, len(every))).round().astype(int)
    return [every[place] for place in dict.fromkeys(places.tolist())]


def _outliers(
    dataset: Dataset, samples: dict[str, StoredSample], number: int
) -> list[StoredSample]:
    """Return the samples with the rarest facts: scale, geometry, shape, range and error."""
    records = [
        one
        for shard in Ledger(dataset, require_plans(dataset)).readable()
        for one in shard.live
        if one.key in samples
    ]
    rare = Counter(fact for one in records for fact in _facts(one))
    numbers = np.array([_numbers(one) for one in records], np.float64).reshape(len(records), -1)
    middle = np.median(numbers, axis=0)
    spread = np.median(np.abs(numbers - middle), axis=0) + 1e-9
    # Distances grow without a limit; rareness and distance count alike if both are logarithms.
    far = np.log1p(np.abs(numbers - middle) / spread).max(axis=1) if len(records) else []
    scores = {
        one.key: float(away) + max(np.log(len(records) / rare[fact]) for fact in _facts(one))
        for one, away in zip(records, far, strict=True)
    }
    order = sorted(scores, key=lambda key: (-scores[key], key))
    return [samples[key] for key in order[:number]]


def _facts(one: ConvertedSample) -> list[tuple[str, str]]:
    geometry, array = one.geometry, one.array
    return [
        ("intensity", array.intensity),
        ("axes", geometry.axes),
        ("orientation", geometry.orientation),
        ("grid", geometry.grid),
        ("contradiction", str(bool(geometry.contradiction))),
        ("not finite", str(bool(array.nan_count or array.infinite_count))),
    ]


def _numbers(one: ConvertedSample) -> list[float]:
    array = one.array
    spacing = [*one.geometry.spacing_axes_mm, 1.0, 1.0, 1.0][:3]
    return [*map(float, array.shape), array.value_min, array.value_max, *spacing]


def looks_of(
    dataset: Dataset,
    chosen: Sequence[StoredSample],
    recipe: Recipe | None = None,
    assume_axes: Axes = "",
) -> Iterator[Look | CtrateError]:
    """Yield the look of each sample, beside its source where that is there, or what prevents it.

    With a ``recipe`` it is the look of the view, which stands alone.

    Raises:
        RefusedError: there is a recipe, and the dataset holds views itself.
    """
    plans = require_plans(dataset)
    if recipe is not None and any(plan.settings.view for plan in plans):
        raise RefusedError(
            "this dataset holds views; a view of a view would be resampled twice",
            where=dataset.out, next_command=f"ctrate-convert preview {dataset.out}",
        )  # fmt: skip
    ledger = Ledger(dataset, plans)
    wanted = {sample.key for sample in chosen}
    sources = {
        one.key: (Path(shard.plan.settings.data_folder) / one.source.source, one)
        for shard in ledger.readable()
        # A view has another grid than its volume.
        if recipe is None and shard.plan.settings.view is None
        for one in shard.live
        if one.key in wanted
    }
    for stored in chosen:
        try:
            look = look_at(stored, recipe, assume_axes)
        except CtrateError as error:
            yield error
            continue
        path, sample = sources.get(stored.key, (None, None))
        if path is None or sample is None or not path.is_file():
            yield look
            continue
        yield _beside_its_source(look, path, sample)


def _beside_its_source(look: Look, path: Path, sample: ConvertedSample) -> Look | CtrateError:
    array = sample.array
    slope, intercept = (
        (array.hu_slope / array.value_scale, array.hu_intercept) if array.hu_slope else (1.0, 0.0)
    )
    try:
        cuts = cuts_of_file(path, sample.source_header.array_key or None, slope, intercept)
    except CtrateError as error:
        return error
    if cuts.shape != look.cuts.shape:
        return SampleError(
            "the source has another shape than its sample now",
            where=path,
            seen=cuts.shape,
            expected=look.cuts.shape,
        )
    return Look(look.known, look.cuts, cuts)


def failed_sources(dataset: Dataset, number: int) -> Iterator[Look | CtrateError]:
    """Yield the looks of failed samples' sources, as far as they can be read, or why not."""
    ledger = Ledger(dataset, require_plans(dataset))
    shown = 0
    for shard in ledger.readable():
        settings = shard.plan.settings
        for failed in shard.record.failed:
            if shown == number:
                return
            shown += 1
            if settings.view is not None:
                yield _failed_view(failed, settings.data_folder)
                continue
            path = Path(settings.data_folder) / failed.source
            try:
                yield look_at_file(path, settings.array_key)
            except CtrateError as error:
                yield error


def _failed_view(failed: FailedSample, native: str) -> SampleError:
    preview = f"ctrate-convert preview {shlex.quote(native)} --key {failed.key}"
    return SampleError(failed.reason, where=failed.key, next_command=preview)
