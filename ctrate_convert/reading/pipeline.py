"""Build a ``webdataset`` pipeline over the published shards, for training."""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import webdataset
from webdataset.compat import FluidInterface
from webdataset.utils import pytorch_worker_info

from ctrate_convert.errors import SettingsError
from ctrate_convert.reading.asked import Asked, Units
from ctrate_convert.reading.boxes import CropAt
from ctrate_convert.reading.cache import make_cache_folder
from ctrate_convert.reading.index import Index, StoredSample
from ctrate_convert.reading.items.cut import cut_of
from ctrate_convert.reading.items.item import ItemReader
from ctrate_convert.reading.items.tensors import Arrays, Tensors
from ctrate_convert.store.records.geometry import Axes
from ctrate_convert.store.records.manifest import ManifestShard
from ctrate_convert.store.records.recipe import Recipe
from ctrate_convert.views.presets import find_recipe


def open_dataset(
    out: str | os.PathLike[str],
    *,
    crop: Sequence[int] | None = None,
    crop_at: CropAt = "random",
    crops_per_volume: int = 1,
    foreground: float = 0.0,
    size: Sequence[int] | None = None,
    pad: float | None = None,
    shuffle: bool = False,
    seed: int | None = None,
    keys: Collection[str] | None = None,
    units: Units = "stored",
    axes: Axes = "",
    view: str | os.PathLike[str] | Recipe | None = None,
    assume_axes: Axes = "",
    tensors: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> VolumeDataset:
    """Return a `webdataset` pipeline of the samples that the manifest in ``out`` lists.

    Each sample is a dictionary, with the same entries for every encoding and layout:

    - ``__key__``, ``__url__``: the sample's key and its shard's path;
    - ``array``: the volume, or the crop, (d, h, w) in the source's axis order and the stored
      type (int16, float16, or int32 if the integers do not fit int16); an element times
      ``json["value_scale"]`` is in the source's unit;
    - ``origin``: int64, (3,), the place of the array's first voxel in the volume;
    - ``json``: the fields of ``docs/shards.md``; ``report``: findings, line end, impressions;
      ``labels``: float32, (18,).

    Args:
        out: The dataset directory.
        crop: The shape to cut from every volume. ``npy`` reads only the rows and ``b2nd`` decodes
            only the blocks that the crop touches; ``npy.gz`` has to inflate the volume up to the
            crop's last plane. Along an axis where a volume is smaller than the crop, the volume is
            centred and padded with its smallest value, which in CT is air: all crops have the same
            shape, and no volume is left out.
        crop_at: ``random``, every position equally likely, or ``center``.
        crops_per_volume: Cut so many random crops from each volume, which is read and decoded once.
            They are samples of their own, one after the other, with the same key and another
            ``origin``; ``.shuffle(100)`` mixes them with those of other volumes. All of them are
            in memory at once; of a view, so is the part of it that holds them.
        foreground: The share of random crops whose centre is body, above -500 HU and neither air
            nor lung: 0.5 for every second one. The others lie anywhere, as do those of a volume
            where 64 random places show no body. An ``npy.gz`` is then inflated to memory once.
        size: The shape to which every volume is cut around its middle or padded, so that whole
            volumes make batches: the same as ``crop`` with ``crop_at="center"``.
        pad: What stands where a volume is smaller than ``crop`` or ``size``, in the unit of
            ``array``. Default: its smallest value; of a view, the recipe's padding.
        shuffle: Yield the samples in a new random order each time, over all of a worker's shards.
            Only the samples' places in the shards are shuffled, so this takes no memory.
        seed: Make order and crops the same on every run, for each epoch, node and worker. The
            epoch counts how often this dataset was iterated, or is set by
            `VolumeDataset.set_epoch`: set it if worker processes start anew for each epoch.
            Without a seed, every iteration is different.
        keys: Only these samples. Default: all.
        units: ``stored`` as above; ``source``: ``array`` is float32 in the source's own unit;
            ``hu``: float32 in Hounsfield units.
        axes: The axes of ``array``, ``crop`` and ``origin``, first to last, such as ``zyx``.
            Default: those of the shard, which the JSON names in ``axes``.
        view: ``array`` is what this recipe makes of the volume: the name of a preset, such as
            ``ctclip``, the path of a TOML file, or a `Recipe`. ``crop`` and ``origin`` count in
            voxels of the view, and only what the crop needs is resampled. The view has its own
            units and axes, so neither may be asked for. ``json["view"]`` tells its place.
        assume_axes: With a view, the axes of volumes whose shards do not tell them, such as
            ``yxz``; ``json["view"]`` keeps that. Nothing else is assumed.
        tensors: ``array`` is a torch tensor. In a worker process of torch's ``DataLoader`` it is
            read straight into shared memory, and handed over without a copy. Take them one by one,
            with ``batch_size=None``: batches of arrays are faster than batches of tensors.
        cache: A folder on a disk of this machine. When the first sample of a shard is read, the
            whole shard is copied there, once for all processes; from then on it is read from
            there. Nothing is removed. A full disk is a warning, and costs only speed. The folder
            is created with mode 0700, and must be yours alone to write to.

    Shards are split over nodes and over workers, as ``webdataset`` finds them in torch or in RANK,
    WORLD_SIZE, WORKER and NUM_WORKERS: together they yield each sample exactly once. A worker
    without a shard yields nothing. A shard whose record is missing, damaged, or not the merged one
    is left out, with a `DamagedShardWarning`.

    Raises:
        SettingsError: there is no manifest in ``out`` or no shard; an argument is not usable; or,
            on iterating, there are fewer shards than nodes.
        SampleError: on iterating, a volume's axes or Hounsfield units are needed and not known, or
            a view needs what is not known; its message names the sample and what is missing.
        DamageError: no shard has a sound record; or, on iterating, a shard or a member does not
            fit its record.
        EnvironmentProblem: on iterating, a shard cannot be read.
    """
    asked = Asked(units, axes, None if view is None else find_recipe(view), assume_axes)
    # Checked at once, and not in a worker process an hour later.
    cut = cut_of(crop, size, crop_at, pad, crops_per_volume, foreground)
    room = Tensors() if tensors else Arrays()
    index = Index(out, "" if cache is None else make_cache_folder(cache))
    sound = index.sound_shards()
    wanted = None if keys is None else _check_keys(keys, index)
    reader = _Reader(
        index=index,
        keys=wanted,
        shuffle=shuffle,
        seed=seed,
        items=ItemReader(asked, cut, room),
    )
    shards = [
        shard
        for shard in sound
        if wanted is None or any(sample.key in wanted for sample in index.samples(shard))
    ]
    samples = len(index) if wanted is None else len(wanted)
    return VolumeDataset(shards, reader, samples * crops_per_volume)


def _check_keys(keys: Collection[str], index: Index) -> frozenset[str]:
    # A single key is a collection of its letters.
    wanted = frozenset([keys] if isinstance(keys, str) else keys)
    unknown = sorted(wanted.difference(sample.key for sample in index))
    if unknown or not wanted:
        left_out = f", but for {', '.join(index.damaged)} that is damaged" if index.damaged else ""
        raise SettingsError(
            f"{len(unknown)} of the keys are in no published shard{left_out}"
            if wanted
            else "no keys",
            seen=", ".join(unknown[:3]) or None,
            expected="keys such as " + next(iter(index)).key,
        )
    return wanted


class VolumeDataset(webdataset.DataPipeline, FluidInterface):  # type: ignore[misc]
    """The pipeline that `open_dataset` returns: an iterable dataset for torch's DataLoader.

    ``len`` is the number of samples of the whole dataset, all nodes and workers together. Stages
    added with ``.map``, ``.to_tuple``, ``.batched`` or ``.select`` do not change it.
    """

    def __init__(self, shards: list[ManifestShard], reader: _Reader, samples: int) -> None:
        super().__init__(
            functools.partial(iter, shards), _split_by_node, webdataset.split_by_worker, reader
        )
        self._reader = reader
        self._samples = samples

    def __len__(self) -> int:
        return self._samples

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, which with a seed decides order and crops."""
        self._reader.epoch = epoch


def _split_by_node(shards: Iterator[ManifestShard]) -> Iterator[ManifestShard]:
    """Return this node's shards; raise if there are none, because its peers would wait forever.

    Raises:
        SettingsError: there are none.
    """
    mine = list(webdataset.split_by_node(shards))
    if not mine:
        rank, nodes, _, _ = pytorch_worker_info()
        raise SettingsError(
            "fewer shards than nodes: this one has none", where=f"node {rank} of {nodes}"
        )
    return iter(mine)


@dataclass
class _Reader:
    """The pipeline's last stage, which reads the samples of the shards."""

    index: Index
    keys: frozenset[str] | None
    shuffle: bool
    seed: int | None
    items: ItemReader
    epoch: int = 0

    def __call__(self, shards: Iterator[ManifestShard]) -> Iterator[dict[str, Any]]:
        rng = self._new_rng()
        samples: Iterator[StoredSample] = (
            sample
            for shard in shards
            for sample in self.index.samples(shard)
            if self.keys is None or sample.key in self.keys
        )
        if self.shuffle:
            # Places are small: volumes are read only when their turn comes.
            places = list(samples)
            samples = (places[number] for number in rng.permutation(len(places)))
        for sample in samples:
            yield from self.items.read(sample, rng)

    def _new_rng(self) -> np.random.Generator:
        epoch, self.epoch = self.epoch, self.epoch + 1
        if self.seed is None:
            return np.random.default_rng()
        rank, _, worker, _ = pytorch_worker_info()
        # Rank and worker belong to the seed: else all workers would cut their crops at the same
        # places.
        return np.random.default_rng([self.seed, epoch, rank, worker])
