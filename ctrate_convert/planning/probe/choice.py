"""Choose the volumes to probe: some of every kind, by their headers alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ctrate_convert.planning.probe.part import PART_BYTES
from ctrate_convert.planning.probe.peek import peek_many
from ctrate_convert.planning.samples.lines import Form

_MOST = 16
_MOST_READ_BYTES = 3 * 2**30
_MOST_CONVERTED_BYTES = 10 * PART_BYTES
"""Limits worth a few seconds; in bytes, so that every probe chooses the same volumes."""

_CLASSES_PER_OCTAVE = 0.5


class Stratum(NamedTuple):
    """Volumes that should compress alike; each size class is four times the one before."""

    dtype: str
    deflated: bool
    fortran_order: bool
    size_class: int

    @property
    def family(self) -> tuple[str, bool, bool]:
        """The stratum without its size class."""
        return self.dtype, self.deflated, self.fortran_order


@dataclass(frozen=True, slots=True)
class Volume:
    """A planned volume as its header describes it; or, from `sum_up`, many of one kind together.

    ``packed_bytes`` is the quantity to which its compressed size is taken to be proportional within
    its kind: the size of a deflated file, or the size that a stored file would have if deflated.
    """

    key: str
    stratum: Stratum
    voxels: int
    file_bytes: int
    packed_bytes: float

    @classmethod
    def of(cls, key: str, form: Form, voxels: int, file_bytes: int) -> Volume:
        """Return the volume of ``voxels`` in a file of ``file_bytes``."""
        size_class = int(math.log2(max(1, voxels)) * _CLASSES_PER_OCTAVE)
        return cls(key, _stratum(form, size_class), voxels, file_bytes, packed_bytes=file_bytes)

    def packed(self, share: float) -> Volume:
        """Return a copy for which deflate would leave ``share`` of the file."""
        return dataclasses.replace(self, packed_bytes=self.file_bytes * share)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The source's type."""
        return np.dtype(self.stratum.dtype)

    @property
    def array_bytes(self) -> int:
        """The size of its elements in the source's type."""
        return self.voxels * self.dtype.itemsize


@lru_cache
def _stratum(form: Form, size_class: int) -> Stratum:
    """Return the kind; one object for all of its volumes."""
    return Stratum(*form, size_class)


def sum_up(stratum: Stratum, volumes: Sequence[Volume]) -> Volume:
    """Return all ``volumes`` of one kind as one, with their sizes added up."""
    return Volume(
        key="",
        stratum=stratum,
        voxels=sum(volume.voxels for volume in volumes),
        file_bytes=sum(volume.file_bytes for volume in volumes),
        packed_bytes=sum(volume.packed_bytes for volume in volumes),
    )


def with_stored_peeked(
    population: Sequence[Volume], path_of: Callable[[str], Path]
) -> list[Volume]:
    """Return ``population`` with the packed sizes that a look into the stored files gives.

    A volume that was not looked into gets the mean of its kind.
    """
    stored = [volume for volume in population if not volume.stratum.deflated]
    shares = peek_many([volume.key for volume in stored], path_of)
    of_kind: dict[Stratum, list[float]] = {}
    for volume in stored:
        if volume.key in shares:
            of_kind.setdefault(volume.stratum, []).append(shares[volume.key])
    mean = {stratum: sum(some) / len(some) for stratum, some in of_kind.items()}
    return [
        volume.packed(shares.get(volume.key, mean.get(volume.stratum, 1.0)))
        if not volume.stratum.deflated
        else volume
        for volume in population
    ]


def by_stratum(population: Sequence[Volume]) -> Mapping[Stratum, list[Volume]]:
    """Return the volumes of each kind, from small to large; the kind with the most bytes first."""
    strata: dict[Stratum, list[Volume]] = {}
    for volume in population:
        strata.setdefault(volume.stratum, []).append(volume)
    for volumes in strata.values():
        # By key as well, so that volumes of one size always come in the same order.
        volumes.sort(key=lambda volume: (volume.packed_bytes, volume.key))
    weights = {stratum: _array_bytes(volumes) for stratum, volumes in strata.items()}
    return dict(sorted(strata.items(), key=lambda item: (-weights[item[0]], item[0])))


def choose(population: Sequence[Volume], wanted: int | None) -> list[Volume]:
    """Return ``wanted`` volumes, or as many as take a few seconds; first one of each kind.

    Larger kinds give more volumes, evenly from the small to the large ones. A probe that stops
    early has seen something of every kind.
    """
    strata = by_stratum(population)
    counts = dict.fromkeys(strata, 0)
    order: list[Stratum] = []
    read_bytes = converted_bytes = 0.0
    for _ in range(min(len(population), _MOST if wanted is None else wanted)):
        stratum = _next(strata, counts)
        typical_bytes = _array_bytes(strata[stratum]) / len(strata[stratum])
        read_bytes += typical_bytes
        converted_bytes += min(typical_bytes, PART_BYTES)
        too_much = read_bytes > _MOST_READ_BYTES or converted_bytes > _MOST_CONVERTED_BYTES
        # At least one volume is chosen, however large it is.
        if wanted is None and order and too_much:
            break
        counts[stratum] += 1
        order.append(stratum)
    taken = dict.fromkeys(strata, 0)
    chosen = []
    for stratum in order:
        # The middles of equal parts of the kind, which is sorted by size.
        place = (taken[stratum] + 0.5) / counts[stratum]
        chosen.append(strata[stratum][int(place * len(strata[stratum]))])
        taken[stratum] += 1
    return chosen


def _next(strata: Mapping[Stratum, list[Volume]], counts: Mapping[Stratum, int]) -> Stratum:
    """Return the next kind: one of each family, one of each kind, then by bytes for each chosen."""
    seen = {stratum.family for stratum, count in counts.items() if count}

    def need(stratum: Stratum) -> tuple[bool, bool, float]:
        return (
            stratum.family not in seen,
            not counts[stratum],
            _array_bytes(strata[stratum]) / (counts[stratum] + 1),
        )

    return max((one for one in strata if counts[one] < len(strata[one])), key=need)


def _array_bytes(volumes: Sequence[Volume]) -> int:
    return sum(volume.array_bytes for volume in volumes)
