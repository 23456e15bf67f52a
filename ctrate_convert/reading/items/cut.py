"""Decide which part of each volume training code gets: all of it, crops, or one size for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from ctrate_convert.errors import SettingsError
from ctrate_convert.reading.boxes import CropAt, Shape, check_crop


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
    if isinstance(crops_per_volume, bool) or not (
        isinstance(crops_per_volume, int) and crops_per_volume >= 1
    ):
        raise SettingsError(
            "crops_per_volume is no number of crops", seen=crops_per_volume, expected="1 or more"
        )
    if not (math.isfinite(foreground) and 0 <= foreground <= 1):
        raise SettingsError("foreground is no share", seen=foreground, expected="0 to 1")
    if (crops_per_volume > 1 or foreground) and (crop is None or at != "random"):
        raise SettingsError(
            "crops_per_volume and foreground are about random crops",
            seen=f"crop={crop!r}, crop_at={at!r}", expected="crop=(128, 128, 128)",
        )  # fmt: skip
    if size is not None:
        return Cut(check_crop(size, "size"), "center", pad)
    wanted = None if crop is None else check_crop(crop)
    return Cut(wanted, at, pad, crops_per_volume, foreground)
