"""Estimate the disk space that a plan needs, from headers and texts, not from constants.

An uncompressed array's size follows exactly from its header, and a compressed one's from the probe.
The small members are built and measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.cast import output_dtype
from ctrate_convert.formats.geometry import geometry_of
from ctrate_convert.formats.members import LAYOUTS, AboutSource, small_members
from ctrate_convert.formats.npy_header import header_bytes
from ctrate_convert.store.records.geometry import NO_GEOMETRY
from ctrate_convert.store.records.plan import (
    ArrayHeader,
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
class SampleCost:
    """The bytes that one sample takes.

    ``volume_bytes``: its array uncompressed, in the source's type. ``output_bytes``: its members in
    the tar. ``scratch_bytes``: the temporary file that its conversion needs beside the tar.
    """

    source_bytes: int
    volume_bytes: int
    output_bytes: int
    scratch_bytes: int


def sample_cost(
    sample: PlannedSample, settings: PlanSettings, predicted_bytes: int | None = None
) -> SampleCost:
    """Return the cost of one sample; if its header is unknown, take its file's size for the array.

    ``predicted_bytes`` is the predicted size of its array in a compressing encoding; if it is None,
    the array counts uncompressed.
    """
    header = sample.header
    target = _target(header, settings)
    if header is None or target is None:
        volume_bytes = array_bytes = sample.source_size_bytes
        shape, target = (0, 0, 0), np.dtype(np.int16)
    else:
        voxels = math.prod(header.shape)
        volume_bytes = voxels * np.dtype(header.dtype).itemsize
        array_bytes = voxels * target.itemsize
        shape = _three(header.shape)
    geometry = geometry_of(header, sample.metadata) if header else NO_GEOMETRY
    about = AboutSource(header, geometry)
    members = small_members(sample, _typical_record(target, shape), about, settings.layout)
    small_bytes = [len(data) for _, data in members]
    small_bytes[0] += header.extra_bytes if header else 0  # in the JSON, the first member
    prefix = header_bytes(target, shape) if LAYOUTS[settings.layout].array_has_header else b""
    array_member = len(prefix) + array_bytes
    if settings.encoding != "npy" and predicted_bytes is not None:
        array_member = predicted_bytes
    # Conversion turns Fortran order into C order through a scratch file of the array's size;
    # a Blosc2 frame grows in one of its own.
    turned = array_bytes if header is not None and header.fortran_order else 0
    frame = array_member if settings.encoding == "b2nd" else 0
    return SampleCost(
        source_bytes=sample.source_size_bytes,
        volume_bytes=volume_bytes,
        output_bytes=_member(array_member) + sum(map(_member, small_bytes)),
        scratch_bytes=turned + frame,
    )


def tar_bytes(costs: Sequence[SampleCost]) -> int:
    """Return the size of a tar that holds these samples."""
    content = sum(cost.output_bytes for cost in costs) + _TAR_END
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


def _target(header: ArrayHeader | None, settings: PlanSettings) -> np.dtype[np.generic] | None:
    if header is None:
        return None
    try:
        return np.dtype(output_dtype(header.dtype, settings.dtype))
    except SampleError:
        return None


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    padded = (*shape, 1, 1, 1)
    return padded[0], padded[1], padded[2]


def _typical_record(dtype: np.dtype[np.generic], shape: tuple[int, int, int]) -> ArrayRecord:
    """Return a record with numbers as long as CT's are, to measure the JSON member."""
    whole = dtype.kind == "i"
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
