"""Estimate the disk space that a plan needs, from headers and texts, not from constants.

An uncompressed array's size follows exactly from its header, and a compressed one's from the probe.
The small members are built and measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.cast import stored_dtype
from ctrate_convert.formats.members import LAYOUTS, AboutSource, small_members
from ctrate_convert.formats.npy_header import header_bytes
from ctrate_convert.store.records.geometry import Geometry
from ctrate_convert.store.records.plan import (
    ArrayHeader,
    DType,
    Encoding,
    PlannedSample,
    PlannedShard,
    PlanSettings,
)
from ctrate_convert.store.records.record import ArrayRecord

# A tar has blocks of 512 bytes, ends with two empty ones, and is padded to records of 20 blocks.
_TAR_BLOCK = 512
_TAR_END = 1024
_TAR_RECORD = 10240


@dataclass(frozen=True, slots=True)
class SampleSizes:
    """The bytes that one sample takes where nothing is compressed.

    ``volume_bytes``: its array in the source's type. ``array_bytes``: its array's member in the
    tar, ``beside_bytes``: the other members with their tar headers. ``turned_bytes``: the scratch
    file that an array in Fortran order needs.
    """

    source_bytes: int
    volume_bytes: int
    array_bytes: int
    beside_bytes: int
    turned_bytes: int


@dataclass(frozen=True, slots=True)
class SampleCost:
    """The bytes that one sample takes in the plan's encoding.

    ``output_bytes``: its members in the tar. ``scratch_bytes``: the temporary file that its
    conversion needs beside the tar.
    """

    output_bytes: int
    scratch_bytes: int


def sample_sizes(sample: PlannedSample, settings: PlanSettings, geometry: Geometry) -> SampleSizes:
    """Return the sizes of one sample; if its header is unknown, take its file's for the array.

    ``geometry`` is that of its array, as far as it is known.
    """
    header = sample.header
    target = _target(header, settings.dtype) if header else None
    if header is None or target is None:
        volume_bytes = array_bytes = sample.source_size_bytes
        shape, target = (0, 0, 0), np.dtype(np.int16)
    else:
        voxels = math.prod(header.shape)
        volume_bytes = voxels * np.dtype(header.dtype).itemsize
        array_bytes = voxels * target.itemsize
        shape = _three(header.shape)
    view = header.view if header else None
    more = {"view": view.as_json()} if view else {}
    about = AboutSource(header, geometry, more=more)
    members = small_members(sample, _typical_record(target, shape), about, settings.layout)
    small_bytes = [len(data) for _, data in members]
    small_bytes[0] += header.extra_bytes if header else 0  # in the JSON, the first member
    prefix_bytes = 0
    if LAYOUTS[settings.layout].array_has_header:
        prefix_bytes = len(header_bytes(target, shape))
    return SampleSizes(
        source_bytes=sample.source_size_bytes,
        volume_bytes=volume_bytes,
        array_bytes=prefix_bytes + array_bytes,
        beside_bytes=sum(map(_member, small_bytes)),
        # Conversion turns Fortran order into C order through a scratch file of the array's size.
        turned_bytes=array_bytes if header is not None and header.fortran_order else 0,
    )


def sample_cost(
    array_bytes: int,
    beside_bytes: int,
    turned_bytes: int,
    encoding: Encoding,
    predicted: int | None,
) -> SampleCost:
    """Return the cost of a sample with these `SampleSizes` in ``encoding``.

    ``predicted`` is the predicted size of its array in a compressing encoding; if it is None, the
    array counts uncompressed.
    """
    if encoding != "npy" and predicted is not None:
        array_bytes = predicted
    # A Blosc2 frame grows in a scratch file of its own.
    frame_bytes = array_bytes if encoding == "b2nd" else 0
    return SampleCost(_member(array_bytes) + beside_bytes, turned_bytes + frame_bytes)


def tar_bytes(output_bytes: Iterable[int]) -> int:
    """Return the size of a tar that holds samples of so many bytes each."""
    content = sum(output_bytes) + _TAR_END
    return -(-content // _TAR_RECORD) * _TAR_RECORD


def peak_extra_bytes(shards: Sequence[PlannedShard], *, deleting: bool, workers: int = 1) -> int:
    """Return the most that disk use grows while ``workers`` convert ``shards``.

    The largest shards come first, as in a run, and one more shard is being written and read back.

    Without deletion the growth is the whole output and one scratch file for each worker. With
    deletion along the way, each published shard has freed its sources before the next one begins,
    so the peak is the largest excess of the shards under way over the bytes freed by then. Sources
    of failed samples stay, which a prediction cannot know.
    """
    scratch = workers * max((shard.estimated_scratch_bytes for shard in shards), default=0)
    shards = sorted(shards, key=lambda shard: shard.source_bytes, reverse=True)
    output = [shard.estimated_output_bytes for shard in shards]
    if not deleting:
        return sum(output) + scratch
    peak = grown = 0
    # One more shard than workers: a run begins it while another is read back.
    at_once = workers + 1
    under_way = sum(output[:at_once])
    for index, shard in enumerate(shards):
        peak = max(peak, grown + under_way)
        grown += shard.estimated_output_bytes - shard.source_bytes
        under_way -= shard.estimated_output_bytes
        under_way += sum(output[index + at_once :][:1])
    return max(peak, grown) + scratch


def _target(header: ArrayHeader, setting: DType) -> np.dtype[np.generic] | None:
    try:
        return np.dtype(stored_dtype(header, setting))
    except SampleError:
        return None


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    padded = (*shape, 1, 1, 1)
    return padded[0], padded[1], padded[2]


@lru_cache(maxsize=1024)
def _typical_record(dtype: np.dtype[np.generic], shape: tuple[int, int, int]) -> ArrayRecord:
    """Return a record with numbers as long as CT's are, to measure the JSON member."""
    whole = dtype.kind in "iu"
    return ArrayRecord.model_construct(
        name="",
        offset=0,
        size_bytes=0,
        dtype="int16" if whole else "float16",
        shape=shape,
        encoding="npy",
        blake3="",
        stored_blake3=None,
        value_scale=1.0,
        intensity="unknown",
        max_abs_error=0.0 if whole else 0.000244140625,
        value_min=-1024.0 if whole else -1.0,
        value_max=3071.0 if whole else 1.0,
        nan_count=0,
        infinite_count=0,
        hu_slope=1.0,
        hu_intercept=0.0,
        hu_from="the voxels",
    )


def _member(payload_bytes: int) -> int:
    return _TAR_BLOCK + -(-payload_bytes // _TAR_BLOCK) * _TAR_BLOCK
