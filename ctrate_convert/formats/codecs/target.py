"""Where an array member goes, what it is to hold, and what every writer of one promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.tar import TarWriter, WrittenMember
from ctrate_convert.store.records.plan import ChunkShape


@dataclass(frozen=True)
class ArrayTarget:
    """One array member to be written.

    ``scratch`` is the folder for a scratch file. ``attributes`` go into the frame of encodings
    that have a place for them. ``header`` tells whether npy's header precedes raw elements.
    """

    tar: TarWriter
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    scratch: Path
    header: bool = True
    chunk_shape: ChunkShape = "cube"
    attributes: dict[str, float] = field(default_factory=dict)

    @property
    def elements_bytes(self) -> int:
        """The size of all elements."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class ArrayWriter(ABC):
    """Writes one array member; a context manager that leaves no scratch file behind."""

    @abstractmethod
    def put(self, block: NDArray[Any]) -> None:
        """Take the next elements, 1-D, in C order, in the target's type."""

    @abstractmethod
    def finish(self) -> WrittenMember:
        """Finish the member. The digest is of the stored bytes; empty where those are elements."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give up whatever the writer still holds."""

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
