"""Check second copies: before a source goes, further folders must hold its shard too, read now."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from ctrate_convert.deleting.trusted import why_in_memory
from ctrate_convert.errors import CtrateError, SettingsError
from ctrate_convert.store.durable import open_regular
from ctrate_convert.store.fresh import FreshStatus, fresh_status, fresh_status_of
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


def shards_without_copy(
    dataset: Dataset, names: Iterable[str], copies: Sequence[str]
) -> dict[str, str]:
    """Return which of the shards ``names`` have no second copy in all of ``copies``, and why.

    Nothing is read: a copy that is there, and as long as its shard, may still differ.
    """
    found = {}
    for name, folder in itertools.product(names, copies):
        copy = Path(folder) / name
        try:
            one, other = fresh_status(copy), fresh_status(dataset.out / name)
        except OSError as error:
            found[name] = f"{copy} cannot be read: {error.strerror}"
            continue
        if _is_one_file(one, other):
            found[name] = f"{copy} is the same file, not a copy"
        elif one.st_size != other.st_size:
            found[name] = f"{copy} has {one.st_size:,} bytes, the shard {other.st_size:,}"
    return found


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
    return _is_one_file(fresh_status_of(copy), fresh_status(shard))


def _is_one_file(one: FreshStatus, other: FreshStatus) -> bool:
    times = [(at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns) for at in (one, other)]
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) or times[0] == times[1]


def _sha256(descriptor: int) -> str:
    digest = hashlib.sha256()
    with StorageReader(descriptor) as storage:
        while piece := storage.take():
            digest.update(piece)
    return digest.hexdigest()
