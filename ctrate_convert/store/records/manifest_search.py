"""Find one shard in a manifest without reading all of it: its entries are in the shards' order."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ctrate_convert.store.durable import open_regular

_NAME = re.compile(rb'"name": ?"shard-([0-9]{6,9})\.tar"')
_LONGEST_NAME = 64
_BLOCK_BYTES = 2**14


def lists_shard(manifest: Path, shard: int) -> bool:
    """Return True if the manifest has an entry for ``shard``.

    Of a manifest that the program has written, this reads a few blocks, however large it is.

    Raises:
        OSError: the file cannot be read.
        DamageError: it is not a regular file.
    """
    with open_regular(manifest) as stream:
        descriptor = stream.fileno()
        low, high = 0, os.fstat(descriptor).st_size
        while high - low > _BLOCK_BYTES:
            middle = (low + high) // 2
            found = _NAME.search(os.pread(descriptor, _BLOCK_BYTES, middle))
            if found is None:  # an entry of many superseded samples
                break
            if int(found[1]) == shard:
                return True
            if int(found[1]) < shard:
                low = middle + found.start()
            else:
                high = middle + _LONGEST_NAME  # its name may begin just before the middle
        rest = os.pread(descriptor, high - low + _LONGEST_NAME, low)
        return any(int(found[1]) == shard for found in _NAME.finditer(rest))
