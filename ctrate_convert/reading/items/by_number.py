"""Give samples by their numbers, as torch's map-style datasets do."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctrate_convert.reading.index import StoredSample
from ctrate_convert.reading.items.cut import whole_number
from ctrate_convert.reading.items.item import ItemReader


class NumberedSamples:
    """A map-style dataset for torch's ``DataLoader`` and its samplers; `Volumes.dataset` makes it.

    Sample ``n`` is a dictionary that collates: ``array``, ``origin``, ``labels``, ``report`` and
    ``__key__``, as `open_dataset` gives them. It may be pickled and shared with forked processes.

    Raises:
        SettingsError: the seed is negative, or no integer.
        IndexError: on indexing, there is no such sample.
        SampleError, DamageError, EnvironmentProblem: on indexing, as `open_dataset` on iterating.
    """

    def __init__(
        self, samples: Sequence[StoredSample], reader: ItemReader, seed: int | None = None
    ) -> None:
        self._samples = samples
        self._reader = reader
        self._seed = None if seed is None else whole_number("seed", seed)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which with a seed decides each sample's crop. Call it before iterating.

        Raises:
            SettingsError: it is negative, or no integer.
        """
        self._epoch = whole_number("epoch", epoch)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> dict[str, Any]:
        samples = range(len(self._samples))
        if not -len(samples) <= operator.index(number) < len(samples):
            raise IndexError(f"there is no sample {number}: {len(samples)} samples")
        number = samples[number]
        seed = None if self._seed is None else [self._seed, self._epoch, number]
        (item,) = self._reader.read(self._samples[number], np.random.default_rng(seed))
        return {name: item[name] for name in ("__key__", "array", "origin", "labels", "report")}

    def __repr__(self) -> str:
        return f"<NumberedSamples: {len(self)} samples>"
