"""Decide which part of each volume training code gets: all of it, crops, or one size for all."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ctrate_convert.errors import SettingsError
from ctrate_convert.reading.boxes import CropAt, Shape, check_crop
from ctrate_convert.store.records.base import MAX_ARRAY_BYTES

_LEAST_ELEMENT_BYTES = 2
"""Most arrays are int16 or float16; those of four bytes get twice the limit."""


@dataclass(frozen=True)
class Cut:
    """How to cut a volume; `cut_of` makes it from the arguments of `open_dataset`.

    ``crop`` is None for whole volumes. ``pad`` is in the unit of the arrays, None for the smallest
    value of each volume. ``foreground`` is the share of crops whose centre lies in the body.
    """

    crop: Shape | None = None
    at: CropAt = "random"
    pad: float | None = None
    crops_per_volume: int = 1
    foreground: float = 0.0


def cut_of(
    crop: Sequence[int] | None,
    size: Sequence[int] | None,
    at: CropAt,
    pad: float | None,
    crops_per_volume: int,
    foreground: float,
) -> Cut:
    """Return the cut that these arguments of `open_dataset` ask for.

    Raises:
        SettingsError: an argument is not usable, or does not fit another.
    """
    if at not in get_args(CropAt):
        raise SettingsError("no such place for a crop", seen=at, expected="random or center")
    if crop is not None and size is not None:
        raise SettingsError(
            "crop= cuts a part, size= makes whole volumes equally large",
            seen=f"crop={crop!r} and size={size!r}", expected="one of them",
        )  # fmt: skip
    if pad is not None and (crop is None and size is None):
        raise SettingsError("pad= needs a shape", seen=f"pad={pad!r}", expected="crop= or size=")
    crops_per_volume = whole_number("crops_per_volume", crops_per_volume, least=1)
    if pad is not None and not _is_number(pad):
        raise SettingsError("pad is no number", seen=repr(pad))
    if not (_is_number(foreground) and 0 <= foreground <= 1):
        raise SettingsError("foreground is no share", seen=foreground, expected="0 to 1")
    if (crops_per_volume > 1 or foreground) and (crop is None or at != "random"):
        raise SettingsError(
            "crops_per_volume and foreground are about random crops",
            seen=f"crop={crop!r}, crop_at={at!r}", expected="crop=(128, 128, 128)",
        )  # fmt: skip
    if size is not None:
        return Cut(_checked(size, "size"), "center", pad)
    wanted = None if crop is None else _checked(crop, "crop")
    return Cut(wanted, at, pad, crops_per_volume, foreground)


def whole_number(name: str, value: Any, least: int = 0) -> int:
    """Return ``value``, the argument ``name``, as an integer; numpy's integers are integers too.

    Raises:
        SettingsError: it is none, or less than ``least``.
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise SettingsError(
            f"no usable {name}", seen=repr(value), expected=f"an integer, {least} or more"
        )
    return number


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _checked(wanted: Sequence[int], name: str) -> Shape:
    shape = check_crop(wanted, name)
    if math.prod(shape) * _LEAST_ELEMENT_BYTES > MAX_ARRAY_BYTES:
        raise SettingsError(
            f"{name} is too large for one array", seen=" × ".join(map(str, shape)),
            expected=f"{MAX_ARRAY_BYTES} bytes (2 GiB) at two bytes a voxel, or fewer",
        )  # fmt: skip
    return shape
