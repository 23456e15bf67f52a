"""Build a ``webdataset`` pipeline over the published shards, for training."""

from __future__ import annotations

import copy
import functools
import itertools
import operator
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import webdataset
from webdataset.compat import FluidInterface
from webdataset.filters import default_collation_fn

from ctrate_convert.errors import SettingsError
from ctrate_convert.reading.asked import Asked, Units
from ctrate_convert.reading.boxes import CropAt
from ctrate_convert.reading.cache import make_cache_folder
from ctrate_convert.reading.index import Index
from ctrate_convert.reading.items.cut import cut_of, whole_number
from ctrate_convert.reading.items.item import ItemReader
from ctrate_convert.reading.items.tensors import Arrays, Tensors
from ctrate_convert.reading.order.deal import Deal, Ordering
from ctrate_convert.reading.order.passes import Pass, Passes, Turn
from ctrate_convert.store.records.geometry import Axes
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
    per_scan: bool = False,
    weights: Mapping[str, float] | None = None,
    equal_steps: bool = False,
    apart: int = 1,
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
        shuffle: Deal the shards anew to nodes and workers in each epoch, and yield a worker's
            samples in a new random order. Only the samples' places in the shards are shuffled, so
            this takes no memory.
        seed: Make order and crops the same on every run, for each epoch, node and worker. Without
            a seed, each worker's order and all crops are different every time; what nodes and
            workers have to agree on is as with the seed 0.
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
        per_scan: Yield one reconstruction of each scan: the first, or with ``shuffle`` another one
            in each epoch, in turn.
        weights: Draw the samples of an epoch with replacement, each with a chance that is
            proportional to its weight, and as many as there are. A positive number for every key;
            needs ``shuffle``.
        equal_steps: All workers yield equally many samples: those with one less repeat one of
            their own.
        apart: No two of so many samples in a row are of one patient, on each worker; with the
            batch size, no two in a batch.
        tensors: ``array`` is a torch tensor. In a worker process of torch's ``DataLoader`` it is
            read straight into shared memory, and handed over without a copy. Take them one by one,
            with ``batch_size=None``: batches of arrays are faster than batches of tensors.
        cache: A folder on a disk of this machine. When the first sample of a shard is read, the
            whole shard is copied there, once for all processes; from then on it is read from
            there. Nothing is removed. A full disk is a warning, and costs only speed. The folder
            is created with mode 0700, and must be yours alone to write to.

    Samples are dealt to nodes and to workers, as ``webdataset`` finds them in torch or in RANK,
    WORLD_SIZE, WORKER and NUM_WORKERS. Together they yield each sample exactly once, and their
    numbers differ by at most one. A shard whose record is missing, damaged, or not the merged one
    is left out, with a `DamagedShardWarning`.

    The epoch counts the iterations over this dataset, also by torch's workers, whether they persist
    or start anew for each epoch; or it is set by `VolumeDataset.set_epoch`.

    Raises:
        SettingsError: there is no manifest in ``out`` or no shard; an argument is not usable; or,
            on iterating, there are fewer samples than nodes, or than workers that are to take equal
            steps, or one patient has too many of a worker's samples to keep them ``apart``.
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
    index.sound_shards()
    ordering = Ordering(
        shuffle=shuffle,
        seed=None if seed is None else whole_number("seed", seed),
        per_scan=per_scan,
        weights=weights,
        equal_steps=equal_steps,
        apart=whole_number("apart", apart, least=1),
    )
    if ordering.apart > 1 and cut.crops_per_volume > 1:
        raise SettingsError(
            "apart= sets volumes apart, and crops_per_volume= gives several samples of one",
            seen=f"apart={apart!r} and crops_per_volume={crops_per_volume!r}",
            expected="one of the two",
        )
    deal = Deal(index, None if keys is None else _check_keys(keys, index), ordering)
    passes = Passes(deal, ordering.seed, cut.crops_per_volume)
    return VolumeDataset(passes, _Reader(ItemReader(asked, cut, room)), len(passes))


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

    ``len`` is the number of samples of one epoch, all nodes and workers together, without those
    that ``equal_steps`` repeats. Stages added with ``.map``, ``.to_tuple``, ``.batched`` or
    ``.select`` do not change it.
    """

    def __init__(self, passes: Passes, reader: _Reader, samples: int) -> None:
        super().__init__(_Turns(passes), reader)
        self._passes = passes
        self._samples = samples

    def __len__(self) -> int:
        return self._samples

    def __iter__(self) -> Iterator[Any]:
        # The epoch begins here and not with the first sample: torch makes all of a loader's
        # iterators first, and may drop one without asking it for anything.
        iteration = copy.copy(self)
        iteration.pipeline = [_Turns(self._passes, self._passes.begin()), *self.pipeline[1:]]
        return webdataset.DataPipeline.__iter__(iteration)  # type: ignore[no-any-return]

    def batched(
        self,
        batchsize: int,
        collation_fn: Callable[[list[Any]], Any] | None = default_collation_fn,
        partial: bool = True,
    ) -> VolumeDataset:
        """Return a pipeline of batches, as webdataset's own, but each as soon as it is whole.

        So `state_dict` counts the samples of the batches that were given, and no others.
        """
        made = self.compose(functools.partial(_batches, batchsize, collation_fn, partial))
        return made  # type: ignore[no-any-return]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, which decides who reads what.

        It reaches torch's workers too, also those that persist. A state of the same epoch that was
        loaded is resumed all the same; one of another epoch is dropped.

        Raises:
            SettingsError: it is negative.
        """
        self._passes.set_epoch(operator.index(epoch))

    def state_dict(self) -> dict[str, Any]:
        """Return the place of this process's last iteration, as a small dictionary for JSON.

        torchdata's ``StatefulDataLoader`` asks each worker for its own. The state counts the
        samples that were read: what a further stage holds back, such as the buffer of ``shuffle``,
        is lost.
        Taken after an epoch's last sample, it resumes with nothing, and then the next epoch.
        All pipelines that stages made of one dataset have its place in common.

        Raises:
            SettingsError: the samples were given by torch's workers and not here, or in a number
                that ``with_epoch`` or ``repeat`` sets.
        """
        if self.repetitions != 1:
            raise SettingsError(
                "with_epoch() and repeat() keep no place to resume from", expected="equal_steps="
            )
        return self._passes.state().model_dump()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the next iteration where ``state`` was taken, and read nothing before it.

        Samples, order and random crops are those that would have come.

        Raises:
            SettingsError: it is no state, or one of another dataset, worker, number of nodes or
                workers, or of other arguments that decide the order.
        """
        self._passes.load(state)


def _batches(
    size: int,
    collate: Callable[[list[Any]], Any] | None,
    partial: bool,
    samples: Iterable[Any],
) -> Iterator[Any]:
    batch: list[Any] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size:
            yield batch if collate is None else collate(batch)
            batch = []
    if batch and partial:
        yield batch if collate is None else collate(batch)


class _Turns:
    """The pipeline's first stage: the samples of one pass, and then of further ones."""

    def __init__(self, passes: Passes, *begun: Pass) -> None:
        self._passes = passes
        self._begun = list(begun)

    def __call__(self) -> Iterator[Turn]:
        return (self._begun.pop() if self._begun else self._passes.begin()).turns()


@dataclass
class _Reader:
    """The pipeline's last stage, which reads the samples."""

    items: ItemReader

    def __call__(self, turns: Iterator[Turn]) -> Iterator[dict[str, Any]]:
        for sample, rng, given, done in turns:
            for item in itertools.islice(self.items.read(sample, rng), given, None):
                done()
                yield item
                del item  # it was given away: the next one is read without it in memory
