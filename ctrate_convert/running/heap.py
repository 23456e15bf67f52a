"""Keep in the worker the memory that it frees and takes again for every block."""

from __future__ import annotations

import ctypes

# The numbers are those of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# mallopt(3) takes no larger threshold on 64-bit systems.
_LARGEST_BLOCK_BYTES = 2**25

_mallopt = getattr(ctypes.CDLL(None), "mallopt", None)


def keep_freed_memory() -> None:
    """Keep freed blocks of up to 32 MiB for the next ones, if the C library is glibc.

    By default glibc returns such a block to the kernel at once and gets a new one for the next,
    page by page. This takes a tenth of the CPU time of writing ``b2nd``, because Blosc2 takes
    buffers for every chunk. At most 64 MiB stay unused at the top of the heap.
    """
    if _mallopt is not None:
        _mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK_BYTES)
        _mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_BLOCK_BYTES)
