"""Read the headers of many volumes: many at once where storage makes each read wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ctrate_convert.errors import SampleError
from ctrate_convert.sources.kinds import read_array_header
from ctrate_convert.store.records.plan import ArrayHeader

READERS = 16
_LOOK = 16
"""Headers after which it is known if the storage makes readers wait."""


def read_headers(
    data_folder: Path, sources: Sequence[str], array_key: str | None
) -> list[ArrayHeader | SampleError]:
    """Return the header of each source, or the error that it could not be read, in the given order.

    Threads only help where reading is waiting: headers that are in memory are read twice as fast
    by one thread as by many, which would fight for the interpreter.
    """

    def read(source: str) -> ArrayHeader | SampleError:
        try:
            return read_array_header(data_folder / source, array_key)
        except SampleError as error:
            return error

    headers: list[ArrayHeader | SampleError] = []
    while len(headers) < len(sources):
        wall_s, cpu_s = time.monotonic(), time.thread_time()
        headers += map(read, sources[len(headers) : len(headers) + _LOOK])
        wall_s, cpu_s = time.monotonic() - wall_s, time.thread_time() - cpu_s
        if wall_s > 3 * cpu_s and len(headers) < len(sources):
            with ThreadPoolExecutor(READERS, thread_name_prefix="header") as pool:
                headers += pool.map(read, sources[len(headers) :])
    return headers
