"""Keep copies of shards in a folder of this machine, so that each shard crosses the network once.

A copy's name holds the digest of the shard's record: another shard, or the same one repaired, has
another name. Nothing is ever removed: that is ``rm -r`` of the folder. A copy that cannot be made
costs only speed.
"""

from __future__ import annotations

import os
import secrets
import shlex
import stat
import warnings
from dataclasses import replace
from pathlib import Path

from ctrate_convert.errors import DamageError, SettingsError
from ctrate_convert.reading.index import Shard, scheme_of
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.store.durable import PARTIAL_SUFFIX, write_all
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.locks import Hold, locked
from ctrate_convert.store.privacy import doubt_about

_PIECE_BYTES = 2**23
_FOLDER_MODE, _FILE_MODE = 0o700, 0o600

_closed: set[str] = set()
"""The folders that took no more copies in this process: it does not try, and warn, again."""


def make_cache_folder(folder: str | os.PathLike[str]) -> str:
    """Return the absolute path of the folder, created with mode 0700 if it is missing.

    Raises:
        SettingsError: it cannot be created, or somebody else could put a shard there; or it is
            empty, a URL or a dataset directory.
    """
    scheme = scheme_of(folder)
    path = Path(folder).absolute()
    wrong = "no name" if not os.fspath(folder) else f"{scheme}://" if scheme else ""
    dataset = Dataset(path)
    if os.path.lexists(dataset.run) or os.path.lexists(dataset.manifest):
        wrong = "a dataset directory, which readers take for data"
    if wrong:
        raise SettingsError(
            "the cache folder must be one of its own on a disk of this machine",
            where=folder or None, seen=wrong, expected="a new folder, such as /scratch/me/ct-rate",
        )  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(_FOLDER_MODE, exist_ok=True)
        doubt = doubt_about(path.lstat())
    except OSError as error:
        raise SettingsError(
            f"the cache folder cannot be made: {error.strerror}", where=path
        ) from error
    if doubt or not path.is_dir():
        raise SettingsError(
            "the cache folder must be one that only you can write to",
            where=path,
            seen=f"it {doubt or 'is no folder'}",
            expected="a folder of your own, or a new one in it",
        )
    return str(path)


def open_shard(shard: Shard) -> ShardFile:
    """Return the shard, open for reading: its copy if it has a cache folder, else itself.

    Raises:
        DamageError: the file is missing, or not what its record says.
        EnvironmentProblem: the file cannot be opened or read.
    """
    copy = _copy_of(shard) if shard.cache else None
    if copy is not None:
        remove = f"rm {shlex.quote(str(copy))}"
        try:
            return ShardFile(replace(shard, path=str(copy), next_command=remove))
        except DamageError:
            # It was removed, or replaced, since it was looked at: the shard itself is there.
            pass
    return ShardFile(shard)


def _copy_of(shard: Shard) -> Path | None:
    """Return the shard's copy, which is made if it is not there; None if that is not possible."""
    stem = Path(shard.path).stem
    copy = Path(shard.cache) / f"{stem}.{shard.record_sha256}.tar"
    if _is_sound(copy, shard):
        return copy
    if shard.cache in _closed:
        return None
    try:
        Path(shard.cache).mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
        # Without a lock service two workers may copy the same shard: that costs only time.
        with locked(copy.with_name(f".{copy.stem}.lock"), mode=_FILE_MODE) as hold:
            if not _is_sound(copy, shard):
                if hold is Hold.HELD:
                    _remove_partial(copy)
                _make(copy, shard)
    except OSError as error:
        _closed.add(shard.cache)
        warnings.warn(
            f"{shard.cache} takes no copy of a shard: {error.strerror or error}. Shards that are "
            "not there are read from where they are.",
            stacklevel=2,
        )
        return None
    return copy


def _is_sound(copy: Path, shard: Shard) -> bool:
    """Return True if this is a whole copy, which nobody else could have written."""
    try:
        status = copy.lstat()
    except OSError:
        return False
    whole = stat.S_ISREG(status.st_mode) and status.st_size == shard.size_bytes
    return whole and doubt_about(status) is None


def _make(copy: Path, shard: Shard) -> None:
    """Copy a shard under a temporary name, then rename it: a reader sees all of it or nothing.

    Raises:
        OSError: the folder does not take it.
        DamageError: the shard itself is missing, or not what its record says.
        EnvironmentProblem: the shard itself cannot be read.
    """
    temporary = copy.with_name(f".{copy.stem}.{secrets.token_hex(6)}{PARTIAL_SUFFIX}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with ShardFile(shard) as source:
        descriptor = os.open(temporary, flags, _FILE_MODE)
        try:
            # All of the space at once: a disk that is too full says so before a byte is copied.
            os.posix_fallocate(descriptor, 0, shard.size_bytes)
            piece = memoryview(bytearray(_PIECE_BYTES))
            for offset in range(0, shard.size_bytes, _PIECE_BYTES):
                part = piece[: min(_PIECE_BYTES, shard.size_bytes - offset)]
                source.read_into(part, offset)
                write_all(descriptor, part)
            # Else a power loss could leave a file of this length with zeros in it.
            os.fsync(descriptor)
            os.replace(temporary, copy)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)


def _remove_partial(copy: Path) -> None:
    """Remove what killed processes left of this copy; the lock says that nobody else makes it."""
    for temporary in copy.parent.glob(f".{copy.stem}.*{PARTIAL_SUFFIX}"):
        temporary.unlink(missing_ok=True)
