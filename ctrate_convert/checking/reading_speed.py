"""Measure how fast plain ``webdataset`` reads the published shards in one process."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ctrate_convert.errors import SettingsError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import require_plans

_LONG_ENOUGH_S = 10.0


@dataclass(frozen=True)
class ReadingSpeed:
    """The samples and bytes that were read, and the time that it took."""

    samples: int
    size_bytes: int
    elapsed_s: float

    @property
    def samples_per_s(self) -> float:
        """Samples read per second."""
        return self.samples / self.elapsed_s

    @property
    def bytes_per_s(self) -> float:
        """Bytes of members read per second."""
        return self.size_bytes / self.elapsed_s


def reading_speed(dataset: Dataset) -> ReadingSpeed:
    """Read samples for at most ten seconds and return the speed.

    Raises:
        SettingsError: no shard is published yet.
    """
    import webdataset  # slow to import if torch is installed

    manifest = merge(dataset, require_plans(dataset))
    shards = [str(dataset.out / shard.name) for shard in manifest.shards if shard.samples]
    if not shards:
        raise SettingsError("no shard is published yet", where=dataset.out)
    samples = size_bytes = 0
    started = time.monotonic()
    for sample in webdataset.WebDataset(shards, shardshuffle=False):
        samples += 1
        size_bytes += sum(len(value) for value in sample.values() if isinstance(value, bytes))
        if time.monotonic() - started > _LONG_ENOUGH_S:
            break
    # The tiny minimum keeps the speeds from dividing by zero.
    return ReadingSpeed(samples, size_bytes, max(time.monotonic() - started, 1e-9))
