"""The error bound: percentiles of a part of a volume, and what each voxel may lose."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ctrate_convert.formats.bound import ErrorLimit, Spread
from tests.support import Array

HALF = np.dtype("<f2")
SHORT = np.dtype("<i2")


def percentiles(values: Array, block: int = 1000) -> tuple[float, float]:
    spread = Spread(len(values))
    for start in range(0, len(values), block):
        spread.add(values[start : start + block])
    return spread.percentiles()


def noise(shape: int | tuple[int, ...], scale: float = 1.0) -> Array:
    return (np.random.default_rng(7).normal(size=shape) * scale).astype(np.float32)


@pytest.mark.parametrize("dtype", ["bool", "u1", "<i2", ">i4", "<u8", "<f2", ">f4", "<f8"])
def test_percentiles_of_every_type(dtype: str) -> None:
    """The percentiles of a small volume are numpy's to the voxel, whatever its type."""
    values = (noise(50_000) * 40 + 120).clip(0, 255).astype(dtype)
    low, high = percentiles(values)
    as_doubles = values.astype(np.float64)
    assert low == np.percentile(as_doubles, 0.1, method="higher")
    assert high == np.percentile(as_doubles, 99.9, method="lower")


@pytest.mark.parametrize("shape", [(64, 256, 256), (77, 255, 195), (1, 1, 3_000_001)])
def test_percentiles_of_a_part(shape: tuple[int, ...]) -> None:
    """Those of a large volume come from a part of it, and lie near the true ones."""
    values = noise(shape).reshape(-1)
    low, high = percentiles(values, 2**17)
    below = float((values < low).mean())
    above = float((values > high).mean())
    assert 0.0007 < below < 0.0013
    assert 0.0007 < above < 0.0013


@pytest.mark.parametrize("shape", [(128, 17, 255), (3, 1024, 1023), (601, 701, 5), (35, 173, 173)])
def test_no_column_is_all_that_is_seen(shape: tuple[int, ...]) -> None:
    """A stride meets every column of a row alike, so that no empty border stands for a chest."""
    values = np.zeros(shape, np.float32)
    values[..., 1:] = noise((*shape[:2], shape[2] - 1), 0.3)
    low, high = percentiles(values.reshape(-1))
    assert low < -0.5 < 0.5 < high


@given(st.integers(1, 2**33))
def test_how_much_is_kept(num_voxels: int) -> None:
    """At most 2^18 voxels are kept, all of a volume that has no more, and never very few."""
    stride = Spread(num_voxels)._stride
    kept = -(-num_voxels // stride)
    assert stride % 2 == 1
    assert math.gcd(stride, num_voxels) == 1
    assert min(num_voxels, 2**14) <= kept <= 2**18
    assert num_voxels > 2**18 or kept == num_voxels


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=30))
def test_blocks_do_not_matter(lengths: list[int]) -> None:
    """The same voxels give the same percentiles, however they are cut into blocks."""
    values = noise(600_000)
    spread = Spread(len(values))
    start = 0
    for length in [*lengths, len(values)]:
        spread.add(values[start : start + length])
        start += length
    assert spread.percentiles() == percentiles(values, 2**17)


def test_what_is_not_finite_does_not_count() -> None:
    """NaN and infinities are passed over; with nothing else both percentiles are 0."""
    values = noise(5000)
    gaps = np.insert(values, [0, 17, 4000], [np.nan, np.inf, -np.inf])
    assert percentiles(gaps) == percentiles(values)
    assert percentiles(np.full(9, np.nan)) == (0.0, 0.0)
    assert percentiles(np.empty(0)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], (3.0, 3.0)),
        ([1.0, 2.0], (1.0, 2.0)),
        ([5.0, 1.0, 2.0], (2.0, 2.0)),
        ([*[1.0, 2.0] * 60, 1e6], (1.0, 2.0)),
    ],
)
def test_few_voxels(values: list[float], expected: tuple[float, float]) -> None:
    """One outlier is outside the spread, of however few voxels."""
    assert percentiles(np.array(values)) == expected


