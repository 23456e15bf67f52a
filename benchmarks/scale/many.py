"""Large sets made quickly: each volume is a file of its own, with the bytes of one of a few."""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate

_PATTERNS = 64
_IN_A_FOLDER = 1000


def many_at(work: Path, samples: int) -> SyntheticCtRate:
    """Make a set of so many tiny volumes, a thousand in a folder, with rows in all tables."""
    shutil.rmtree(work, ignore_errors=True)
    pattern = write_synthetic_ctrate(
        work / "pattern", samples=_PATTERNS, shape=(6, 5, 4), layout="flat"
    )
    folder = work / "ct" / "npz"
    folder.mkdir(parents=True)
    contents = [path.read_bytes() for path in pattern.sources.values()]
    for number, (key, content) in enumerate(zip(_keys(samples), cycle(contents), strict=False)):
        below = folder / f"{number // _IN_A_FOLDER:05d}"
        if number % _IN_A_FOLDER == 0:
            below.mkdir()
        descriptor = os.open(f"{below}/{key}.npz", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(descriptor, content)
        os.close(descriptor)
    return dataclasses.replace(
        pattern,
        data_folder=folder,
        reports_file=_repeated(pattern.reports_file, work / "ct", samples),
        meta_file=_repeated(pattern.meta_file, work / "ct", samples),
        labels_file=_repeated(pattern.labels_file, work / "ct", samples),
    )


def _keys(samples: int) -> Iterator[str]:
    """Yield the names of so many volumes: two scans of each patient."""
    for number in range(samples):
        yield f"train_{number // 2 + 1}_{'ab'[number % 2]}_1"


def _repeated(table: Path, folder: Path, samples: int) -> Path:
    """Write a table with the rows of another one, under the names of all volumes."""
    with table.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    place = header.index("VolumeName")
    path = folder / table.name
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for key, row in zip(_keys(samples), islice(cycle(rows), samples), strict=True):
            row[place] = f"{key}.nii.gz"
            writer.writerow(row)
    return path
