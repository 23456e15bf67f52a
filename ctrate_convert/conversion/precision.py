"""A second opinion on precision: the shard's voxels against the source's, by numpy alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.conversion.readback import array_blocks
from ctrate_convert.formats.cast import BLOCK_VOXELS
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
    largest = total = 0.0
    with SourceVolume(source, settings.array_key) as volume:
        blocks = volume.blocks(BLOCK_VOXELS)
        theirs = in_c_order(blocks, volume.npy, volume.npy.dtype, scratch)
        for block, ours in _side_by_side(theirs, array_blocks(shard, array)):
            error = np.abs(block.astype(np.float64) - ours.astype(np.float64) * array.value_scale)
            error = error[np.isfinite(error)]
            largest = max(largest, float(error.max(initial=0.0)))
            total += float(error.sum())
    return Precision(
        key=sample.key,
        max_abs_error=largest,
        mean_abs_error=total / float(np.prod(array.shape)),
        recorded_max_abs_error=array.max_abs_error,
    )


def _side_by_side(
    ours: Iterator[NDArray[Any]], theirs: Iterator[NDArray[Any]]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Two rows of blocks cut to pieces of the same length."""
    left: NDArray[Any] = np.empty(0)
    for block in ours:
        while len(block):
            if not len(left):
                left = next(theirs)
            size = min(len(block), len(left), BLOCK_VOXELS)
            yield block[:size], left[:size]
            block, left = block[size:], left[size:]
