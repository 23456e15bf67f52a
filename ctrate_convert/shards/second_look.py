"""Check a source again if its largest error alone does not tell that it is within the bound.

Metal at 8,000 HU may lose 2 HU in float16 and a lung may not. The error that each voxel may have
follows from the spread of all voxels, which is known only after the first pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.bound import ErrorLimit
from ctrate_convert.formats.cast import BLOCK_VOXELS, Caster
from ctrate_convert.sources.kinds import open_source
from ctrate_convert.sources.source import Source


def largest_excess(
    volume: Source, caster: Caster, limit: ErrorLimit, on_bytes: Callable[[int], None]
) -> float:
    """Return the largest error that breaks its bound in ``limit``; 0.0 if none does.

    Read the file of ``volume`` again and cast it with ``caster``, which has seen it already.
    ``on_bytes`` is called with 0, since the bytes were counted before; it may raise to stop.

    Raises:
        SampleError: the source cannot be read, or is another file now.
    """
    largest = 0.0
    with open_source(volume.path, volume.header.array_key) as again:
        for block in again.blocks(BLOCK_VOXELS):
            on_bytes(0)
            largest = max(largest, limit.excess(block, _errors(block, caster)))
        if again.fingerprint(volume.path.name) != volume.fingerprint(volume.path.name):
            raise SampleError("source changed while it was read", where=volume.path)
    return largest


def _errors(values: NDArray[Any], caster: Caster) -> NDArray[Any]:
    """Return the error of each voxel, computed in arithmetic finer than both types."""
    finer = np.longdouble if values.dtype.itemsize == 8 else np.float64
    stored: NDArray[Any] = np.multiply(caster.cast(values), caster.value_scale, dtype=finer)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        errors: NDArray[Any] = np.abs(np.subtract(values, stored, dtype=finer))
    return errors
