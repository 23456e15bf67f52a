"""Draw a chart with matplotlib as SVG that lives in a page: its colours are the page's variables.

Texts stay texts. The same facts give the same bytes, whatever a person's own matplotlibrc says.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ctrate_convert.reporting.course import Outcome

NARROW, WIDE = 360, 900
"""Widths of charts in the units of their texts: a phone or a column, and the whole page."""

INK, MUTED, LINE = "#0a0b01", "#0a0b02", "#0a0b03"
FIRST, SECOND, THIRD = "#0a0b04", "#0a0b05", "#0a0b06"
OUTCOMES = {
    Outcome.DONE: "#0a0b11",
    Outcome.PARTLY: "#0a0b12",
    Outcome.INTERRUPTED: "#0a0b13",
    Outcome.OPEN: "#0a0b14",
    Outcome.FAILED: "#0a0b15",
}
"""Stand-ins, which no chart has by chance; the page's style gives each variable its colour."""

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    FIRST: "--first",
    SECOND: "--second",
    THIRD: "--third",
    **{colour: f"--{outcome.name.lower()}" for outcome, colour in OUTCOMES.items()},
}

_POINTS = 72.0
_TEXT = 10.5

_SETTINGS: dict[str, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ctrate-convert",
    "text.parse_math": False,  # a node's name may have a dollar sign
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": _TEXT,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": _TEXT,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": _TEXT,
    "ytick.labelsize": _TEXT,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": _TEXT,
    "legend.labelcolor": INK,
    "date.converter": "concise",
}

_PREAMBLE = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_ROOT = re.compile(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', re.DOTALL)
_COMMENT = re.compile(r"\s*<!--.*?-->", re.DOTALL)
_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(?:xlink:)?href="#([^"]+)"')
_URL = re.compile(r"url\(#([^)]+)\)")
_PATH = re.compile(r' d="[^"]*"')
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_FONT = re.compile(r"font: ([\d.]+px) [^;\"]*")


def svg(name: str, about: str, width: int, height: int, draw: Callable[[Axes], None]) -> str:
    """Return a chart of one pair of axes as SVG; ``about`` says what it shows, for who cannot see.

    ``name`` is unique on the page, and ``about`` is HTML already.
    """
    with _own_settings():
        figure = Figure(figsize=(width / _POINTS, height / _POINTS), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return _for_a_page(text.getvalue(), name, about, width)


@contextmanager
def _own_settings() -> Iterator[None]:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def _for_a_page(text: str, name: str, about: str, width: int) -> str:
    text = _METADATA.sub("", _COMMENT.sub("", _PREAMBLE.sub("", text)))
    text = _ID.sub(rf'id="{name}-\1"', text)
    text = _REFERENCE.sub(rf'href="#{name}-\1"', text)
    text = _URL.sub(rf"url(#{name}-\1)", text)
    text = _PATH.sub(lambda found: _DECIMALS.sub(r"\1", found[0]), text)
    text = _FONT.sub(r"font-size: \1", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    style = f"max-width: {width * 1.2:.0f}px"
    root = f'<svg viewBox="\\1" role="img" aria-label="{about}" style="{style}">'
    return _ROOT.sub(root, text, count=1).strip()
