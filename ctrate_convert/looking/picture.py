"""Draw one volume as a picture: planes in their windows, at their true aspect, and a histogram."""

from __future__ import annotations

import base64
import io
import textwrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ctrate_convert.looking.cuts import Cuts
from ctrate_convert.looking.look import TIMES, Look, Window
from ctrate_convert.looking.planes import Plane, planes_of

_HEIGHT = 240
_GAP = 8
_LINE = 18
_FONT = ImageFont.load_default(13)
_CHARACTER = 7  # pixels, about
_BACKGROUND, _TEXT, _FAINT = 16, 235, 150
_HISTOGRAM_HU = (-1100.0, 1500.0)


def picture(look: Look) -> Image.Image:
    """Return the whole picture: planes, histogram and facts."""
    rows = [_strip(look, look.cuts, window, f"{window[0]} window") for window in look.windows]
    if look.source is not None:
        first = look.windows[0]
        rows.append(_strip(look, look.source, first, f"the source, {first[0]} window"))
        rows.append(_difference(look, look.source))
    width = max(row.width for row in rows)
    facts = _facts(look, max(width, 640))
    histogram = _histogram(look, max(width, 640))
    parts = [*rows, histogram, facts]
    height = sum(part.height + _GAP for part in parts)
    whole = Image.new(
        "L", (max(part.width for part in parts) + 2 * _GAP, height + _GAP), _BACKGROUND
    )
    top = _GAP
    for part in parts:
        whole.paste(part, (_GAP, top))
        top += part.height + _GAP
    return whole


def png(picture: Image.Image) -> bytes:
    """Return the picture as PNG."""
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return data.getvalue()


