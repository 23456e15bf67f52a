"""Write a small CT-RATE of synthetic patients with the names, columns and oddities of the data set.

CT-RATE itself is gated, so the demo and the tests use this one.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats import nifti
from ctrate_convert.formats.affines import rows_of
from ctrate_convert.formats.geometry import table_spacing_mm
from ctrate_convert.formats.members import LABEL_NAMES, REPORT_FIELDS
from ctrate_convert.formats.names import VolumeName
from ctrate_convert.synthetic.clinical_tables import (
    METADATA_COLUMNS,
    label_rows,
    metadata_rows,
    report_rows,
)
from ctrate_convert.synthetic.phantom import chest_phantom

Layout = Literal["nested", "nested_joined", "flat"]
"""``train_1/train_1_a/…``, ``train_1/train_1a/…`` as CT-RATE also has it, or all in one folder."""

Kind = Literal["volume", "arr_0", "data", "arr", "resampled", "bare", "nii.gz", "nii"]
"""The ways in which a file stores its volume.

NPZ on the table's grid, whose key is the kind: ``volume``: int16 HU, deflated, with a JSON entry
beside it. ``arr_0``: float32 HU/1000, slices first, deflated. ``data``: int16 before slope and
intercept, stored. ``arr``: int16 HU, deflated, Fortran order. NPZ on another grid, so that the
table contradicts it: ``resampled`` is as ``volume``, and its JSON tells the grid; ``bare`` is as
``arr_0``, and nothing tells. NIfTI: ``nii.gz`` and ``nii``, int16 HU as CT-RATE publishes them.
"""

NPZ_KINDS: tuple[Kind, ...] = ("volume", "arr_0", "data", "arr")
NIFTI_KINDS: tuple[Kind, ...] = ("nii.gz", "nii")

Fault = Literal["corrupt", "no_report", "excluded", "duplicate"]

_RESAMPLED_MM = (0.75, 0.75, 1.5)
"""The spacing of the other grid, of rows, columns and slices: what training code resamples to."""


@dataclass(frozen=True)
class SyntheticCtRate:
    """The files that were written. ``keys`` are all volumes in natural order, faulty ones too.

    ``faults`` maps a key to its fault. ``without_volume`` is a key that is in all three tables but
    has no file. ``without_spacing`` is a key whose ZSpacing cell is empty.
    """

    data_folder: Path
    reports_file: Path
    meta_file: Path
    labels_file: Path
    exclude_file: Path
    keys: tuple[str, ...]
    sources: Mapping[str, Path]
    kinds: Mapping[str, Kind]
    faults: Mapping[str, Fault]
    without_volume: str
    without_spacing: str


def write_synthetic_ctrate(
    folder: Path,
    *,
    samples: int = 12,
    seed: int = 0,
    shape: tuple[int, int, int] = (64, 64, 24),
    split: Literal["train", "valid"] = "train",
    layout: Layout = "nested",
    kinds: Sequence[Kind] = NPZ_KINDS,
    faults: Iterable[Fault] = (),
) -> SyntheticCtRate:
    """Write ``samples`` volumes of ``shape`` (rows, columns, slices) and their tables.

    The same arguments give the same bytes. The volumes take the ``kinds`` in turn. Each of
    ``faults`` is given to a different sample: ``corrupt`` flips a bit in its data (an NPZ's kind is
    then ``data``), ``no_report`` omits its report, ``excluded`` puts it on the exclusion list, and
    ``duplicate`` writes it to a second folder too.

    Raises:
        ValueError: there are fewer samples than faults.
    """
    rng = np.random.default_rng(seed)
    names = _names(samples + 1, split, rng)
    absent = names.pop()
    befallen = list(faults)
    if len(befallen) > samples:
        raise ValueError(f"{len(befallen)} faults need as many samples, not {samples}")
    fault_of: dict[str, Fault] = {
        names[place].key: fault
        for place, fault in zip(rng.permutation(samples), befallen, strict=False)
    }
    kind_of: dict[str, Kind] = {
        name.key: _kind(kinds[index % len(kinds)], fault_of.get(name.key))
        for index, name in enumerate(names)
    }
    metadata = metadata_rows([*names, absent], shape, seed)
    without_spacing = next((n.key for n in names if n.key not in fault_of), names[0].key)
    metadata[without_spacing]["ZSpacing"] = ""

    data_folder = folder / ("nifti" if set(kinds) <= set(NIFTI_KINDS) else "npz")
    sources: dict[str, Path] = {}
    for index, name in enumerate(names):
        own = np.random.default_rng((seed, index))
        kind = kind_of[name.key]
        data = _file(kind, shape, metadata[name.key], own)
        suffix = kind if kind in NIFTI_KINDS else "npz"
        path = data_folder / _place(name, layout) / f"{name.key}.{suffix}"
        fault = fault_of.get(name.key)
        if fault == "corrupt":
            # In an NPZ the array is stored, so the middle byte of the file is a voxel.
            data[len(data) // 2] ^= 0x40
        if fault == "duplicate":
            _write(data_folder / "second_download" / path.name, data)
        _write(path, data)
        sources[name.key] = path
    paths = _write_tables(folder, split, [*names, absent], fault_of, metadata, seed)
    return SyntheticCtRate(
        data_folder=data_folder,
        reports_file=paths["reports"],
        meta_file=paths["metadata"],
        labels_file=paths["labels"],
        exclude_file=paths["no_chest"],
        keys=tuple(name.key for name in names),
        sources=sources,
        kinds=kind_of,
        faults=fault_of,
        without_volume=absent.key,
        without_spacing=without_spacing,
    )


def _names(count: int, split: str, rng: np.random.Generator) -> list[VolumeName]:
    """Return the names of ``count`` volumes.

    Patient numbers have gaps, some patients have two scans, and a scan has up to three
    reconstructions.
    """
    names: list[VolumeName] = []
    patient = 1
    while len(names) < count:
        for scan in "ab"[: 1 + int(rng.random() < 0.3)]:
            reconstructions = 2 if not names else int(rng.integers(1, 4))
            names += [VolumeName(split, patient, scan, n + 1) for n in range(reconstructions)]
        patient += int(rng.integers(1, 4))
    return names[:count]


def _place(name: VolumeName, layout: Layout) -> Path:
    if layout == "flat":
        return Path()
    patient = f"{name.split}_{name.patient}"
    joint = "_" if layout == "nested" else ""
    return Path(patient) / f"{patient}{joint}{name.scan}"


def _table_paths(folder: Path, split: str) -> dict[str, Path]:
    """Return the paths of CT-RATE's tables, whose names spell the validation split in two ways."""
    long = "validation" if split == "valid" else split
    return {
        "reports": folder / f"{long}_reports.csv",
        "metadata": folder / f"{long}_metadata.csv",
        "labels": folder / f"{split}_predicted_labels.csv",
        "no_chest": folder / f"no_chest_{split}.txt",
    }


