"""Is a source there, gone, or can that not be seen? The one place that answers."""

from __future__ import annotations

import enum
from pathlib import Path

from ctrate_convert.durable import open_beneath
from ctrate_convert.fresh import FreshStatus, fresh_status

ASIDE_SUFFIX = ".leaving"


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
    return f".{name}{ASIDE_SUFFIX}"


def presence(data_folder: Path, source: str) -> Presence:
    """Look now, past any attribute cache.

    A source is gone only where the folder that held it can be opened, and has neither the name
    nor the hidden name that a deletion gives it for a while. Where a folder on the way is away,
    renamed or closed, nothing can be said of the source.
    """
    try:
        with open_beneath(data_folder, source) as (directory, name):
            # Its own name once more at last: it may have got it back between the two looks.
            names = (name, aside_name(name), name)
            there = any(status_of(one, directory) is not None for one in names)
    except (OSError, ValueError):
        return Presence.UNSEEN
    return Presence.THERE if there else Presence.GONE


def status_of(name: str, directory: int) -> FreshStatus | None:
    """Return the status of ``name`` in an open directory, None where nothing has the name.

    Raise OSError where that cannot be seen.
    """
    try:
        return fresh_status(name, directory)
    except FileNotFoundError:
        return None
