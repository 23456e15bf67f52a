"""Show planes in a terminal: half blocks, two rows of pixels in one of text; works over ssh."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from ctrate_convert.looking.look import Look, Window
from ctrate_convert.looking.picture import planes_image

_HALF = "▀"
_RESET = "\x1b[0m"
_SHADES = " .:-=+*#%@"


def as_text(look: Look, columns: int, window: Window, *, colour: bool) -> list[str]:
    """Return lines of text that show the three planes, ``columns`` wide at most.

    Without ``colour`` they are made of characters that grow darker.
    """
    strip = planes_image(look, look.cuts, window)
    # A character is about twice as high as wide: a half of it is a square.
    rows = max(2, round(strip.height * columns / strip.width))
    rows += rows % 2
    pixels = np.asarray(strip.resize((columns, rows)))
    if not colour:
        steps = pixels[::2].astype(int) * len(_SHADES) // 256
        return ["".join(_SHADES[step] for step in row).rstrip() for row in steps]
    exact = has_exact_colours(os.environ)
    return [
        "".join(_cell(int(above), int(below), exact) for above, below in zip(*pair, strict=True))
        + _RESET
        for pair in zip(pixels[::2], pixels[1::2], strict=True)
    ]


def has_exact_colours(environment: Mapping[str, str]) -> bool:
    """Return True if the terminal says that it shows 24-bit colours."""
    return environment.get("COLORTERM", "") in ("truecolor", "24bit")


def _cell(above: int, below: int, exact: bool) -> str:
    if exact:
        return f"\x1b[38;2;{above};{above};{above};48;2;{below};{below};{below}m{_HALF}"
    return f"\x1b[38;5;{_grey_256(above)};48;5;{_grey_256(below)}m{_HALF}"


def _grey_256(level: int) -> int:
    """Return the number of the nearest of the 24 greys in the palette of 256, or black or white."""
    step = (level - 3) // 10
    return 16 if step < 0 else 231 if step > 23 else 232 + step
