"""A published shard as storage holds it, past the page cache, by the code that users read with."""

from __future__ import annotations

from ctrate_convert.errors import environment_problem
from ctrate_convert.reading.index import Shard
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.storage import StorageReader


class StoredShard(ShardFile):
    """A `ShardFile` that reads from storage; a context manager.

    Blosc2 opens the file by itself, and reads it through a page cache that was emptied first.
    """

    def __init__(self, shard: Shard) -> None:
        super().__init__(shard)
        self._storage = StorageReader(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        storage = getattr(self, "_storage", None)  # None: it is closed since it cannot be used
        if storage is not None:
            storage.close()
        super().close()

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view``, a view of bytes, with what storage holds from ``offset`` on."""
        try:
            self._storage.seek(offset)
            while view:
                piece = self._storage.take(len(view))
                if not piece:
                    raise self.shard.damage("a shard was cut short while it was read")
                view[: len(piece)] = piece
                view = view[len(piece) :]
        except OSError as error:
            raise environment_problem(error, "reading a shard", self.shard.path) from error
