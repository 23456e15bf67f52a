"""Deal the samples of an epoch to nodes and workers, and put each worker's into their order."""

from __future__ import annotations

import hashlib
import math
import numbers
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from webdataset.utils import pytorch_worker_info

from ctrate_convert.errors import SettingsError
from ctrate_convert.reading.index import Index, StoredSample
from ctrate_convert.reading.order.epochs import is_worker
from ctrate_convert.reading.order.patients import choose_one_of_each, group_by_scan, set_apart
from ctrate_convert.store.records.base import sha256_hex
from ctrate_convert.store.records.manifest import ManifestShard

# The purposes of random numbers: no two draw from one stream.
_SCANS, _SHARDS, _WEIGHTS, _ORDER, _READING = range(5)


@dataclass(frozen=True)
class Place:
    """A worker's number on its node, and its node's number, each counted from 0."""

    node: int
    nodes: int
    worker: int
    workers: int

    @classmethod
    def here(cls, sender: Place | None = None) -> Place:
        """Return this process's place, as ``webdataset`` finds it.

        A worker that torch spawned knows nothing of the nodes, unless RANK tells: then they are
        those of ``sender``, the process that sent the dataset to it.
        """
        found = cls(*pytorch_worker_info())
        if sender and found.nodes == 1 and is_worker():
            return replace(found, node=sender.node, nodes=sender.nodes)
        return found

    def __str__(self) -> str:
        return f"worker {self.worker} of {self.workers} on node {self.node} of {self.nodes}"

    def part(self, total: int) -> range:
        """Return this worker's part of ``total`` places: parts differ by at most one."""
        every, number = self.nodes * self.workers, self.node * self.workers + self.worker
        return range(number * total // every, (number + 1) * total // every)


@dataclass(frozen=True)
class Ordering:
    """The arguments of `open_dataset` that decide which samples come, and in which order.

    Raises:
        SettingsError: an argument is not usable.
    """

    shuffle: bool = False
    seed: int | None = None
    per_scan: bool = False
    weights: Mapping[str, float] | None = None
    equal_steps: bool = False
    apart: int = 1

    def __post_init__(self) -> None:
        if self.seed is not None and self.seed < 0:
            raise SettingsError("no usable seed", seen=self.seed, expected="0 or more")
        if self.apart < 1:
            raise SettingsError("no usable apart=", seen=self.apart, expected="1 or more samples")
        if self.weights is not None and not self.shuffle:
            raise SettingsError("weights= draws at random", expected="shuffle=True")

    def facts(self, keys: frozenset[str] | None) -> dict[str, Any]:
        """Return the arguments by name, for a state; long ones by their SHA-256."""
        weights = None
        if self.weights is not None:
            weights = _digest(f"{key} {float(self.weights[key])!r}" for key in sorted(self.weights))
        return {
            "shuffle": self.shuffle,
            "seed": self.seed,
            "keys": None if keys is None else _digest(sorted(keys)),
            "per_scan": self.per_scan,
            "weights": weights,
            "equal_steps": self.equal_steps,
            "apart": self.apart,
        }


class Deal:
    """Who reads what in which epoch.

    The shards of an epoch, which with ``shuffle`` are permuted, stand in one row, and the row is
    cut into equal parts; so no more than two workers share a shard's samples at a cut. Everything
    that workers have to agree on depends on the arguments, the dataset and the epoch alone: without
    a seed it is as with the seed 0.

    Raises:
        SettingsError: a sample has no usable weight.
        DamageError: no shard has a sound record.
    """

    def __init__(self, index: Index, keys: frozenset[str] | None, ordering: Ordering) -> None:
        self._index = index
        self._keys = keys
        self._ordering = ordering
        self._shards = index.sound_shards()
        self._scans: list[tuple[str, ...]] = []
        self._needs_all = ordering.per_scan or ordering.weights is not None or keys is not None
        if self._needs_all:
            found = [sample.key for shard in self._shards for sample in self._of(shard, keys)]
            # A record may turn out to be damaged only now.
            self._shards = index.sound_shards()
            if ordering.weights is not None:
                _check_weights(found, ordering.weights)
            if ordering.per_scan:
                self._scans = group_by_scan(found)
            self._samples = len(self._scans) if ordering.per_scan else len(found)
        else:
            self._samples = sum(shard.samples for shard in self._shards)

    def __len__(self) -> int:
        return self._samples

    def facts(self) -> dict[str, Any]:
        """Return the arguments by name, and the SHA-256 of the dataset's list of records."""
        records = (
            f"{shard.name} {shard.record_sha256} {' '.join(shard.superseded)}"
            for shard in self._shards
        )
        return {"dataset": _digest(records), **self._ordering.facts(self._keys)}

    def samples(self, epoch: int, entropy: int, place: Place) -> list[StoredSample]:
        """Return the samples of one worker in their order; records are read, but no shard.

        ``entropy`` decides the order of this worker's samples.

        Raises:
            SettingsError: there are fewer samples than nodes, or than workers that are to take
                equal steps; or one patient has too many samples to be set apart.
        """
        self._check_enough(place)
        rng = np.random.default_rng([entropy, epoch, place.node, place.worker, _ORDER])
        mine = list(self._dealt(epoch, place))
        if not self._needs_all:
            # Else a worker would come to keep 1.2 kB for every sample of the dataset.
            self._index.forget()
        if self._ordering.equal_steps:
            every = place.nodes * place.workers
            mine += _repeated(mine, math.ceil(self._samples / every) - len(mine), place)
        if self._ordering.shuffle:
            mine = [mine[number] for number in rng.permutation(len(mine))]
        if self._ordering.apart > 1:
            keys = [sample.key for sample in mine]
            mine = [mine[number] for number in set_apart(keys, self._ordering.apart)]
        return mine

    def _dealt(self, epoch: int, place: Place) -> Iterator[StoredSample]:
        keys = self._keys
        if self._scans:
            rng = self._common_rng(_SCANS) if self._ordering.shuffle else None
            keys = choose_one_of_each(self._scans, epoch, rng)
        part = place.part(self._samples)
        shards = self._shards
        if self._ordering.weights is not None:
            found = [sample for shard in shards for sample in self._of(shard, keys)]
            weights = np.array([self._ordering.weights[sample.key] for sample in found])
            rng = self._common_rng(_WEIGHTS, epoch)
            drawn = rng.choice(len(found), size=self._samples, p=weights / weights.sum())
            yield from (found[number] for number in drawn[part.start : part.stop])
            return
        if self._ordering.shuffle:
            order = self._common_rng(_SHARDS, epoch).permutation(len(shards))
            shards = [shards[number] for number in order]
        first = 0
        for shard in shards:
            size = shard.samples if keys is None else len(self._of(shard, keys))
            mine = slice(max(part.start - first, 0), max(part.stop - first, 0))
            if mine.start < min(mine.stop, size):
                yield from self._of(shard, keys)[mine]
            first += size

    def _of(self, shard: ManifestShard, keys: frozenset[str] | None) -> Sequence[StoredSample]:
        found = self._index.samples(shard)
        return found if keys is None else [sample for sample in found if sample.key in keys]

    def _common_rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._ordering.seed or 0, *purpose])

    def _check_enough(self, place: Place) -> None:
        # A node without samples would let the others wait for it for ever.
        every = place.nodes * place.workers
        need = every if self._ordering.equal_steps else place.nodes
        if self._samples < need:
            raise SettingsError(
                f"fewer samples than {'workers' if self._ordering.equal_steps else 'nodes'}",
                where=place,
                seen=self._samples,
                expected=f"{need} or more",
            )


