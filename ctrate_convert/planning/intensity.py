"""Tell from the scale of the voxels if a reader may add the table's RescaleIntercept.

CT-RATE's first release needs it, the corrected one must not get it, and both have the same table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ctrate_convert.formats.hounsfield import INTERCEPT_APPLIES
from ctrate_convert.store.records.record import Intensity

_NAMED = 3

_MEANING: dict[Intensity, str] = {
    "hu": "Hounsfield units",
    "raw-1024": "raw values, HU + 1024",
    "raw-8192": "raw values, HU + 8192",
    "normalised": "HU / 1000",
}


@dataclass(frozen=True)
class Scale:
    """The scale of a volume's voxels, and its RescaleIntercept in the table, verbatim."""

    key: str
    intensity: Intensity
    intercept: str


def error_in_hu(max_abs_error: float, intensity: Intensity) -> float:
    """Return an error given in the source's own unit in Hounsfield units."""
    return max_abs_error * (1000.0 if intensity == "normalised" else 1.0)


def intensity_notes(scales: Iterable[Scale]) -> list[str]:
    """Return notes on volumes of different scales, and on a table intercept that misleads."""
    known = [one for one in scales if one.intensity in _MEANING]
    by_scale = {
        meaning: [one.key for one in known if one.intensity == intensity]
        for intensity, meaning in _MEANING.items()
    }
    by_scale = {meaning: keys for meaning, keys in by_scale.items() if keys}
    notes = []
    if len(by_scale) > 1:
        parts = "; ".join(f"{_some(keys)} in {meaning}" for meaning, keys in by_scale.items())
        notes.append(
            f"the set is mixed: {parts}. Each sample's JSON tells its own scale in 'intensity'"
        )
    return notes + _intercept_notes(known)


def _intercept_notes(known: Sequence[Scale]) -> list[str]:
    shifted = [one for one in known if one.intensity not in INTERCEPT_APPLIES and _value(one)]
    raw = [one for one in known if one.intensity in INTERCEPT_APPLIES]
    fitting = [one for one in raw if _value(one) == INTERCEPT_APPLIES[one.intensity]]
    # The voxels show an offset, and the table has another one, or none.
    other = [one for one in raw if one not in fitting]
    notes = []
    if shifted:
        values = ", ".join(sorted({one.intercept for one in shifted}))
        notes.append(
            f"do not apply RescaleIntercept again: the table has {values} for "
            f"{_some([one.key for one in shifted])}, to whose voxels it was added already"
        )
    if fitting:
        notes.append(
            f"apply RescaleIntercept to get Hounsfield units: {_some([one.key for one in fitting])}"
            " in raw values, to which the table's intercept still has to be added"
        )
    if other:
        notes.append(
            "RescaleIntercept is not the one that the voxels show: "
            f"{_some([f'{one.key} ({one.intensity}, table {one.intercept})' for one in other])}"
        )
    return notes


def _value(scale: Scale) -> float:
    """Return the intercept as a number; 0 if the table has none."""
    try:
        return float(scale.intercept or 0)
    except ValueError:
        return 0.0


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _NAMED else ""
    noun = "volume" if len(names) == 1 else "volumes"
    return f"{len(names):,} {noun} ({', '.join(names[:_NAMED])}{more})"
