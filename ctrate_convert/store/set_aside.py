"""Rename files out of the way under hidden names that no reader takes for data; delete none.

A shard without a record is set aside if its sources were corrected meanwhile and converted again. A
damaged record is set aside if it was rebuilt from its shard.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ctrate_convert.store.durable import fsync_open_directory, rename_if_free
from ctrate_convert.store.layout import Dataset

_MARK = "set-aside"
"""Not the suffix .tar: some readers index every **/*.tar, hidden files too."""


def set_aside(path: Path) -> Path:
    """Rename ``path`` durably to a hidden name in its folder, and return that name.

    Raises:
        OSError: the file cannot be renamed.
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
    """Return the shards that were set aside."""
    return sorted(dataset.out.glob(f".shard-*.{_MARK}.*"))


def records_set_aside(dataset: Dataset) -> list[Path]:
    """Return the records that were set aside."""
    return sorted(dataset.records.glob(f".shard-*.{_MARK}.*"))


def aside_notes(dataset: Dataset) -> list[str]:
    """Return a note on each file that was set aside, for a person to decide about."""
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
