"""Which volumes are probed: some of every kind, chosen by their headers alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ctrate_convert.conversion.probe_peek import peek_many
from ctrate_convert.schemas.plan import ArrayHeader

_MOST = 16
_MOST_BYTES = 3 * 2**30
"""Of arrays to be read: a few seconds' worth."""

_CLASSES_PER_OCTAVE = 0.5


class Stratum(NamedTuple):
    """Volumes that should compress alike; each class of sizes is four times the one before."""

    dtype: str
    deflated: bool
    fortran_order: bool
    size_class: int


@dataclass(frozen=True)
class Volume:
    """A planned volume as its header describes it; or, by `sum_up`, many of one kind together.

    ``packed_bytes`` is what its compressed size is taken to be proportional to within its kind:
    the size of a deflated file, and what a stored one would have if it were deflated.
    """

    key: str
    stratum: Stratum
    voxels: int
    file_bytes: int
    packed_bytes: float

    @classmethod
    def of(cls, key: str, header: ArrayHeader, file_bytes: int) -> Volume:
        """The volume with ``header`` in a file of that size."""
        voxels = math.prod(header.shape)
        stratum = Stratum(
            dtype=header.dtype,
            deflated=header.compression == "deflated",
            fortran_order=header.fortran_order,
            size_class=int(math.log2(max(1, voxels)) * _CLASSES_PER_OCTAVE),
        )
        return cls(key, stratum, voxels, file_bytes, packed_bytes=file_bytes)

    def packed(self, share: float) -> Volume:
        """The same, where deflate would leave ``share`` of the file."""
        return dataclasses.replace(self, packed_bytes=self.file_bytes * share)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The source's type."""
        return np.dtype(self.stratum.dtype)

    @property
    def array_bytes(self) -> int:
        """Its elements in the source's type."""
        return self.voxels * self.dtype.itemsize


def sum_up(stratum: Stratum, volumes: Sequence[Volume]) -> Volume:
    """All ``volumes`` of one kind as one: whatever is proportional to size holds for it too."""
    return Volume(
        key="",
        stratum=stratum,
        voxels=sum(volume.voxels for volume in volumes),
        file_bytes=sum(volume.file_bytes for volume in volumes),
        packed_bytes=sum(volume.packed_bytes for volume in volumes),
    )


def with_stored_peeked(population: Sequence[Volume], paths: Mapping[str, Path]) -> list[Volume]:
    """``population`` with what a look into the stored files tells of them.

    Those that were not looked into are taken for the mean of their kind.
    """
    stored = [volume for volume in population if not volume.stratum.deflated]
    shares = peek_many({volume.key: paths[volume.key] for volume in stored})
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
    """The volumes of each kind, from small to large; the kind with the most bytes first."""
    strata: dict[Stratum, list[Volume]] = {}
    for volume in population:
        strata.setdefault(volume.stratum, []).append(volume)
    for volumes in strata.values():
        volumes.sort(key=lambda volume: (volume.packed_bytes, volume.key))
    weights = {stratum: _array_bytes(volumes) for stratum, volumes in strata.items()}
    return dict(sorted(strata.items(), key=lambda item: (-weights[item[0]], item[0])))


def choose(population: Sequence[Volume], wanted: int | None) -> list[Volume]:
    """``wanted`` volumes, or as many as take a few seconds; first one of each kind.

    More come from where there is more, evenly from the small to the large ones of a kind. Who
    stops early has seen something of every kind.
    """
    strata = by_stratum(population)
    counts = dict.fromkeys(strata, 0)
    left_bytes = math.inf if wanted is not None else _MOST_BYTES
    for _ in range(min(len(population), _MOST if wanted is None else wanted)):
        stratum = _next(strata, counts)
        left_bytes -= _array_bytes(strata[stratum]) / len(strata[stratum])
        if left_bytes < 0 and any(counts.values()):
            break
        counts[stratum] += 1
    return [
        volumes[int((place + 0.5) * len(volumes) / counts[stratum])]
        for place in range(max(counts.values(), default=0))
        for stratum, volumes in strata.items()
        if place < counts[stratum]
    ]


def _next(strata: Mapping[Stratum, list[Volume]], counts: Mapping[Stratum, int]) -> Stratum:
    """The first kind without any; then the one whose volumes stand for most, each."""
    open_ones = [stratum for stratum, volumes in strata.items() if counts[stratum] < len(volumes)]
    for stratum in open_ones:
        if not counts[stratum]:
            return stratum
    return max(open_ones, key=lambda one: _array_bytes(strata[one]) / counts[one])


def _array_bytes(volumes: Sequence[Volume]) -> int:
    return sum(volume.array_bytes for volume in volumes)
