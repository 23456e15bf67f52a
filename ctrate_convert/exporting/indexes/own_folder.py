"""Write files and links into a folder, and overwrite only what an earlier call wrote there.

``.ctrate-convert.json`` in the folder lists every name with the SHA-256 of what was written. While
files are written it lists the old content beside the new one, so that a killed call can be given
again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ctrate_convert.errors import DamageError, RefusedError
from ctrate_convert.store.durable import (
    fsync_directory,
    make_directories,
    read_regular,
    replace,
)
from ctrate_convert.store.leavings import remove_stale_partials
from ctrate_convert.store.records.base import Record, Sha256, read, sha256_hex

LIST_FILE = ".ctrate-convert.json"

Kind = Literal["wids", "dali", "energon"]


class WrittenFiles(Record):
    """The names that were written into a folder, each with the SHA-256 of its possible contents.

    That of a link is the SHA-256 of its target.
    """

    schema_number: Literal[1] = 1
    index: Kind
    files: dict[str, tuple[Sha256, ...]]


@dataclass
class Written:
    """How many files were written or removed, and the names that somebody else has changed."""

    written: int = 0
    removed: int = 0
    kept: list[str] = field(default_factory=list)


def write_folder(folder: Path, index: Kind, files: Mapping[str, bytes | Path]) -> Written:
    """Make ``folder`` hold ``files``: content by name, or the target of a link.

    A file that somebody changed since an earlier call is kept. Files of an earlier call that are
    not among ``files`` are removed. Equal files are not written again.

    Raises:
        RefusedError: the folder holds another kind of index, or a file that no call wrote has one
            of the names; nothing was changed.
        DamageError: the list of earlier files cannot be read.
        OSError: the folder cannot be written.
    """
    earlier = _earlier(folder, index)
    wanted = {name: sha256_hex(_content(data)) for name, data in files.items()}
    seen = {name: _seen(folder / name) for name in {*wanted, *earlier}}
    foreign = [n for n, sha in wanted.items() if seen[n] not in ("", sha) and n not in earlier]
    if foreign:
        raise RefusedError(
            f"{len(foreign)} of the files to be written are there and are not from this command",
            where=folder,
            seen=", ".join(sorted(foreign)[:3]),
            next_command="choose an empty folder, or remove them",
        )
    make_directories(*{(folder / name).parent for name in files})
    for parent in {(folder / name).parent for name in files}:
        remove_stale_partials(parent, frozenset())
    both = {n: tuple(sorted({*earlier.get(n, ()), sha})) for n, sha in wanted.items()}
    _list(folder, index, {**earlier, **both})
    report = Written()
    for name in sorted({*wanted, *earlier}):
        if seen[name] == wanted.get(name, ""):
            continue
        if seen[name] and seen[name] not in earlier[name]:
            report.kept.append(name)
        elif name in files:
            _write(folder / name, files[name])
            report.written += 1
        else:
            (folder / name).unlink()
            report.removed += 1
    if report.written or report.removed:
        fsync_directory(folder)
    _list(folder, index, {name: (sha,) for name, sha in wanted.items()})
    return report


def _earlier(folder: Path, index: Kind) -> dict[str, tuple[Sha256, ...]]:
    try:
        earlier = read(WrittenFiles, folder / LIST_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    if earlier.index != index:
        raise RefusedError(
            "the folder holds the index of another reader",
            where=folder,
            seen=earlier.index,
            expected=index,
            next_command="choose another folder",
        )
    return earlier.files


def _list(folder: Path, index: Kind, files: Mapping[str, tuple[Sha256, ...]]) -> None:
    data = WrittenFiles(index=index, files=dict(files)).to_pretty_json()
    if _seen(folder / LIST_FILE) != sha256_hex(data):
        replace(folder / LIST_FILE, data)


def _content(data: bytes | Path) -> bytes:
    return os.fsencode(data) if isinstance(data, Path) else data


def _seen(path: Path) -> str:
    """Return the SHA-256 of what is there; empty for nothing, and a word for no regular file."""
    try:
        if path.is_symlink():
            return sha256_hex(os.fsencode(path.readlink()))
        return sha256_hex(read_regular(path))
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (DamageError, IsADirectoryError):
        return "no regular file"


def _write(path: Path, data: bytes | Path) -> None:
    if isinstance(data, Path):
        # A kill between the two calls leaves no link; the same command makes it again.
        path.unlink(missing_ok=True)
        path.symlink_to(data)
    else:
        replace(path, data)
