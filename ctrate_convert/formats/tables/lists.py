"""Read lists of volumes: one path or name a line."""

from __future__ import annotations

from pathlib import Path

from ctrate_convert.errors import SettingsError
from ctrate_convert.store.records.base import sha256_hex
from ctrate_convert.store.records.volume_list import ListOption, VolumeList


def read_volume_list(path: Path, option: ListOption) -> tuple[VolumeList, frozenset[str]]:
    """Return the record and the keys of a list with one path or name a line.

    Only the base name counts, without ``.nii.gz`` or ``.npz``. Blank lines and lines that start
    with ``#`` are ignored. Keys and hash are of the same bytes, which are read once.

    Raises:
        SettingsError: the file cannot be read.
    """
    data = _read_bytes(path, option)
    keys = _keys_in(data)
    record = VolumeList(option=option, name=path.name, keys=len(keys), sha256=sha256_hex(data))
    return record, keys


def read_keys(path: Path, option: str) -> frozenset[str]:
    """Return the keys of a list as `read_volume_list` does.

    Raises:
        SettingsError: the file cannot be read.
    """
    return _keys_in(_read_bytes(path, option))


def _keys_in(data: bytes) -> frozenset[str]:
    # Only base names count, and these are ASCII, so folders may be in any encoding.
    text = data.decode("utf-8-sig", "surrogateescape")
    keys = set()
    for line in text.splitlines():
        entry = line.strip()
        if entry and not entry.startswith("#"):
            # The list may come from another machine, with its paths.
            name = entry.replace("\\", "/").rstrip("/").rpartition("/")[2]
            keys.add(name.removesuffix(".gz").removesuffix(".nii").removesuffix(".npz"))
    return frozenset(keys)


def _read_bytes(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"--{setting} cannot be read: {error.strerror}",
            where=path,
            next_command=f"check the path given as --{setting}",
        ) from error
