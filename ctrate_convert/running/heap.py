"""Memory that a worker frees and takes again for every block stays with the worker."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_BLOCK_BYTES = 2**25

_mallopt = getattr(ctypes.CDLL(None), "mallopt", None)


def keep_freed_memory() -> None:
    """Keep freed blocks of up to 32 MiB for the next ones, where the C library is glibc.

    glibc gives such a block back to the kernel at once and gets a new one for the next, page by
    page: a tenth of the CPU time of writing ``b2nd``, where Blosc2 takes buffers for every chunk.
    At most 64 MiB stay unused at the top of the heap.
    """
    if _mallopt is not None:
        _mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK_BYTES)
        _mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_BLOCK_BYTES)
