"""The members of a sample besides its array, in both layouts, and the names of all members.

``docs/shards.md`` gives the rules and their reasons: keys have no dots, every sample has the same
members and the same JSON keys and types, and missing values are empty, never null or NaN.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ctrate_convert.formats.geometry import number_in
from ctrate_convert.formats.names import parse_key
from ctrate_convert.formats.npy_header import header_bytes
from ctrate_convert.store.records.geometry import NO_GEOMETRY, Geometry
from ctrate_convert.store.records.plan import ArrayHeader, Encoding, Layout, PlannedSample
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


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


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


@dataclass(frozen=True)
class AboutSource:
    """The facts of a sample's JSON about its source, besides the tables.

    ``raw_header`` is the array's header as it stands in the file, and ``extra`` the other entries.
    ``more`` are fields that only some kinds of sources have.
    """

    header: ArrayHeader | None
    geometry: Geometry = NO_GEOMETRY
    raw_header: bytes = b""
    extra: Sequence[Mapping[str, object]] = ()
    more: Mapping[str, object] = field(default_factory=dict)


def small_members(
    sample: PlannedSample, array: ArrayRecord, about: AboutSource, layout: Layout
) -> list[tuple[str, bytes]]:
    """Return the name and content of each member besides the array.

    The same sample always gives the same bytes.
    """
    names = LAYOUTS[layout]
    labels = np.array([sample.labels[name] for name in LABEL_NAMES], "<f4")
    prefix = header_bytes(labels.dtype, labels.shape) if names.array_has_header else b""
    fields = _description(sample, array, about)
    if layout == "ctclip":
        fields = _ctclip_fields(sample, array, about) | fields
    text = _ENCODER.encode(fields)
    return [
        (f"{sample.key}.{names.json}", text.encode()),
        (f"{sample.key}.{names.report}", report_text(sample).encode()),
        (f"{sample.key}.{names.labels}", prefix + labels.tobytes()),
    ]


def report_text(sample: PlannedSample) -> str:
    """Return the findings, a line end and the impressions, like the original's text member."""
    return f"{sample.report['Findings_EN']}\n{sample.report['Impressions_EN']}"


def _description(
    sample: PlannedSample, array: ArrayRecord, about: AboutSource
) -> dict[str, object]:
    name = parse_key(sample.key)
    return {
        "key": sample.key,
        "volume_name": sample.volume_name,
        "split": name.split if name else "",
        # Numbers as text: an unknown one is empty, and a key has one type in all samples.
        "patient": str(name.patient) if name else "",
        "scan": name.scan if name else "",
        "reconstruction": str(name.reconstruction) if name else "",
        "source_name": sample.source,
        "source_kind": about.header.kind if about.header else "",
        "source_array_key": about.header.array_key if about.header else "",
        "shape": list(array.shape),
        "dtype": array.dtype,
        "encoding": array.encoding,
        "value_scale": array.value_scale,
        "intensity": array.intensity,
        **_geometry(about.geometry),
        "hu_slope": array.hu_slope,
        "hu_intercept": array.hu_intercept,
        "hu_from": array.hu_from,
        "max_abs_error": array.max_abs_error,
        "value_min": array.value_min,
        "value_max": array.value_max,
        "report": {new: sample.report[old] for old, new in REPORT_FIELDS.items()},
        "labels": {label: sample.labels[label] for label in LABEL_NAMES},
        "metadata": sample.metadata,
        "source_header_base64": base64.b64encode(about.raw_header).decode(),
        "source_extra": list(about.extra),
        **about.more,
    }


def _geometry(geometry: Geometry) -> dict[str, object]:
    fields = geometry.model_dump(mode="json", exclude={"contradiction"})
    return {"spacing_mm": fields.pop("spacing_mm"), **fields}


def _ctclip_fields(
    sample: PlannedSample, array: ArrayRecord, about: AboutSource
) -> dict[str, object]:
    """Return the eight fields of the original script, with its names and types.

    A number that the table lacks is 0.0 here, since the JSON has no NaN and one type per key. The
    verbatim text is in ``metadata``.
    """
    metadata = sample.metadata
    view = about.header.view if about.header else None
    return {
        "study_id": sample.key,
        "RescaleSlope": number_in(metadata, "RescaleSlope") or 0.0,
        "RescaleIntercept": number_in(metadata, "RescaleIntercept") or 0.0,
        "XYSpacing": metadata.get("XYSpacing", ""),
        "ZSpacing": number_in(metadata, "ZSpacing") or 0.0,
        "original_shape": list(view.native_shape if view else array.shape),
        "volume_shape": list(array.shape),
        "volume_dtype": array.dtype,
    }
