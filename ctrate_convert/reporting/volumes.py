"""What is known of the converted volumes, summed up from the records and the plans' lists."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ctrate_convert.errors import DamageError
from ctrate_convert.planning.intensity import error_in_hu
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Recorded
from ctrate_convert.store.plans import load_samples
from ctrate_convert.store.records.record import ConvertedSample

NOTHING_TELLS = "nothing tells"


@dataclass
class VolumeFacts:
    """Sums over the volumes that count, each by the copy that readers get.

    ``times_smaller`` compares the voxels, in their source's type, with what the shard stores.
    ``shapes`` count (slices, rows, columns), and ``spacings_mm`` (between slices, in the plane),
    where the axes are known. ``labels`` counts the positive volumes of ``labelled``. ``notes`` tell
    what could not be read.
    """

    number: int = 0
    stored_bytes: list[int] = field(default_factory=list)
    times_smaller: list[float] = field(default_factory=list)
    errors_hu: list[float] = field(default_factory=list)
    shapes: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    spacings_mm: Counter[tuple[float, float]] = field(default_factory=Counter)
    intensities: Counter[str] = field(default_factory=Counter)
    hu_from: Counter[str] = field(default_factory=Counter)
    stored_as: Counter[str] = field(default_factory=Counter)
    grids: Counter[str] = field(default_factory=Counter)
    orientations: Counter[str] = field(default_factory=Counter)
    contradictions: int = 0
    not_finite: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    labelled: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, dataset: Dataset, one: Recorded) -> None:
        """Count the live samples of a shard."""
        for sample in one.live:
            self._add_array(sample)
            self._add_geometry(sample)
        try:
            planned = load_samples(dataset, one.plan, one.shard)
        except (DamageError, OSError) as error:
            self.notes.append(f"The labels of {one.shard.name} are not counted: {error}")
            return
        live = {sample.key for sample in one.live}
        for line in planned:
            if line.key in live and line.labels:
                self._add_labels(line.labels)

    def _add_array(self, sample: ConvertedSample) -> None:
        array = sample.array
        voxels = math.prod(array.shape)
        in_source = voxels * np.dtype(sample.source_header.dtype).itemsize
        self.number += 1
        self.stored_bytes.append(array.size_bytes)
        self.times_smaller.append(in_source / max(1, array.size_bytes))
        self.errors_hu.append(error_in_hu(array.max_abs_error, array.intensity))
        self.intensities[array.intensity] += 1
        self.hu_from[array.hu_from or NOTHING_TELLS] += 1
        self.stored_as[f"{array.dtype}, {array.encoding}"] += 1
        self.not_finite += bool(array.nan_count or array.infinite_count)

    def _add_geometry(self, sample: ConvertedSample) -> None:
        geometry = sample.geometry
        self.grids[geometry.grid] += 1
        self.orientations[geometry.orientation or "not known"] += 1
        self.contradictions += bool(geometry.contradiction)
        if not geometry.axes:
            return
        places = [geometry.axes.index(axis) for axis in "zyx"]
        slices, rows, columns = (sample.array.shape[place] for place in places)
        self.shapes[slices, rows, columns] += 1
        if len(geometry.spacing_axes_mm) == len(places):
            between, in_plane, _ = (geometry.spacing_axes_mm[place] for place in places)
            self.spacings_mm[round(between, 4), round(in_plane, 4)] += 1

    def _add_labels(self, labels: Mapping[str, int]) -> None:
        self.labelled += 1
        for name, value in labels.items():
            self.labels[name] += value == 1
