"""Read one sample as the dictionary that training code gets, or one for each of its crops."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctrate_convert.reading.asked import Asked
from ctrate_convert.reading.cache import open_shard
from ctrate_convert.reading.index import StoredSample
from ctrate_convert.reading.items.crops import read_crops
from ctrate_convert.reading.items.cut import Cut
from ctrate_convert.reading.items.tensors import Room
from ctrate_convert.reading.samples import read_json, read_labels, read_report
from ctrate_convert.reading.viewed import reader_of, with_view


@dataclass(frozen=True)
class ItemReader:
    """Reads samples: in which unit, which part of them, and into which memory."""

    asked: Asked
    cut: Cut
    room: Room

    def read(self, sample: StoredSample, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """Yield the sample, once for each crop; everything was read when the first one comes.

        Raises:
            SettingsError: ``pad`` is not in the range of the array's type.
            SampleError: what is needed of the volume's axes or units is not known.
            DamageError: the shard does not hold what its record says.
            EnvironmentProblem: it cannot be read.
        """
        with open_shard(sample.shard) as file:
            fields = read_json(file, sample)
            asked = reader_of(self.asked, sample.array, fields)
            crops = read_crops(file, sample.array, asked, self.cut, rng, self.room)
            report, labels = read_report(file, sample), read_labels(file, sample)
        fields = with_view(fields, asked)
        # From behind, so that no crop stays in memory once it was given away.
        crops.reverse()
        while crops:
            origin, array = crops.pop()
            yield {
                "__key__": sample.key,
                "__url__": sample.shard.path,
                "array": array,
                "origin": np.array(origin, np.int64),
                # What one stage does to a dictionary must not reach the next crop.
                "json": copy.deepcopy(fields) if crops else fields,
                "report": report,
                "labels": labels.copy() if crops else labels,
            }
            del array
