"""Why b2nd stores arrays as it does: other codecs, filters, blocks and axis orders, side by side.

One thing is changed at a time. Each is Blosc2 alone, in memory: no tar, no digest, no disk. At
most two filters: with three, Blosc2 4.14.1 overwrites the caller's array.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import blosc2
import numpy as np
from blosc2 import Codec, Filter, SplitMode
from numpy.typing import NDArray

from benchmarks.measure import Cost, Spread, cost_of, in_turns
from benchmarks.report import Table
from benchmarks.volumes import volumes_in_memory
from ctrate_convert.formats.codecs.b2nd import chunks_and_blocks
from ctrate_convert.store.records.plan import ChunkShape

FULL_ROUNDS = 7
QUICK_ROUNDS = 2

_SMALLER = 1.01
_ENCODE_MB_PER_S, _DECODE_MB_PER_S = 400, 800

Array = NDArray[Any]
Blocks = Callable[[tuple[int, ...]], tuple[int, ...]]
"""The shape of the blocks, by that of the chunk."""


@dataclass(frozen=True)
class Way:
    """One set of choices; the defaults are b2nd's own."""

    name: str = "what we use: zstd 1, SHUFFLE + BYTEDELTA, cube, last axis along the body"
    codec: Any = Codec.ZSTD
    level: int = 1
    filters: tuple[Any, ...] = (Filter.SHUFFLE, Filter.BYTEDELTA)
    split: Any = SplitMode.ALWAYS_SPLIT
    chunk_shape: ChunkShape = "cube"
    blocks: Blocks | None = None
    offset: int = 0
    slices_first: bool = False

    def encode(self, hu: Array) -> Any:
        """``hu`` as a Blosc2 array in memory."""
        values = hu + np.int16(self.offset) if self.offset else hu
        chunk, block = chunks_and_blocks(values.shape, values.itemsize, self.chunk_shape)
        array = blosc2.empty(
            values.shape,
            dtype=values.dtype,
            chunks=chunk,
            blocks=self.blocks(chunk) if self.blocks else block,
            contiguous=True,
            cparams=blosc2.CParams(
                codec=self.codec,
                clevel=self.level,
                nthreads=1,
                filters=list(self.filters),
                filters_meta=[0] * len(self.filters),
                splitmode=self.split,
            ),
            dparams=blosc2.DParams(nthreads=1),
        )
        array.set_slice(((0, 0, 0), values.shape), values)
        return array

    def decode(self, array: Any) -> Array:
        """All of it, as it was given."""
        hu = np.empty(array.shape, array.dtype)
        array.get_slice_numpy(hu, ((0, 0, 0), array.shape))
        if self.offset:
            hu -= np.int16(self.offset)
        return hu

    def oriented(self, hu: Array) -> Array:
        """``hu``, whose last axis runs along the body, in this way's order of axes."""
        return np.ascontiguousarray(hu.transpose(2, 0, 1)) if self.slices_first else hu


def _cubes(edge: int) -> Blocks:
    return lambda chunk: (min(edge, chunk[0]), min(edge, chunk[1]), min(edge, chunk[2]))


OURS = Way()

WAYS = (
    OURS,
    replace(OURS, name="codec zstd 3", level=3),
    replace(OURS, name="codec lz4", codec=Codec.LZ4),
    replace(OURS, name="codec lz4hc 1", codec=Codec.LZ4HC),
    replace(OURS, name="codec zlib 1", codec=Codec.ZLIB),
    replace(OURS, name="filter SHUFFLE", filters=(Filter.SHUFFLE,)),
    replace(OURS, name="filter BITSHUFFLE", filters=(Filter.BITSHUFFLE,)),
    replace(
        OURS, name="filters BITSHUFFLE + BYTEDELTA", filters=(Filter.BITSHUFFLE, Filter.BYTEDELTA)
    ),
    replace(OURS, name="filter DELTA", filters=(Filter.DELTA,)),
    replace(OURS, name="filters DELTA + SHUFFLE", filters=(Filter.DELTA, Filter.SHUFFLE)),
    replace(OURS, name="bytes of an element in one stream", split=SplitMode.NEVER_SPLIT),
    replace(OURS, name="HU + 128", offset=128),
    replace(OURS, name="blocks: slab", chunk_shape="slab"),
    replace(OURS, name="blocks: 32-cube", blocks=_cubes(32)),
    replace(OURS, name="blocks: 16-cube", blocks=_cubes(16)),
    replace(OURS, name="blocks: slices", blocks=lambda chunk: (chunk[0], chunk[1], 1)),
    replace(OURS, name="blocks: rows of the first axis", blocks=lambda chunk: (1, *chunk[1:])),
    replace(OURS, name="slices first", slices_first=True),
)


