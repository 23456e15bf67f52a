"""Read a published shard from storage, past the page cache, by the code that users read with."""

from __future__ import annotations

from ctrate_convert.reading.index import Shard
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.record import TarRecord
from ctrate_convert.store.storage_reader import StorageReader


def recorded_shard(dataset: Dataset, index: int, tar: TarRecord | None) -> Shard:
    """Return the shard ``index`` in the form that the reading code takes."""
    verify = f"ctrate-convert verify {dataset.out} --full"
    return Shard(str(dataset.shard(index)), tar.size_bytes if tar else 0, verify)


class StoredShard(ShardFile):
    """A `ShardFile` that reads from storage; a context manager.

    Blosc2 opens the file by itself. It reads through the page cache, which was emptied first.
    """

    def __init__(self, shard: Shard) -> None:
        super().__init__(shard)
        self._storage = StorageReader(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        self._storage.close()
        super().close()

    def _read_some(self, view: memoryview, offset: int) -> int:
        self._storage.seek(offset)
        piece = self._storage.take(len(view))
        view[: len(piece)] = piece
        return len(piece)
