"""Read the headers of a chunk of volumes and make their lines; a worker process does it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ctrate_convert import __version__
from ctrate_convert.errors import SampleError
from ctrate_convert.formats.tables.table import Cells
from ctrate_convert.planning.headers import read_headers
from ctrate_convert.planning.samples.header_cache import CachedHeader, HeaderCache, cached_headers
from ctrate_convert.planning.samples.lines import Lines
from ctrate_convert.planning.survey import Survey
from ctrate_convert.store.records.plan import ArrayHeader, PlannedSample, PlanSettings

CHUNK_SAMPLES = 256
"""Samples in a chunk: few enough that Ctrl+C and a slow storage wait for little."""


class Wanted(NamedTuple):
    """A volume to plan; ``places`` are those of its rows in the three tables.

    ``cached`` is the place of its line in the cache of headers; 0 if it has none.
    """

    key: str
    source: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    places: tuple[int, int, int]
    cached: int

    def is_of(self, line: CachedHeader, array_key: str | None) -> bool:
        """Return True if the header in ``line`` is the one that reading would give."""
        expected = (self.source, self.size_bytes, self.mtime_ns, self.ctime_ns)
        seen = (line.source, line.size_bytes, line.mtime_ns, line.ctime_ns)
        return (seen, line.array_key, line.program_version) == (expected, array_key, __version__)


@dataclass(frozen=True)
class Chunk:
    """Volumes that follow each other in the plan, and all that is needed to make their lines.

    ``cache`` is the cache of headers, which may not be there; None if the plan is too small.
    """

    data_folder: Path
    settings: PlanSettings
    cells: Cells
    cache: Path | None
    volumes: Sequence[Wanted]


def chunks(
    survey: Survey, settings: PlanSettings, keys: Iterable[str], cache: HeaderCache | None = None
) -> Iterator[Chunk]:
    """Yield the chunks of the volumes that ``keys`` name, in their order."""
    files, tables, cells = survey.found.files, survey.tables, survey.tables.cells
    rest = iter(keys)
    cached = cache.places() if cache else {}
    path = cache.path if cache else None
    while some := list(islice(rest, CHUNK_SAMPLES)):
        volumes = []
        for key in some:
            file = files[key][0]
            times = (file.mtime_ns, file.ctime_ns)
            at = cached.get(file.source, 0)
            volumes.append(
                Wanted(key, file.source, file.size_bytes, *times, tables.places(key), at)
            )
        yield Chunk(survey.found.data_folder, settings, cells, path, volumes)


def lines_of(chunk: Chunk) -> Lines:
    """Return the lines of the chunk's samples; a header that cannot be read costs only itself.

    Raises:
        SettingsError: a table has changed since it was read first.
    """
    lines = Lines()
    headers = _headers(chunk, lines)
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


def _headers(chunk: Chunk, lines: Lines) -> list[ArrayHeader | SampleError]:
    """Return the headers of the chunk's volumes; those that had to be read go to ``lines``, too."""
    array_key = chunk.settings.array_key
    headers: list[ArrayHeader | SampleError | None] = [None] * len(chunk.volumes)
    if chunk.cache is not None:
        found = cached_headers(chunk.cache, [volume.cached for volume in chunk.volumes])
        for place, (volume, line) in enumerate(zip(chunk.volumes, found, strict=True)):
            if line is not None and volume.is_of(line, array_key):
                headers[place] = line.header
    missing = [volume for volume, one in zip(chunk.volumes, headers, strict=True) if one is None]
    sources = [volume.source for volume in missing]
    read = read_headers(chunk.data_folder, sources, array_key)
    if chunk.cache is not None:
        lines.to_cache = [
            _line(volume, header, array_key)
            for volume, header in zip(missing, read, strict=True)
            # An error may be the storage's, and be gone the next time.
            if isinstance(header, ArrayHeader)
        ]
    rest = iter(read)
    return [next(rest) if header is None else header for header in headers]


def _line(volume: Wanted, header: ArrayHeader, array_key: str | None) -> str:
    return CachedHeader(
        source=volume.source,
        size_bytes=volume.size_bytes,
        mtime_ns=volume.mtime_ns,
        ctime_ns=volume.ctime_ns,
        array_key=array_key,
        program_version=__version__,
        header=header,
    ).model_dump_json()
