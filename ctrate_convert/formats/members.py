"""The members of a sample besides its array, in both layouts, and the names of all members.

``docs/shards.md`` gives the rules and their reasons: keys have no dots, every sample has the same
members and the same JSON keys and types, and missing values are empty, never null or NaN.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctrate_convert.formats.names import parse_key
from ctrate_convert.formats.npy_header import header_bytes
from ctrate_convert.store.records.plan import Encoding, Layout, PlannedSample
from ctrate_convert.store.records.record import ArrayRecord

LABEL_NAMES = (
    "Medical material",
    "Arterial wall calcification",
    "Cardiomegaly",
    "Pericardial effusion",
    "Coronary artery wall calcification",
    "Hiatal hernia",
    "Lymphadenopathy",
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
)
"""CT-RATE's 18 labels, in the order of its tables and of the label member."""

REPORT_FIELDS = {
    "ClinicalInformation_EN": "clinical_information",
    "Technique_EN": "technique",
    "Findings_EN": "findings",
    "Impressions_EN": "impressions",
}
"""The report table's columns and their names in the JSON member."""


@dataclass(frozen=True)
class LayoutNames:
    """The member suffixes of one layout. In ``array``, ``{}`` stands for the encoding.

    ``array_has_header`` is True if an npy header precedes the elements in the encoding npy.
    """

    array: str
    json: str
    report: str
    labels: str
    array_has_header: bool


LAYOUTS: dict[Layout, LayoutNames] = {
    "webdataset": LayoutNames("volume.{}", "json", "report.txt", "labels.npy", True),
    "ctclip": LayoutNames("bin", "json", "txt", "labels", False),
}


def array_member_name(key: str, layout: Layout, encoding: Encoding) -> str:
    """Return the array member's name, such as ``train_1_a_1.volume.npy``."""
    return f"{key}.{LAYOUTS[layout].array.format(encoding)}"


def small_members(
    sample: PlannedSample,
    array: ArrayRecord,
    source_key: str,
    layout: Layout,
    source_extra: Sequence[Mapping[str, object]] = (),
) -> list[tuple[str, bytes]]:
    """Return the name and content of each member besides the array.

    The same sample always gives the same bytes.
    """
    names = LAYOUTS[layout]
    labels = np.array([sample.labels[name] for name in LABEL_NAMES], "<f4")
    prefix = header_bytes(labels.dtype, labels.shape) if names.array_has_header else b""
    fields = _description(sample, array, source_key) | {"source_extra": list(source_extra)}
    if layout == "ctclip":
        fields = _ctclip_fields(sample, array) | fields
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    return [
        (f"{sample.key}.{names.json}", text.encode()),
        (f"{sample.key}.{names.report}", report_text(sample).encode()),
        (f"{sample.key}.{names.labels}", prefix + labels.tobytes()),
    ]


def report_text(sample: PlannedSample) -> str:
    """Return the findings, a line end and the impressions, like the original's text member."""
    return f"{sample.report['Findings_EN']}\n{sample.report['Impressions_EN']}"


def _description(sample: PlannedSample, array: ArrayRecord, source_key: str) -> dict[str, object]:
    name = parse_key(sample.key)
    return {
        "key": sample.key,
        "volume_name": sample.volume_name,
        "split": name.split if name else "",
        "patient": str(name.patient) if name else "",
        "scan": name.scan if name else "",
        "reconstruction": str(name.reconstruction) if name else "",
        "source_name": sample.source,
        "source_array_key": source_key,
        "shape": list(array.shape),
        "dtype": array.dtype,
        "encoding": array.encoding,
        "value_scale": array.value_scale,
        "intensity": array.intensity,
        "spacing_mm": spacing_mm(sample.metadata),
        "max_abs_error": array.max_abs_error,
        "value_min": array.value_min,
        "value_max": array.value_max,
        "report": {new: sample.report[old] for old, new in REPORT_FIELDS.items()},
        "labels": {label: sample.labels[label] for label in LABEL_NAMES},
        "metadata": sample.metadata,
    }


def _ctclip_fields(sample: PlannedSample, array: ArrayRecord) -> dict[str, object]:
    """Return the eight fields of the original script, with its names and types.

    A number that the table lacks is 0.0 here, since the JSON has no NaN and one type per key. The
    verbatim text is in ``metadata``.
    """
    metadata = sample.metadata
    return {
        "study_id": sample.key,
        "RescaleSlope": _number(metadata.get("RescaleSlope", "")) or 0.0,
        "RescaleIntercept": _number(metadata.get("RescaleIntercept", "")) or 0.0,
        "XYSpacing": metadata.get("XYSpacing", ""),
        "ZSpacing": _number(metadata.get("ZSpacing", "")) or 0.0,
        "original_shape": list(array.shape),
        "volume_shape": list(array.shape),
        "volume_dtype": array.dtype,
    }


def spacing_mm(metadata: dict[str, str]) -> list[float]:
    """Return [x, y, z] from XYSpacing and ZSpacing, or an empty list unless all are known."""
    try:
        # The table holds a Python list as text, such as [0.75, 0.75].
        in_plane = ast.literal_eval(metadata.get("XYSpacing", "") or "[]")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    through = _number(metadata.get("ZSpacing", ""))
    if not isinstance(in_plane, list) or len(in_plane) != 2 or through is None:
        return []
    x, y = (_number(str(value)) for value in in_plane)
    return [] if x is None or y is None else [x, y, through]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