def _write_tables(
    folder: Path,
    split: str,
    names: Sequence[VolumeName],
    fault_of: Mapping[str, Fault],
    metadata: Mapping[str, Mapping[str, str]],
    seed: int,
) -> dict[str, Path]:
    paths = _table_paths(folder, split)
    reported = [name for name in names if fault_of.get(name.key) != "no_report"]
    _write_csv(paths["reports"], ["VolumeName", *REPORT_FIELDS], report_rows(reported, seed))
    _write_csv(paths["labels"], ["VolumeName", *LABEL_NAMES], label_rows(names, seed))
    rows = [list(row.values()) for row in metadata.values()]
    _write_csv(paths["metadata"], METADATA_COLUMNS, rows, line_end="\r\n")
    listed = [key for key, fault in fault_of.items() if fault == "excluded"]
    lines = [f"/old/storage/{split}/{key}.nii.gz\n" for key in listed]
    _write(paths["no_chest"], "".join(lines).encode())
    return paths


def _kind(kind: Kind, fault: Fault | None) -> Kind:
    return "data" if fault == "corrupt" and kind not in NIFTI_KINDS else kind


def _file(
    kind: Kind, shape: tuple[int, int, int], row: Mapping[str, str], rng: np.random.Generator
) -> bytearray:
    intercept = int(row["RescaleIntercept"])
    if kind in ("resampled", "bare"):
        native_mm = _native_mm(row)
        shape = tuple(  # type: ignore[assignment]
            max(1, round(size * native / other))
            for size, native, other in zip(shape, native_mm, _RESAMPLED_MM, strict=True)
        )
    hounsfield = chest_phantom(shape, rng, padding_hu=intercept)
    if kind in NIFTI_KINDS:
        return bytearray(_nifti(hounsfield, row, compressed=kind == "nii.gz"))
    return _npz(kind, hounsfield, row)


