"""Read samples by key, each at its recorded place: nothing before it in the shard is touched."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import DamageError
from ctrate_convert.formats.affines import Affine, permuted, rows_of
from ctrate_convert.reading.asked import Asked, Units, put_in_unit
from ctrate_convert.reading.boxes import CropAt, Shape, parse_index, whole
from ctrate_convert.reading.cache import make_cache_folder, open_shard
from ctrate_convert.reading.images import to_metatensor, to_nibabel, to_sitk
from ctrate_convert.reading.index import ArrayMember, Index, StoredSample
from ctrate_convert.reading.items.by_number import NumberedSamples
from ctrate_convert.reading.items.cut import cut_of
from ctrate_convert.reading.items.item import ItemReader
from ctrate_convert.reading.items.tensors import Arrays, Tensors
from ctrate_convert.reading.look import look_at
from ctrate_convert.reading.samples import (
    read_json,
    read_labels,
    read_report,
    read_source_extra,
)
from ctrate_convert.reading.viewed import Viewed, reader_of, with_view
from ctrate_convert.store.records.geometry import Axes
from ctrate_convert.store.records.recipe import Recipe, ViewAxes
from ctrate_convert.views.presets import find_recipe

if TYPE_CHECKING:
    import nibabel
    import SimpleITK
    from PIL import Image

_SHOWN = 20


class StoredArray:
    """A volume that stays in its shard: each index reads and decodes no more than it must.

    Indexing takes integers, slices with any step, and an ellipsis, and returns what numpy would
    return: a new, writable array, or a scalar. `dtype` is the stored type (int16, float16, or int32
    if the integers do not fit int16), whose elements times `value_scale` are in the source's unit;
    with units ``source`` or ``hu`` it is float32, in that unit already. ``npy`` reads the requested
    rows, ``b2nd`` decodes the blocks that hold them, and ``npy.gz`` has to inflate everything from
    the first plane to the last one needed. Of a view, each index resamples no more than it must.

    Raises:
        DamageError: on indexing, the shard does not hold what its record says.
        EnvironmentProblem: on indexing, the shard cannot be read.
    """

    def __init__(self, sample: StoredSample, asked: Asked | Viewed) -> None:
        self._shard = sample.shard
        self._array: ArrayMember = sample.array
        self._asked = asked
        self.shape: Shape = asked.shape(sample.array)
        self.dtype: np.dtype[Any] = asked.dtype(sample.array)
        as_stored = isinstance(asked, Asked) and asked.units == "stored"
        self.value_scale: float = sample.array.value_scale if as_stored else 1.0

    ndim = 3

    @property
    def size(self) -> int:
        """The number of voxels."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        box, rest = parse_index(index, self.shape)
        # Opened for each access: nothing stays open that could not be pickled or shared with a
        # fork.
        with open_shard(self._shard) as file:
            found = self._asked.read(file, self._array, box)
        taken = found[rest]
        # A small view would keep the whole box in memory, with all that a step leaves out.
        return taken.copy() if taken.size < found.size else taken

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        # numpy's protocol asks for this error where an array cannot be had without a copy.
        if copy is False:
            raise ValueError("a volume in a shard has to be copied into memory")
        with open_shard(self._shard) as file:
            found = self._asked.read(file, self._array, whole(self.shape))
        return found if dtype is None else found.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"<StoredArray {self.dtype} {self.shape} in {self._shard.path}>"