def data_url(picture: Image.Image) -> str:
    """Return the picture as a link that holds it."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


def planes_image(look: Look, cuts: Cuts, window: Window, height: int = _HEIGHT) -> Image.Image:
    """Return the three planes side by side, without letters."""
    drawn = [_drawn(plane, window, height) for plane in planes_of(look.known, cuts)]
    width = sum(one.width + _GAP for one in drawn) - _GAP
    strip = Image.new("L", (width, max(one.height for one in drawn)), _BACKGROUND)
    left = 0
    for one in drawn:
        strip.paste(one, (left, 0))
        left += one.width + _GAP
    return strip


def _strip(look: Look, cuts: Cuts, window: Window, title: str) -> Image.Image:
    planes = planes_of(look.known, cuts)
    drawn = [_drawn(plane, window, _HEIGHT) for plane in planes]
    for plane, one in zip(planes, drawn, strict=True):
        _letter(one, plane.letters)
    width = sum(one.width + _GAP for one in drawn) - _GAP
    strip = Image.new("L", (width, _HEIGHT + _LINE), _BACKGROUND)
    pen = ImageDraw.Draw(strip)
    left = 0
    for number, (plane, one) in enumerate(zip(planes, drawn, strict=True)):
        name = f"{plane.name}, {title}" if number == 0 else plane.name
        pen.text((left, 0), name, fill=_FAINT, font=_FONT)
        strip.paste(one, (left, _LINE))
        left += one.width + _GAP
    return strip


def _difference(look: Look, source: Cuts) -> Image.Image:
    """Draw shard minus source, magnified; grey is equal."""
    one, two, three = (
        (mine - other) * np.float32(TIMES)
        for mine, other in zip(look.cuts.planes, source.planes, strict=True)
    )
    cuts = Cuts(look.cuts.shape, (one, two, three), look.cuts.values[:0])
    return _strip(look, cuts, ("", -500.0, 500.0), f"shard - source, x{TIMES}, grey: equal")


def grey(values: NDArray[np.float32], window: Window) -> NDArray[np.uint8]:
    """Return the values in a window as grey levels; what is not finite is black."""
    _, low, high = window
    with np.errstate(invalid="ignore"):
        level = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low)
    return np.asarray(np.clip(level * 255 + 0.5, 0, 255), np.uint8)


def _drawn(plane: Plane, window: Window, height: int) -> Image.Image:
    """Draw a plane at its true aspect: ``height`` pixels high, or twice as wide and less high."""
    rows, columns = plane.values.shape
    high_mm, wide_mm = rows * plane.mm[0], columns * plane.mm[1]
    scale = min(height / high_mm, 2 * height / wide_mm)
    width, height = max(1, round(wide_mm * scale)), max(1, round(high_mm * scale))
    small = Image.fromarray(np.ascontiguousarray(grey(plane.values, window)))
    return small.resize((width, height), Image.Resampling.BILINEAR)


def _letter(drawn: Image.Image, letters: str) -> None:
    """Write the directions at the edges."""
    if not letters:
        return
    pen = ImageDraw.Draw(drawn)
    left, right, top, bottom = tuple(letters)
    middle = drawn.height // 2 - 8
    for place, letter in (
        ((3, middle), left),
        ((drawn.width - 12, middle), right),
        ((drawn.width // 2 - 3, 2), top),
        ((drawn.width // 2 - 3, drawn.height - 18), bottom),
    ):
        # A dark edge keeps a letter readable on white bone.
        pen.text(place, letter, fill=255, font=_FONT, stroke_width=1, stroke_fill=0)


def histogram(look: Look, bins: int) -> tuple[NDArray[np.int64], float, float]:
    """Return counts of a part of the voxels, and the values at both ends; few lie beyond them."""
    values = look.cuts.values[np.isfinite(look.cuts.values)]
    low, high = _HISTOGRAM_HU
    if not look.in_hu:
        low, high = np.percentile(values, (0.1, 99.9)) if values.size else (0.0, 1.0)
        high = max(high, low + 1e-6)
    counts, _ = np.histogram(values, bins, (float(low), float(high)))
    return counts, float(low), float(high)


def _histogram(look: Look, width: int) -> Image.Image:
    height = 64
    counts, low, high = histogram(look, width)
    levels = np.log1p(counts) / max(1e-9, float(np.log1p(counts.max(initial=1))))
    columns = np.arange(height)[::-1, None] < levels[None, :] * height
    shown = np.where(columns, np.uint8(_FAINT), np.uint8(_BACKGROUND + 12))
    strip = Image.new("L", (width, height + 2 * _LINE), _BACKGROUND)
    pen = ImageDraw.Draw(strip)
    unit = "HU" if look.in_hu else "values"
    pen.text((0, 0), f"voxels by {unit}, logarithmic", fill=_FAINT, font=_FONT)
    strip.paste(Image.fromarray(np.ascontiguousarray(shown)), (0, _LINE))
    ticks = np.linspace(low, high, 5)
    if look.in_hu:
        ticks = np.array([-1000.0, -500.0, 0.0, 500.0, 1000.0])
    for tick in ticks:
        at = int((tick - low) / (high - low) * (width - 1))
        text = f"{tick:.4g}"
        room = width - _CHARACTER * len(text)
        pen.text(
            (max(0, min(at - 3 * len(text), room)), _LINE + height), text, fill=_FAINT, font=_FONT
        )
        pen.line((at, _LINE + height - 4, at, _LINE + height), fill=_TEXT)
    return strip


def _facts(look: Look, width: int) -> Image.Image:
    characters = width // _CHARACTER
    lines: list[tuple[str, str]] = []
    for name, value in look.facts():
        # Not every font has a multiplication sign.
        words = value.replace("×", "x")
        for number, text in enumerate(textwrap.wrap(words, max(20, characters - 18))[:3]):
            lines.append((name if number == 0 else "", text))
    strip = Image.new("L", (width, _LINE * len(lines) + 4), _BACKGROUND)
    pen = ImageDraw.Draw(strip)
    for number, (name, text) in enumerate(lines):
        pen.text((0, number * _LINE), name, fill=_FAINT, font=_FONT)
        pen.text((110, number * _LINE), text, fill=_TEXT, font=_FONT)
    return strip
