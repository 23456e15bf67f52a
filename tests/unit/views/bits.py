"""The SHA-256 of views of several grids, one line each.

``python -m tests.unit.views.bits > tests/unit/views/bits.txt`` writes the table that `test_bits`
compares with: only for another ``KERNEL_VERSION``, or for another preset.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ctrate_convert.store.records.recipe import KERNEL_VERSION, Output
from ctrate_convert.views.presets import presets
from ctrate_convert.views.view import View
from tests.unit.views.support import Array, Grid, facts, noise, read, sized, stored_as

TABLE = Path(__file__).with_name("bits.txt")

_GRIDS = (
    Grid((61, 47, 39), 0.7, 1.0, (48, 50, 24)),
    Grid((33, 38, 21), 0.9765625, 2.5, (41, 30, 33)),
    Grid((52, 50, 70), 0.341796875, 0.6, (30, 33, 28)),
)
_AXES = ("zyx", "xyz", "yxz")
_OUTPUTS: tuple[Output, ...] = ("int16", "uint8", "float16")
_ELEMENTS = ((1.0, 0.0, "int16"), (1000.0, 3.7, "float16"))


def lines(planes: int = 9) -> Iterator[str]:
    """Yield one line a view; volumes come in slabs of so many planes, which changes nothing."""
    yield f"kernel_version {KERNEL_VERSION}"
    for name, (number, grid), axes in itertools.product(presets(), enumerate(_GRIDS), _AXES):
        for slope, intercept, dtype in _ELEMENTS:
            xyz = (noise(grid.shape, number) / slope).astype(dtype)
            stored = stored_as(xyz, axes)
            letters = {"x": "L", "y": "A", "z": "I"}  # x and z are turned where RAS is asked for
            told = facts(
                stored, axes, grid, slope=slope, intercept=intercept,
                orientation="".join(letters[axis] for axis in axes),
            )  # fmt: skip
            output = _OUTPUTS[number]
            found = read(View(sized(name, grid.size, output=output), told), stored, planes)
            yield f"{name} {axes} {dtype} {number} {output} {_sha256(found)}"


def dispatched() -> list[str]:
    """Return the features of this machine that numpy uses beyond its baseline."""
    try:
        core = importlib.import_module("numpy._core._multiarray_umath")
    except ImportError:  # numpy 1
        core = importlib.import_module("numpy.core._multiarray_umath")
    return [name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]]


def _sha256(array: Array) -> str:
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()


if __name__ == "__main__":
    sys.stderr.write(f"numpy {np.__version__}, beyond its baseline: {dispatched()}\n")
    sys.stdout.writelines(f"{line}\n" for line in lines())
