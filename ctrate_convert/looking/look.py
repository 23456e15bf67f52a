"""What is shown of one volume: its cuts, and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.looking.cuts import Cuts

Window = tuple[str, float, float]
"""A name, and the values that are black and white."""

LUNG: Window = ("lung", -1350.0, 150.0)
"""Level -600, width 1500."""
SOFT_TISSUE: Window = ("soft tissue", -160.0, 240.0)
"""Level 40, width 400."""

TIMES = 100
"""How much a difference between shard and source is magnified."""


@dataclass(frozen=True)
class Known:
    """What is known about a volume; what is empty is not known.

    ``axes`` name the array's axes, first to last; ``orientation`` says where each of them leads.
    ``spacing_mm`` belongs to these axes. ``to_hu`` is the slope and the intercept that turn the
    array's elements into Hounsfield units, ``unit_from`` what tells so. ``view`` names the recipe and
    the volume of a view.
    """

    key: str
    where: str
    dtype: str
    axes: str = ""
    orientation: str = ""
    spacing_mm: tuple[float, ...] = ()
    geometry_from: str = ""
    to_hu: tuple[float, float] | None = None
    intensity: str = ""
    unit_from: str = ""
    labels: tuple[str, ...] = ()
    findings: str = ""
    view: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """One volume as it is shown; ``cuts`` are in Hounsfield units if these are known.

    ``source`` are the cuts of the volume's source in the same unit, if it was read too.
    """

    known: Known
    cuts: Cuts
    source: Cuts | None = None
    _range: list[float] = field(default_factory=list, repr=False)

    @property
    def in_hu(self) -> bool:
        """True if the values are Hounsfield units."""
        return self.known.to_hu is not None

    @property
    def windows(self) -> tuple[Window, ...]:
        """The windows to show the volume in: by its own values if no unit is known."""
        if self.in_hu:
            return LUNG, SOFT_TISSUE
        values = self.cuts.values[np.isfinite(self.cuts.values)]
        low, high = np.percentile(values, (1, 99)) if values.size else (0.0, 1.0)
        return (("own range", float(low), float(max(high, low + 1e-6))),)

    def facts(self) -> list[tuple[str, str]]:
        """Return names and values of the facts, for people."""
        known = self.known
        unknown = "not known"
        unit = f"HU ({known.unit_from})" if self.in_hu else f"{unknown}; the values as they are"
        facts = [
            ("volume", known.key),
            ("in", known.where),
            ("array", f"{' × '.join(map(str, self.cuts.shape))}, {known.dtype}"),
            ("view", known.view),
            ("axes", f"{known.axes or unknown}, leading to {known.orientation or unknown}"),
            ("spacing", _millimetres(known.spacing_mm) or unknown),
            ("geometry from", known.geometry_from or "no evidence"),
            ("values", f"{unit}; scale {known.intensity or unknown}"),
            ("range", _range_words(self.cuts.values, "HU" if self.in_hu else "")),
            ("labels", ", ".join(known.labels)),
            ("findings", known.findings),
            *(("note", note) for note in known.notes),
        ]
        if self.source is not None:
            largest = max(
                float(np.max(np.abs(a - b), initial=0.0))
                for a, b in zip(self.cuts.planes, self.source.planes, strict=True)
            )
            unit = " HU" if self.in_hu else ""
            facts.append(("from the source", f"at most {largest:.4g}{unit} in these planes"))
        return [(name, value) for name, value in facts if value]


def _millimetres(spacing: tuple[float, ...]) -> str:
    return " × ".join(f"{size:.4g}" for size in spacing) + " mm" if spacing else ""


def _range_words(values: NDArray[np.float32], unit: str) -> str:
    if not values.size:
        return ""
    low, middle, high = np.percentile(values, (0, 50, 100))
    return f"{low:.5g} to {high:.5g} {unit}".rstrip() + f", median {middle:.5g} (of a part)"
