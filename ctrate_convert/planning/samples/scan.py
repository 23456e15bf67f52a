"""Read the headers of a chunk of volumes and make their lines; a worker process does it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.tables.table import Cells
from ctrate_convert.planning.headers import read_headers
from ctrate_convert.planning.samples.lines import Lines
from ctrate_convert.planning.survey import Survey
from ctrate_convert.store.records.plan import ArrayHeader, PlannedSample, PlanSettings

CHUNK_SAMPLES = 256
"""Samples in a chunk: few enough that Ctrl+C and a slow storage wait for little."""


class Wanted(NamedTuple):
    """A volume to plan; ``places`` are those of its rows in the three tables."""

    key: str
    source: str
    size_bytes: int
    mtime_ns: int
    places: tuple[int, int, int]


@dataclass(frozen=True)
class Chunk:
    """Volumes that follow each other in the plan, and all that is needed to make their lines."""

    data_folder: Path
    settings: PlanSettings
    cells: Cells
    volumes: Sequence[Wanted]


def chunks(survey: Survey, settings: PlanSettings, keys: Iterable[str]) -> Iterator[Chunk]:
    """Yield the chunks of the volumes that ``keys`` name, in their order."""
    files, tables, cells = survey.found.files, survey.tables, survey.tables.cells
    rest = iter(keys)
    while some := list(islice(rest, CHUNK_SAMPLES)):
        volumes = []
        for key in some:
            file = files[key][0]
            volumes.append(
                Wanted(key, file.source, file.size_bytes, file.mtime_ns, tables.places(key))
            )
        yield Chunk(survey.found.data_folder, settings, cells, volumes)


def lines_of(chunk: Chunk) -> Lines:
    """Return the lines of the chunk's samples; a header that cannot be read costs only itself.

    Raises:
        SettingsError: a table has changed since it was read first.
    """
    sources = [volume.source for volume in chunk.volumes]
    headers = read_headers(chunk.data_folder, sources, chunk.settings.array_key)
    lines = Lines()
    with chunk.cells.opened() as rows_at:
        for volume, header in zip(chunk.volumes, headers, strict=True):
            rows = rows_at(volume.places)
            known = header if isinstance(header, ArrayHeader) else None
            sample = PlannedSample(
                key=volume.key,
                volume_name=rows.metadata["VolumeName"],
                source=volume.source,
                source_size_bytes=volume.size_bytes,
                source_mtime_ns=volume.mtime_ns,
                header=known,
                report=rows.report,
                labels=rows.labels,
                metadata=rows.metadata,
            )
            error = header if isinstance(header, SampleError) else None
            lines.add(sample, chunk.settings, error)
    return lines