class Sample:
    """A sample that reads each part from its shard on access, and keeps nothing.

    Raises:
        DamageError: on each access, the shard does not hold what its record says.
        EnvironmentProblem: on each access, the shard cannot be read.
    """

    def __init__(self, stored: StoredSample, asked: Asked) -> None:
        self._stored = stored
        self._asked = asked

    @property
    def key(self) -> str:
        """The sample's key, ``train_1_a_1``."""
        return self._stored.key

    @property
    def shard(self) -> str:
        """The path of the sample's shard."""
        return self._stored.shard.path

    @property
    def array(self) -> StoredArray:
        """The volume: slice it, or pass it to ``numpy.asarray`` to read all of it.

        Raises:
            SampleError: it is to be a view, and what that needs of this sample is not known.
        """
        return StoredArray(self._stored, self._reader)

    @property
    def axes(self) -> Axes | ViewAxes:
        """The axes of `array`, first to last, such as ``zyx``; empty if that is not known."""
        if self._asked.view is not None:
            return self._asked.view.axes
        return self._asked.axes or self._stored.array.axes

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """The 4×4 matrix from an index of `array` to RAS+ mm; None if it is not known."""
        affine = self._affine
        return np.array(affine) if affine else None

    @property
    def spacing(self) -> tuple[float, ...]:
        """The distance in mm between neighbours along each axis of `array`; empty if not known."""
        reader = self._reader
        if isinstance(reader, Viewed):
            return reader.view.spacing_mm
        stored = self._fields.get("spacing_axes_mm", [])
        order = self._asked.order(self._stored.array)
        return tuple(stored[axis] for axis in order) if stored else ()

    def hu(self) -> NDArray[np.float32]:
        """Return the whole volume, or the whole view, in Hounsfield units.

        Raises:
            SampleError: it is not known how its values become Hounsfield units.
        """
        reader = self._reader
        if isinstance(reader, Viewed):
            elements = np.asarray(StoredArray(self._stored, reader))
            values = np.empty(elements.shape, np.float32)
            put_in_unit(elements, values, reader.view.elements.to_hu)
            return values
        asked = replace(self._asked, units="hu")
        return np.asarray(StoredArray(self._stored, asked))

    def show(self) -> Image.Image:
        """Return a picture: three planes in their windows, a histogram and the facts.

        It has the grid, the axes and the unit of the shard, whatever was asked for.
        """
        from ctrate_convert.looking.picture import picture

        return picture(look_at(self._stored))

    def _repr_html_(self) -> str:
        from ctrate_convert.looking.page import figure

        return figure(look_at(self._stored))

    def to_nibabel(self) -> nibabel.Nifti1Image:
        """Return the whole volume as a nibabel image, in Hounsfield units if they are known.

        Raises:
            SampleError: its affine is not known.
        """
        return to_nibabel(self._values(), self._affine, self.key)

    def to_sitk(self) -> SimpleITK.Image:
        """Return the whole volume as a SimpleITK image, in Hounsfield units if they are known.

        Raises:
            SampleError: its affine is not known.
        """
        return to_sitk(self._values(), self._affine, self.key)

    def to_metatensor(self) -> Any:
        """Return the whole volume as a MONAI ``MetaTensor`` with one channel, else as `to_nibabel`.

        Raises:
            SampleError: its affine is not known.
        """
        return to_metatensor(self._values(), self._affine, self.key)

    def _values(self) -> NDArray[Any]:
        if self._asked.view is not None:
            return self.hu()
        units: Units = "hu" if self._stored.array.hu_slope else "source"
        return np.asarray(StoredArray(self._stored, replace(self._asked, units=units)))

    @property
    def _affine(self) -> Affine:
        reader = self._reader
        if isinstance(reader, Viewed):
            return reader.view.affine
        rows = self._fields.get("affine", [])
        return permuted(rows_of(rows), self._asked.order(self._stored.array)) if rows else ()

    @property
    def json(self) -> dict[str, Any]:
        """The fields that ``docs/shards.md`` lists; of a view also ``view``, which tells its place.

        Raises:
            SampleError: as for `array`.
        """
        fields = self._fields
        return with_view(fields, reader_of(self._asked, self._stored.array, fields))

    @property
    def _fields(self) -> dict[str, Any]:
        with open_shard(self._stored.shard) as file:
            return read_json(file, self._stored)

    @property
    def _reader(self) -> Asked | Viewed:
        if self._asked.view is None:
            return self._asked
        return reader_of(self._asked, self._stored.array, self._fields)

    @property
    def source_extra(self) -> dict[str, Any]:
        """The entries beside the volume in a source NPZ, by their names without ``.npy``.

        An array's value is the array; that of an entry with JSON is the parsed JSON; that of
        another file is its bytes. Nothing is ever unpickled. A comment of the NPZ itself has the
        name ``""``.
        """
        with open_shard(self._stored.shard) as file:
            return read_source_extra(file, self._stored)

    @property
    def report(self) -> str:
        """The report: findings, line end, impressions."""
        with open_shard(self._stored.shard) as file:
            return read_report(file, self._stored)

    @property
    def labels(self) -> NDArray[np.float32]:
        """The labels, float32, (18,), in the order of the label table."""
        with open_shard(self._stored.shard) as file:
            return read_labels(file, self._stored)

    def __repr__(self) -> str:
        return f"<Sample {self.key} in {self.shard}>"


