"""Read the headers of many volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctrate_convert.errors import SampleError
from ctrate_convert.planning.waiting import each_read
from ctrate_convert.sources.kinds import read_array_header
from ctrate_convert.store.records.plan import ArrayHeader


def read_headers(
    data_folder: Path, sources: Sequence[str], array_key: str | None
) -> list[ArrayHeader | SampleError]:
    """Return the header of each source, or the error that it could not be read, in their order."""

    def read(source: str) -> ArrayHeader | SampleError:
        try:
            return read_array_header(data_folder / source, array_key)
        except SampleError as error:
            return error

    return list(each_read(read, sources))
