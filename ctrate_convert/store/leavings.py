"""Remove the hidden partial files of killed processes and leave those of live ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
from pathlib import Path

from ctrate_convert.store.durable import PARTIAL_SUFFIX


def remove_stale_partials(directory: Path, published: frozenset[str]) -> int:
    """Remove the partial files that no live writer can need; return the number of bytes freed.

    A partial file is removed if its stem is in ``published``, or if its writer ran on this host and
    the kernel has released the writer's flock. An unpublished file of another host always stays.
    """
    freed_bytes = 0
    for path in directory.glob(f".*{PARTIAL_SUFFIX}"):
        name, _, _ = path.name.removesuffix(PARTIAL_SUFFIX).rpartition(".")
        # Some network mounts keep locks local: a file of another host may be locked there and seem
        # free here.
        own = name.endswith(f".{socket.gethostname()}")
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                if own and _writer_is_dead(path, os.O_RDONLY | os.O_DIRECTORY):
                    shutil.rmtree(path)
            # The name is .STEM.HOST.HEX.partial. Nobody needs the partial file of a published
            # shard.
            # O_RDWR, because NFS grants an exclusive lock only to a descriptor that is open for
            # writing.
            elif stat.S_ISREG(status.st_mode) and (
                name.split(".")[1] in published or (own and _writer_is_dead(path, os.O_RDWR))
            ):
                path.unlink()
                freed_bytes += status.st_size
    return freed_bytes


def _writer_is_dead(path: Path, flags: int) -> bool:
    descriptor = os.open(path, flags | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
