"""Read the headers of all volumes, many at once: on network storage each read has to wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ctrate_convert.errors import SampleError
from ctrate_convert.sources.kinds import read_array_header
from ctrate_convert.store.records.plan import ArrayHeader

READERS = 16
_BATCH = 512

Progress = Callable[[int, int], None]


def read_headers(
    data_folder: Path,
    sources: Sequence[str],
    array_key: str | None,
    progress: Progress | None = None,
) -> list[ArrayHeader | SampleError]:
    """Return the header of each source, or the error that it could not be read, in the given order.

    ``progress`` is called with the numbers of headers read and of all, now and then and at the end.
    """

    def read(source: str) -> ArrayHeader | SampleError:
        try:
            return read_array_header(data_folder / source, array_key)
        except SampleError as error:
            return error

    headers: list[ArrayHeader | SampleError] = []
    with ThreadPoolExecutor(READERS, thread_name_prefix="header") as pool:
        # Read in batches, so that Ctrl+C waits for few reads and the queue stays small.
        for start in range(0, len(sources), _BATCH):
            headers.extend(pool.map(read, sources[start : start + _BATCH]))
            if progress is not None:
                progress(len(headers), len(sources))
    return headers