def reading_rng(epoch: int, entropy: int, place: Place, position: int) -> np.random.Generator:
    """Return the random numbers for reading the sample at one position of a worker's list."""
    # Node and worker belong to the seed: else all workers would cut their crops at the same places.
    return np.random.default_rng([entropy, epoch, place.node, place.worker, _READING, position])


def _repeated(mine: list[StoredSample], number: int, place: Place) -> list[StoredSample]:
    if number and not mine:
        raise SettingsError("this worker has no samples: their records are damaged", where=place)
    return [mine[place % len(mine)] for place in range(number)]


def _check_weights(keys: Sequence[str], weights: Mapping[str, float]) -> None:
    if not isinstance(weights, Mapping):
        raise SettingsError(
            "weights= is no mapping", seen=type(weights).__name__, expected="a weight for each key"
        )
    found = {key: weights.get(key) for key in keys}
    wrong = [
        key
        for key, weight in found.items()
        if not (isinstance(weight, numbers.Real) and 0 < weight <= sys.float_info.max)
    ]
    if wrong:
        raise SettingsError(
            f"{len(wrong)} samples have no usable weight",
            seen=", ".join(f"{key}: {weights.get(key)}" for key in wrong[:3]),
            expected="a positive number for every key; keys= leaves samples out",
        )
    total = sum(float(weights[key]) for key in keys)
    if not math.isfinite(total):
        raise SettingsError("the weights are too large to be added", seen=f"a sum of {total}")


def _digest(lines: Iterable[str]) -> str:
    return sha256_hex("\n".join(lines).encode())


def list_sha256(samples: Iterable[StoredSample]) -> str:
    """Return the SHA-256 of a list of samples by their keys."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.key.encode() + b"\n")
    return digest.hexdigest()
