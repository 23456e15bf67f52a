"""Files that are out of the way but never deleted: hidden names that no reader takes for data.

A shard without a record goes aside where its samples were converted again from sources that were
corrected since; a damaged record where it was rebuilt from its shard.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ctrate_convert.store.durable import fsync_open_directory, rename_if_free
from ctrate_convert.store.layout import Dataset

_MARK = "set-aside"
"""Not the suffix .tar: some readers index every **/*.tar, hidden or not."""


def set_aside(path: Path) -> Path:
    """Rename ``path`` to a hidden name in its folder, durably, and return that name.

    Raises:
        OSError: it cannot be renamed.
    """
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while True:
            name = f".{path.stem}.{_MARK}.{secrets.token_hex(4)}"
            if rename_if_free(path.name, directory, name, directory):
                fsync_open_directory(directory)
                return path.with_name(name)
    finally:
        os.close(directory)


def shards_set_aside(dataset: Dataset) -> list[Path]:
    """Return the shards that lie aside in the output."""
    return sorted(dataset.out.glob(f".shard-*.{_MARK}.*"))


def records_set_aside(dataset: Dataset) -> list[Path]:
    """Return the records that lie aside."""
    return sorted(dataset.records.glob(f".shard-*.{_MARK}.*"))


def aside_notes(dataset: Dataset) -> list[str]:
    """Describe each file that lies aside, for a person to decide about."""
    shards = [
        f"{path.name}: a shard that an interrupted run left without a record; its sources were "
        "changed since and converted again. Nothing reads it; you may delete it"
        for path in shards_set_aside(dataset)
    ]
    records = [
        f"{path.parent.name}/{path.name}: a damaged record that was rebuilt from its shard; you "
        "may delete it"
        for path in records_set_aside(dataset)
    ]
    return shards + records
