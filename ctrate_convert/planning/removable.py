"""Look, before anything is converted, if this user may remove sources from their folders."""

from __future__ import annotations

import os
from collections.abc import Collection

_LOOKED_AT = 500
"""So many folders at most, spread over all: a look takes a while where many mount storage."""


def why_some_stay(folders: Collection[str]) -> str:
    """Return a sentence on the folders that this user may not change, or an empty string.

    It is no reason to refuse: another user may give the deletion later.
    """
    ordered = sorted(folders)
    chosen = ordered[:: max(1, len(ordered) // _LOOKED_AT)]
    closed = [one for one in chosen if not os.access(one, os.W_OK | os.X_OK)]
    # One that is away now says nothing of the time when its sources are to go.
    closed = [one for one in closed if os.path.isdir(one)]  # noqa: PTH112
    if not closed:
        return ""
    return (
        f"this user may not remove files from {len(closed):,} of {len(chosen):,} source folders "
        f"looked at, such as {closed[0]}: what lies there is converted and stays"
    )
