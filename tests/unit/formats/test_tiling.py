"""Boxes cut a volume of any shape into contiguous runs of bounded size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctrate_convert.formats.tiling import (
    Box,
    Shape,
    box_elements,
    box_shape,
    c_order_boxes,
    fortran_order_boxes,
)

Cut = Callable[[Shape, int], Iterator[Box]]

CUTS: list[tuple[Cut, str]] = [(c_order_boxes, "C"), (fortran_order_boxes, "F")]
BILLION = 10**9

shapes = st.tuples(*[st.integers(1, 9)] * 3)
huge_shapes = st.tuples(*[st.sampled_from([1, 2, 512, 70_000, BILLION])] * 3)


@pytest.mark.parametrize(("cut", "order"), CUTS)
@given(shape=shapes, most=st.integers(1, 800))
@example(shape=(1, 1, 9), most=4)
@example(shape=(9, 1, 1), most=4)
@example(shape=(2, 3, 4), most=24)
def test_boxes_are_the_runs_of_a_file(cut: Cut, order: str, shape: Shape, most: int) -> None:
    """One after the other, the boxes hold the elements as a file of that order does."""
    numbers = np.arange(np.prod(shape)).reshape(shape, order=order)  # type: ignore[call-overload]
    place = 0
    for box in cut(shape, most):
        found = numbers[box]
        assert found.shape == box_shape(box)
        assert 1 <= found.size == box_elements(box) <= most
        run = np.arange(place, place + found.size)
        assert np.array_equal(found, run.reshape(found.shape, order=order))  # type: ignore[call-overload]
        place += found.size
    assert place == numbers.size


@pytest.mark.parametrize(("cut", "order"), CUTS)
@given(shape=shapes, most=st.integers(1, 800))
def test_boxes_are_as_large_as_may_be(cut: Cut, order: str, shape: Shape, most: int) -> None:
    """A box cuts the fewest axes: whole planes, else whole rows of one plane, else one row."""
    inner = shape[::-1] if order == "F" else shape
    for box in cut(shape, most):
        size = box_shape(box)[::-1] if order == "F" else box_shape(box)
        if inner[1] * inner[2] <= most:
            assert size[1:] == inner[1:]
        elif inner[2] <= most:
            assert (size[0], size[2]) == (1, inner[2])
        else:
            assert size[:2] == (1, 1)


@pytest.mark.parametrize(("cut", "order"), CUTS)
@given(shape=huge_shapes, most=st.integers(1, 2**23))
def test_no_axis_is_too_long(cut: Cut, order: str, shape: Shape, most: int) -> None:
    """Where axes are a billion long, the first boxes are bounded, adjacent and there at once."""
    place = 0
    inner = shape[::-1] if order == "F" else shape
    for box in itertools.islice(cut(shape, most), 3):
        z, y, x = (part.start for part in (box[::-1] if order == "F" else box))
        assert (z * inner[1] + y) * inner[2] + x == place
        assert 1 <= box_elements(box) <= most
        place += box_elements(box)
