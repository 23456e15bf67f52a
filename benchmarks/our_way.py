"""This project's way: a real plan over test volumes, and `convert_shard` on it."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctrate_convert.conversion.manifest import planned_shards
from ctrate_convert.conversion.planning import make_plan
from ctrate_convert.conversion.plans import load_plans
from ctrate_convert.conversion.shard import convert_shard
from ctrate_convert.formats.members import LABEL_NAMES, REPORT_FIELDS
from ctrate_convert.formats.names import VolumeName
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.plan import Encoding, PlanSettings
from ctrate_convert.synthetic.tables import (
    METADATA_COLUMNS,
    label_rows,
    metadata_rows,
    report_rows,
)


def write_inputs(folder: Path, volumes: Sequence[Path]) -> None:
    """A data folder in which ``volumes`` (hard links) have CT-RATE's names, and their tables."""
    names = [VolumeName("train", number + 1, "a", 1) for number in range(len(volumes))]
    (folder / "npz").mkdir(parents=True)
    for name, volume in zip(names, volumes, strict=True):
        os.link(volume, folder / "npz" / f"{name.key}.npz")
    metadata = metadata_rows(names, (480, 480, 240), 0)
    _write_csv(
        folder / "metadata.csv", METADATA_COLUMNS, [[*r.values()] for r in metadata.values()]
    )
    _write_csv(folder / "reports.csv", ["VolumeName", *REPORT_FIELDS], report_rows(names, 0))
    _write_csv(folder / "labels.csv", ["VolumeName", *LABEL_NAMES], label_rows(names, 0))


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)


def plan(
    inputs: Path, out: Path, samples_per_shard: int, encoding: Encoding = "npy", **more: Any
) -> None:
    """Plan the conversion of ``inputs`` into ``out``; ``more`` is what else to set."""
    settings = PlanSettings(
        data_folder=str(inputs / "npz"),
        reports_file=str(inputs / "reports.csv"),
        meta_file=str(inputs / "metadata.csv"),
        labels_file=str(inputs / "labels.csv"),
        samples_per_shard=samples_per_shard,
        encoding=encoding,
        **more,
    )
    make_plan(Dataset(out), settings)


def convert(out: Path, shard: int) -> None:
    """Convert one planned shard as a worker does, up to its published record.

    Raises:
        RuntimeError: not every sample of it was converted.
    """
    dataset = Dataset(out)
    its_plan, planned = planned_shards(load_plans(dataset))[shard]
    published = convert_shard(dataset, its_plan, planned, "benchmark", lambda *_: None)
    if published.record.failed:
        raise RuntimeError(f"not converted: {published.record.failed[0].reason}")