class Volumes(Mapping[str, Sample]):
    """The published samples of the dataset directory ``out`` by key, in shard order.

    Opening reads the manifest and every record once, and no shard. ``units``: ``stored`` gives
    arrays as they lie in the shard, ``source`` gives float32 in the source's own unit, ``hu`` gives
    float32 in Hounsfield units. ``axes`` gives them with these axes, first to last. ``view`` gives
    what a recipe makes of each volume, with its own unit and axes: the name of a preset such as
    ``ctclip``, the path of a TOML file, or a `Recipe`. With a view, ``assume_axes`` are the axes of
    volumes whose shards do not tell them. ``cache`` is a folder on a disk of this machine, to which
    a shard is copied when one of its samples is first read, as by `open_dataset`.

    An integer gives the sample of that number as a dictionary that is read at once, so torch's
    ``DataLoader`` and its samplers take the mapping as it is; `dataset` does that with crops, or
    one size for all.

    The mapping may be pickled, and shared between threads and with forked processes. It leaves out
    the samples of a shard whose record is missing, damaged, or not the merged one:
    `DamagedShardWarning` names the shard, and `damaged` holds the reason.

    Raises:
        SettingsError: there is no manifest in ``out``, or no shard; or no such units, axes or view;
            or ``out`` is a URL or a file; or the cache folder cannot be used.
        DamageError: two shards hold the same sample, or no shard has a sound record.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        units: Units = "stored",
        axes: Axes = "",
        view: str | os.PathLike[str] | Recipe | None = None,
        assume_axes: Axes = "",
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        self._asked = Asked(units, axes, None if view is None else find_recipe(view), assume_axes)
        self._samples: dict[str, StoredSample] = {}
        index = Index(out, "" if cache is None else make_cache_folder(cache))
        self.damaged: dict[str, str] = index.damaged
        """The shards whose samples are left out, by name, with the reason."""
        for sample in index:
            if sample.key in self._samples:
                raise DamageError(
                    "two shards hold the same sample",
                    where=sample.key,
                    seen=f"{self._samples[sample.key].shard.path}, {sample.shard.path}",
                    next_command=sample.shard.next_command,
                )
            self._samples[sample.key] = sample
        index.sound_shards()

    @overload
    def __getitem__(self, key: str) -> Sample: ...

    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...

    def __getitem__(self, key: str | int) -> Sample | dict[str, Any]:
        if isinstance(key, str):
            return Sample(self._samples[key], self._asked)
        return self._numbered[key]

    def get(self, key: Any, default: Any = None, /) -> Any:
        """Return the sample of this key or number, or ``default`` if there is none."""
        if isinstance(key, (int, np.integer)):
            return self[int(key)] if -len(self) <= key < len(self) else default
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._samples

    def dataset(
        self,
        *,
        crop: Sequence[int] | None = None,
        crop_at: CropAt = "random",
        foreground: float = 0.0,
        size: Sequence[int] | None = None,
        pad: float | None = None,
        seed: int | None = None,
        tensors: bool = False,
    ) -> NumberedSamples:
        """Return a map-style dataset of the same samples in the same order, for torch's samplers.

        Sample ``n`` is a dictionary of what collates: ``array``, ``origin``, ``labels``, ``report``
        and ``__key__``. The arguments are those of `open_dataset`. With a ``seed`` a sample's crop
        depends on nothing but its number and the epoch, `NumberedSamples.set_epoch`.

        Raises:
            SettingsError: an argument is not usable, or torch is needed and not installed.
        """
        cut = cut_of(crop, size, crop_at, pad, 1, foreground)
        room = Tensors() if tensors else Arrays()
        reader = ItemReader(self._asked, cut, room)
        return NumberedSamples(tuple(self._samples.values()), reader, seed)

    @functools.cached_property
    def _numbered(self) -> NumberedSamples:
        return self.dataset()

    def __iter__(self) -> Iterator[str]:
        return iter(self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __repr__(self) -> str:
        return f"<Volumes: {len(self)} samples>"

    def _repr_html_(self) -> str:
        """Return a table of the first samples: a notebook shows it without reading a volume."""
        from ctrate_convert.looking.page import table

        rows = [
            (one.key, " × ".join(map(str, one.array.shape)), one.array.dtype, one.array.encoding)
            for one in itertools.islice(self._samples.values(), _SHOWN)
        ]
        title = f"{len(self):,} samples" + (f", the first {_SHOWN}" if len(self) > _SHOWN else "")
        return table(title, ("key", "shape", "type", "encoding"), rows)
