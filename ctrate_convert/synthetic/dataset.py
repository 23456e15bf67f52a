"""Write a small CT-RATE of synthetic patients with the names, columns and oddities of the data set.

CT-RATE itself is gated, so the demo and the tests use this one.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

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

Kind = Literal["volume", "arr_0", "data", "arr"]
"""The ways in which an NPZ stores its volume; the kind is also the array's key.

``volume``: int16 HU, deflated, with a JSON entry beside it. ``arr_0``: float32 HU/1000, slices
first, deflated. ``data``: int16 before slope and intercept, stored. ``arr``: int16 HU, deflated,
Fortran order.
"""

Fault = Literal["corrupt", "no_report", "excluded", "duplicate"]

_DATA = "npz"


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
    kinds: Sequence[Kind] = get_args(Kind),
    faults: Iterable[Fault] = (),
) -> SyntheticCtRate:
    """Write ``samples`` volumes of ``shape`` (rows, columns, slices) and their tables.

    The same arguments give the same bytes. The volumes take the ``kinds`` in turn. Each of
    ``faults`` is given to a different sample: ``corrupt`` flips a bit in its data (its kind is
    ``data``), ``no_report`` omits its report, ``excluded`` puts it on the exclusion list, and
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
        name.key: "data" if fault_of.get(name.key) == "corrupt" else kinds[index % len(kinds)]
        for index, name in enumerate(names)
    }
    metadata = metadata_rows([*names, absent], shape, seed)
    without_spacing = next((n.key for n in names if n.key not in fault_of), names[0].key)
    metadata[without_spacing]["ZSpacing"] = ""

    sources: dict[str, Path] = {}
    for index, name in enumerate(names):
        own = np.random.default_rng((seed, index))
        data = _npz(kind_of[name.key], shape, metadata[name.key], own)
        path = folder / _DATA / _place(name, layout) / f"{name.key}.npz"
        fault = fault_of.get(name.key)
        if fault == "corrupt":
            # The array is stored, not deflated, so the middle byte of the file is a voxel.
            data[len(data) // 2] ^= 0x40
        if fault == "duplicate":
            _write(folder / _DATA / "second_download" / path.name, data)
        _write(path, data)
        sources[name.key] = path
    paths = _write_tables(folder, split, [*names, absent], fault_of, metadata, seed)
    return SyntheticCtRate(
        data_folder=folder / _DATA,
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


def _npz(
    kind: Kind, shape: tuple[int, int, int], row: Mapping[str, str], rng: np.random.Generator
) -> bytearray:
    intercept = int(row["RescaleIntercept"])
    hounsfield = chest_phantom(shape, rng, padding_hu=intercept)
    arrays: dict[str, Any] = {kind: hounsfield}
    if kind == "volume":
        arrays["metadata"] = np.array(json.dumps(dict(row)).encode())
    elif kind == "arr_0":
        scaled = np.clip(hounsfield.astype(np.float32) / 1000, -1, 1)
        arrays[kind] = np.ascontiguousarray(scaled.transpose(2, 0, 1))
    elif kind == "data":
        arrays[kind] = hounsfield - np.int16(intercept)
    else:
        arrays[kind] = np.asfortranarray(hounsfield)
    buffer = io.BytesIO()
    save = np.savez if kind == "data" else np.savez_compressed
    save(buffer, **arrays)
    return bytearray(buffer.getvalue())


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