def test_the_bound_within_follows_the_spread() -> None:
    """Within the percentiles a step counts for nothing; the spread alone does."""
    for step in (1e-6, 0.001, 10.0):
        limit = ErrorLimit.of(-1.0, 1.0, SHORT, step, None)
        assert limit.within == 2.0**-9
        assert limit.holds_everywhere(2.0**-9)
        assert not limit.holds_everywhere(2.0**-9 + 1e-9)
        assert limit.excess(np.array([1.0, -1.0]), np.array([2.0**-9, 0.01])) == 0.01


def test_the_bound_outside_is_the_types_own() -> None:
    """Metal may lose half a unit in the last place of float16, or half a step, and no more."""
    half = ErrorLimit.of(-1000.0, 1000.0, HALF, 1.0, None)
    metal = np.array([8000.0, 30000.0])
    assert half.excess(metal, np.array([3.9, 14.6])) == 0.0
    assert half.excess(metal, np.array([4.0, 14.6])) == 4.0
    steps = ErrorLimit.of(-1.0, 1.0, SHORT, 0.5, None)
    assert steps.excess(np.array([8.2, -3.0]), np.array([0.25, 0.25])) == 0.0
    assert steps.excess(np.array([8.2, -3.0]), np.array([0.25, 0.2501])) == 0.2501


@given(hnp.arrays(np.float32, 40, elements=st.floats(-65504, 65504, width=32)))
def test_every_float16_is_within_its_precision(values: Array) -> None:
    """Rounding to float16 breaks no bound of voxels that lie outside."""
    errors = np.abs(values.astype(np.float64) - values.astype(np.float16))
    limit = ErrorLimit.of(1e5, 2e5, HALF, 1.0, None)
    assert limit.excess(values, errors) == 0.0


def test_one_value_may_lose_a_part_of_itself() -> None:
    """Where the spread is 0 the value's own size takes its place, and 0 must stay 0."""
    of = ErrorLimit.of
    assert of(0.1, 0.1, HALF, 1.0, None).holds_everywhere(abs(0.1 - float(np.float16(0.1))))
    assert not of(1e-9, 1e-9, HALF, 1.0, None).holds_everywhere(1e-9)
    assert not of(-0.3, -0.3, SHORT, 10.0, None).holds_everywhere(0.3)
    assert of(0.0, 0.0, SHORT, 10.0, None).within == 0.0


def test_max_error_is_the_only_bound() -> None:
    """What a person allows bounds every voxel alike, more or less than the rest would."""
    limit = ErrorLimit.of(-1.0, 1.0, HALF, 1.0, 0.5)
    assert limit.holds_everywhere(0.5)
    assert limit.excess(np.array([0.0, 40000.0]), np.array([0.5, 0.5])) == 0.0
    assert limit.excess(np.array([0.0, 40000.0]), np.array([0.5, 0.6])) == 0.6
    assert ErrorLimit.of(0, 0, HALF, 1.0, 0.0).excess(np.zeros(2), np.zeros(2)) == 0.0


def test_errors_that_are_no_numbers() -> None:
    """A finite voxel that became NaN or infinite breaks any bound; one that was not, none."""
    values = np.array([np.nan, np.inf, -np.inf, 1.0])
    for max_error in (None, 5.0):
        limit = ErrorLimit.of(0.0, 2.0, HALF, 1.0, max_error)
        assert limit.excess(values, np.array([np.nan, np.nan, np.inf, 0.0])) == 0.0
        assert limit.excess(values, np.array([0.0, 0.0, 0.0, np.nan])) == np.inf
        assert limit.excess(values, np.array([0.0, 0.0, 0.0, np.inf])) == np.inf


def test_integers_and_longdoubles() -> None:
    """Integer values and errors in extended precision are compared as they are."""
    limit = ErrorLimit.of(-1000, 1000, HALF, 1.0, None)
    values = np.array([-1000, 0, 8001], np.int16)
    assert limit.excess(values, np.array([0.5, 0.5, 1.0], np.longdouble)) == 0.0
    assert limit.excess(values, np.array([0.5, 0.5, 4.0])) == 4.0
