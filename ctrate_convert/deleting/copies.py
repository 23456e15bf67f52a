"""Check second copies: before a source goes, further folders must hold its shard too, read now."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ctrate_convert.deleting.trusted import why_in_memory
from ctrate_convert.errors import CtrateError, SettingsError
from ctrate_convert.store.durable import open_regular
from ctrate_convert.store.fresh import fresh_status, fresh_status_of
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.storage_reader import StorageReader


def require_copies(dataset: Dataset, copies: Sequence[str]) -> None:
    """Refuse folders that cannot hold a second copy.

    Raises:
        SettingsError: one is missing, or is the dataset directory itself.
    """
    for folder in map(Path, copies):
        if not folder.is_dir():
            raise SettingsError("--copies names no folder", where=folder)
        if folder.samefile(dataset.out):
            raise SettingsError("--copies names the dataset directory itself", where=folder)


def why_no_copy(shard: Path, sha256: str, copies: Sequence[str]) -> str | None:
    """Return which copy of ``shard`` is missing or differs; None if all are there."""
    for folder in copies:
        reason = _doubt(shard, sha256, Path(folder) / shard.name)
        if reason:
            return f"no second copy: {Path(folder) / shard.name} {reason}"
    return None


def _doubt(shard: Path, sha256: str, copy: Path) -> str | None:
    if why_in_memory(copy):
        return "lies in memory"
    try:
        with open_regular(copy) as stream:
            if _is_same_file(stream.fileno(), shard):
                return "is the same file, not a copy"
            # Read past the page cache, which says nothing of the bytes on the disk.
            seen = _sha256(stream.fileno())
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except CtrateError as error:
        return error.what
    return None if seen == sha256 else f"has SHA-256 {seen[:16]}…, expected {sha256[:16]}…"


def _is_same_file(copy: int, shard: Path) -> bool:
    """Return True if both are one file, also if two mounts (bindfs, NFS) show it under two devices.

    Through two mounts the device differs. A real copy has another change time, which nobody can
    set.
    """
    one, other = fresh_status_of(copy), fresh_status(shard)
    times = [(at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns) for at in (one, other)]
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) or times[0] == times[1]


def _sha256(descriptor: int) -> str:
    digest = hashlib.sha256()
    with StorageReader(descriptor) as storage:
        while piece := storage.take():
            digest.update(piece)
    return digest.hexdigest()