@dataclass(frozen=True)
class _Figures:
    way: Way
    ratio: float
    encode: float
    decode: float
    crop: float

    @classmethod
    def of(cls, way: Way, hu: Array, ratio: float, costs: Sequence[list[Cost]]) -> _Figures:
        encode, decode, crop = (Spread.of(one.cpu_s for one in seen).median for seen in costs)
        mega = hu.nbytes / 1e6
        return cls(way, ratio, mega / encode, mega / decode, decode / crop)

    def row(self) -> list[str]:
        return [
            self.way.name,
            f"{self.ratio:.3f}×",
            f"{self.encode:,.0f}",
            f"{self.decode:,.0f}",
            f"{self.crop:.1f}×",
        ]

    def beats(self, ours: _Figures) -> bool:
        """Smaller by what can be called so, and fast enough."""
        fast = self.encode >= _ENCODE_MB_PER_S and self.decode >= _DECODE_MB_PER_S
        return fast and self.ratio >= _SMALLER * ours.ratio


def tables(rounds: int) -> list[Table]:
    """One table a volume."""
    os.environ["BLOSC_NTHREADS"] = "1"  # for the index of a frame, as b2nd sets it
    return [_table(title, hu, rounds) for title, hu in volumes_in_memory()]


def _table(title: str, hu: Array, rounds: int) -> Table:
    given = [way.oriented(hu) for way in WAYS]
    arrays = [way.encode(values) for way, values in zip(WAYS, given, strict=True)]
    for way, values, array in zip(WAYS, given, arrays, strict=True):
        if not np.array_equal(way.decode(array), values):
            raise RuntimeError(f"{way.name} does not give back what it was given")
    steps: list[Callable[[], object]] = []
    for way, values, array in zip(WAYS, given, arrays, strict=True):
        steps += [
            functools.partial(way.encode, values),
            functools.partial(way.decode, array),
            functools.partial(_crop, array),
        ]
    costs = in_turns([functools.partial(cost_of, one) for one in steps], rounds, settled=False)
    figures = [
        _Figures.of(way, hu, hu.nbytes / array.schunk.cbytes, costs[3 * number :][:3])
        for number, (way, array) in enumerate(zip(WAYS, arrays, strict=True))
    ]
    better = [one.way.name for one in figures if one.beats(figures[0])]
    return Table(
        f"Alternatives to what b2nd does: {title}, {'×'.join(map(str, hu.shape))}",
        ["one thing changed", "smaller than int16", "encode", "decode", "crop"],
        [one.row() for one in figures],
        [
            "Lossless, Blosc2 in memory, MB of int16 per CPU second of one core, medians. Crop: "
            "how many times as fast as the whole a box of half its edges is read.",
            f"Smaller than what we use by {_SMALLER - 1:.0%} or more, encoding at "
            f"{_ENCODE_MB_PER_S} MB/s and decoding at {_DECODE_MB_PER_S} MB/s or more: "
            f"{'; '.join(better) or 'none'}.",
            "HU + 128 keeps BYTEDELTA from stumbling over soft tissue, where the high byte "
            "changes; every reader would have to take the 128 away again.",
        ],
    )


def _crop(array: Any) -> None:
    first = tuple(size // 4 for size in array.shape)
    crop = tuple(max(1, size // 2) for size in array.shape)
    end = tuple(start + size for start, size in zip(first, crop, strict=True))
    array.get_slice_numpy(np.empty(crop, array.dtype), (first, end))
