"""A second opinion on precision: the shard's voxels against the source's, by numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctrate_convert.formats.cast import BLOCK_VOXELS
from ctrate_convert.formats.members import array_prefix
from ctrate_convert.formats.npz import SourceVolume
from ctrate_convert.formats.reorder import in_c_order
from ctrate_convert.schemas.plan import PlanSettings
from ctrate_convert.schemas.record import ConvertedSample


@dataclass(frozen=True)
class Precision:
    """How far one sample's voxels in the shard are from its source's, in the source's unit."""

    key: str
    max_abs_error: float
    mean_abs_error: float
    recorded_max_abs_error: float


def compare_with_source(
    source: Path, shard: Path, sample: ConvertedSample, settings: PlanSettings, scratch: Path
) -> Precision:
    """Read both and compare every voxel.

    Raises:
        SampleError: the source cannot be read.
        OSError: the shard cannot.
    """
    array = sample.array
    dtype = np.dtype(array.dtype).newbyteorder("<")
    prefix = array_prefix(settings.layout, dtype, array.shape)
    largest = total = 0.0
    with SourceVolume(source, settings.array_key) as volume, shard.open("rb") as stream:
        stream.seek(array.offset + len(prefix))
        blocks = volume.blocks(BLOCK_VOXELS)
        for block in in_c_order(blocks, volume.npy, volume.npy.dtype, scratch):
            ours = np.frombuffer(stream.read(block.size * dtype.itemsize), dtype)
            error = np.abs(block.astype(np.float64) - ours.astype(np.float64))
            error = error[np.isfinite(error)]
            largest = max(largest, float(error.max(initial=0.0)))
            total += float(error.sum())
    return Precision(
        key=sample.key,
        max_abs_error=largest,
        mean_abs_error=total / float(np.prod(array.shape)),
        recorded_max_abs_error=array.max_abs_error,
    )
