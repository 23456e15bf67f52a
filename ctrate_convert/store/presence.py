"""Is a source there, gone, or can that not be seen? The one place that answers."""

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
"""Of eCryptfs; the file systems below it take 255."""


class Presence(enum.Enum):
    """The three answers."""

    THERE = "there"
    GONE = "gone"
    UNSEEN = "cannot be seen"


def aside_name(name: str) -> str:
    """Return the hidden name that a source bears in its own folder while it is compared.

    The name follows from the source's own, so that whoever comes after a killed process finds it
    without any journal.
    """
    return _hidden(name, ASIDE_SUFFIX)


def proven_name(name: str) -> str:
    """Return the hidden name that a source bears from its comparison to its end.

    Another one than before, so that a process that comes late with its unlink meets nothing that
    was not compared, whatever others have put aside meanwhile.
    """
    return _hidden(name, PROVEN_SUFFIX)


def _hidden(name: str, suffix: str) -> str:
    hidden = f".{name}{suffix}"
    if len(os.fsencode(hidden)) <= _LONGEST_NAME_BYTES:
        return hidden
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()}{suffix}"


def hidden_names(name: str) -> tuple[str, str]:
    """Return the names under which a killed deletion may have left a source."""
    return proven_name(name), aside_name(name)


def presence(data_folder: Path, source: str, folder_inode: int = 0) -> Presence:
    """Look now, past any attribute cache.

    A source is gone only where the folder that held it can be opened, and has neither the name
    nor a hidden name that a deletion gives it for a while. Where a folder on the way is away,
    renamed or closed, nothing can be said of the source; nor where the folder is another one than
    ``folder_inode`` says, like the empty mount point of a file system that is not mounted.
    """
    try:
        with open_beneath(data_folder, source) as (directory, name):
            # Its own name once more at last: it may have got it back between the two looks.
            names = (name, *hidden_names(name), name)
            if any(status_of(one, directory) is not None for one in names):
                return Presence.THERE
            another = folder_inode not in (0, os.fstat(directory).st_ino)
    except (OSError, ValueError):
        return Presence.UNSEEN
    return Presence.UNSEEN if another else Presence.GONE


def status_of(name: str, directory: int) -> FreshStatus | None:
    """Return the status of ``name`` in an open directory, None where nothing has the name.

    Raise OSError where that cannot be seen.
    """
    try:
        return fresh_status(name, directory)
    except FileNotFoundError:
        return None