def _npz(kind: Kind, hounsfield: NDArray[np.int16], row: Mapping[str, str]) -> bytearray:
    intercept = int(row["RescaleIntercept"])
    arrays: dict[str, Any] = {kind: hounsfield}
    if kind == "volume":
        arrays["metadata"] = np.array(json.dumps(dict(row)).encode())
    elif kind == "arr_0":
        arrays[kind] = _normalised(hounsfield)
    elif kind == "data":
        arrays[kind] = hounsfield - np.int16(intercept)
    elif kind == "resampled":
        told = json.dumps(_told_of_grid(row)).encode()
        arrays = {"volume": hounsfield, "metadata": np.array(told)}
    elif kind == "bare":
        arrays = {"arr_0": _normalised(hounsfield)}
    else:
        arrays[kind] = np.asfortranarray(hounsfield)
    buffer = io.BytesIO()
    save = np.savez if kind == "data" else np.savez_compressed
    save(buffer, **arrays)
    return bytearray(buffer.getvalue())


def _normalised(hounsfield: NDArray[np.int16]) -> NDArray[np.float32]:
    scaled = np.clip(hounsfield.astype(np.float32) / 1000, -1, 1)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _told_of_grid(row: Mapping[str, str]) -> dict[str, Any]:
    """Return what a preprocessing script that resamples leaves beside the volume."""
    down, across, through = _RESAMPLED_MM
    return {
        "affine": {
            "original": _affine("yxz", _native_mm(row)),
            "final": _affine("yxz", _RESAMPLED_MM),
        },
        "orientation": "LPS",
        "spacing": [through, down, across],
        "crop_bbox": [],
        "pad_params": [],
        "preprocessing": "resampled, clipped to -1024…3000 HU",
    }


def _nifti(hounsfield: NDArray[np.int16], row: Mapping[str, str], *, compressed: bool) -> bytes:
    """Return a NIfTI file of a volume of rows, columns and slices: x, the columns, is fastest."""
    down, across, through = _native_mm(row)
    rows, columns, slices = hounsfield.shape
    affine = rows_of(_affine("xyz", (across, down, through)))
    header = nifti.header_bytes(hounsfield.dtype, (columns, rows, slices), affine)
    data = header + np.ascontiguousarray(hounsfield.transpose(2, 0, 1)).astype("<i2").tobytes()
    return gzip.compress(data, 6, mtime=0) if compressed else data


def _affine(axes: str, sizes_mm: Sequence[float]) -> list[list[float]]:
    """Return an affine of an array whose x grows to the left, y to the back, z to the head."""
    matrix = np.eye(4)
    matrix[:3, :3] = 0.0
    for column, (axis, size) in enumerate(zip(axes, sizes_mm, strict=True)):
        matrix["xyz".index(axis), column] = size if axis == "z" else -size
    matrix[:3, 3] = (174.6, 332.1, -21.5)
    rows: list[list[float]] = matrix.tolist()
    return rows


def _native_mm(row: Mapping[str, str]) -> tuple[float, float, float]:
    """Return the spacing of rows, columns and slices as the table has it."""
    x, y, z = table_spacing_mm(row) or (0.7, 0.7, 1.0)
    return y, x, z


def _write_csv(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]], line_end: str = "\n"
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=line_end)
    writer.writerow(columns)
    writer.writerows(rows)
    _write(path, text.getvalue().encode())


def _write(path: Path, data: bytes | bytearray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
