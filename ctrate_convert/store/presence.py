"""Tell if a source is there, gone, or cannot be seen. No other module decides this."""

from __future__ import annotations

import enum
import hashlib
import os
from pathlib import Path

from ctrate_convert.store.durable import open_beneath
from ctrate_convert.store.fresh import FreshStatus, fresh_status

ASIDE_SUFFIX = ".leaving"
PROVEN_SUFFIX = ".equal"

_LONGEST_NAME_BYTES = 143
"""The longest file name on eCryptfs; the file systems below it take 255 bytes."""


class Presence(enum.Enum):
    """The presence of a source: there, gone, or not visible from here."""

    THERE = "there"
    GONE = "gone"
    UNSEEN = "cannot be seen"


def aside_name(name: str) -> str:
    """Return the hidden name of a source in its own folder while it is being compared.

    The name is derived from the source's name, so that the next process finds the source after a
    kill without reading a journal.
    """
    return _hidden(name, ASIDE_SUFFIX)


def proven_name(name: str) -> str:
    """Return the hidden name of a source after its comparison, until it is unlinked.

    It differs from `aside_name`, so that a delayed unlink by another process never hits a file that
    was not compared, whatever has been renamed aside in the meantime.
    """
    return _hidden(name, PROVEN_SUFFIX)


def _hidden(name: str, suffix: str) -> str:
    hidden = f".{name}{suffix}"
    if len(os.fsencode(hidden)) <= _LONGEST_NAME_BYTES:
        return hidden
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()}{suffix}"


def hidden_names(name: str) -> tuple[str, str]:
    """Return the hidden names under which a killed deletion may have left a source."""
    return proven_name(name), aside_name(name)


def presence(data_folder: Path, source: str, folder_inode: int = 0) -> Presence:
    """Return the presence of a source, bypassing attribute caches.

    A source is gone only if its folder can be opened and has neither its name nor a hidden name
    that a deletion may have given it. If a folder on the way is missing, renamed or not accessible,
    the source cannot be seen. The same holds if the folder has another inode than ``folder_inode``
    (0: not known), like the empty mount point of a file system that is not mounted.
    """
    try:
        with open_beneath(data_folder, source) as (directory, name):
            # Its own name twice: another process may give it back after the first look at it and
            # before the looks at the hidden names.
            names = (name, *hidden_names(name), name)
            if any(status_of(one, directory) is not None for one in names):
                return Presence.THERE
            another = folder_inode not in (0, os.fstat(directory).st_ino)
    except (OSError, ValueError):
        return Presence.UNSEEN
    return Presence.UNSEEN if another else Presence.GONE


def status_of(name: str, directory: int) -> FreshStatus | None:
    """Return the status of ``name`` in an open directory, or None if nothing has the name.

    Raises:
        OSError: the status cannot be read.
    """
    try:
        return fresh_status(name, directory)
    except FileNotFoundError:
        return None
