"""Make rows of synthetic tables with CT-RATE's columns, half of them empty, and quoted texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctrate_convert.formats.members import LABEL_NAMES
from ctrate_convert.formats.names import VolumeName

_COLUMNS = """
VolumeName Manufacturer SeriesDescription ManufacturerModelName PatientSex PatientAge
ReconstructionDiameter DistanceSourceToDetector DistanceSourceToPatient GantryDetectorTilt
TableHeight RotationDirection ExposureTime XRayTubeCurrent Exposure FilterType GeneratorPower
FocalSpots ConvolutionKernel PatientPosition RevolutionTime SingleCollimationWidth
TotalCollimationWidth TableSpeed TableFeedPerRotation SpiralPitchFactor
DataCollectionCenterPatient ReconstructionTargetCenterPatient ExposureModulationType CTDIvol
ImagePositionPatient ImageOrientationPatient SliceLocation SamplesPerPixel
PhotometricInterpretation Rows Columns XYSpacing RescaleIntercept RescaleSlope RescaleType
NumberofSlices ZSpacing StudyDate
"""
METADATA_COLUMNS = tuple(_COLUMNS.split())
"""The metadata table's 44 columns, in its order."""

_FINDINGS = (
    'Trachea, both main bronchi are open. The "tree-in-bud" view seen before, has regressed.',
    "Heart contour, size are normal. Pericardial, pleural effusion was not detected.",
    "A nodule of 4 × 3 mm is observed in the right lung, upper lobe; it is stable.",
    "Minimal atelectasis, linear density in both lower lobes.",
)
_IMPRESSIONS = ("Millimetric nodule in the right lung, stable.", "Findings within normal limits.")
_CLINICAL = ("Cough, fever.", "Not given.", "")


def metadata_rows(
    names: Sequence[VolumeName], shape: tuple[int, int, int], seed: int
) -> dict[str, dict[str, str]]:
    """Return the metadata rows by key, with cells in the order of `METADATA_COLUMNS`."""
    rng = np.random.default_rng((seed, 0))
    return {name.key: _metadata_row(name, shape, rng) for name in names}


def _metadata_row(
    name: VolumeName, shape: tuple[int, int, int], rng: np.random.Generator
) -> dict[str, str]:
    spacing = float(rng.choice([0.341796875, 0.6875, 0.78125]))
    known = {
        "VolumeName": f"{name.key}.nii.gz",
        "Manufacturer": str(rng.choice(["Siemens Healthineers", "Philips", "PNMS"])),
        "SeriesDescription": "Thorax, 1.5 mm",
        "PatientSex": str(rng.choice(["M", "F"])),
        "PatientAge": f"{int(rng.integers(18, 95)):03d}Y",
        "ExposureTime": "500",
        "XRayTubeCurrent": str(int(rng.integers(80, 400))),
        "ConvolutionKernel": "['Br40f', '3']",
        "ImagePositionPatient": "[-174.6, -332.1, -21.5]",
        "ImageOrientationPatient": "[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]",
        "SamplesPerPixel": "1",
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": str(shape[0]),
        "Columns": str(shape[1]),
        "XYSpacing": f"[{spacing}, {spacing}]",
        "RescaleIntercept": "-8192" if rng.random() < 0.3 else "-1024",
        "RescaleSlope": "1",
        "RescaleType": "HU" if rng.random() < 0.33 else "",
        "NumberofSlices": str(shape[2]),
        "ZSpacing": str(rng.choice(["1.0", "1.5", "3.0"])),
        "StudyDate": f"20{int(rng.integers(15, 23))}0{int(rng.integers(1, 10))}14",
    }
    return dict.fromkeys(METADATA_COLUMNS, "") | known


def _of_scan(name: VolumeName, seed: int) -> np.random.Generator:
    """Return the random generator of a scan.

    It is the same for all reconstructions of the scan, which share one report and one set of
    labels.
    """
    return np.random.default_rng((seed, name.patient, ord(name.scan)))


def report_rows(names: Sequence[VolumeName], seed: int) -> list[list[str]]:
    """Return the rows of the report table: VolumeName and the four texts."""
    rows = []
    for name in names:
        rng = _of_scan(name, seed)
        findings = " ".join(str(text) for text in rng.permutation(_FINDINGS)[:3])
        impression = "" if rng.random() < 0.1 else str(rng.choice(_IMPRESSIONS))
        technique = "Without contrast, in supine position, 1.5 mm sections."
        clinical = str(rng.choice(_CLINICAL))
        rows.append([f"{name.key}.nii.gz", clinical, technique, findings, impression])
    return rows


def label_rows(names: Sequence[VolumeName], seed: int) -> list[list[str]]:
    """Return the rows of the label table: VolumeName and 18 cells of 0 or 1."""
    rows = []
    for name in names:
        present = _of_scan(name, seed).random(len(LABEL_NAMES)) < 0.2
        rows.append([f"{name.key}.nii.gz", *(str(int(value)) for value in present)])
    return rows
