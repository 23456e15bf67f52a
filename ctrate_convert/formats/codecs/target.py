"""The target of an array member, and the base class of all array writers."""

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
    """An array member to be written.

    ``scratch`` is the folder for a scratch file. ``attributes`` are stored in the frame if the
    encoding has a place for them. ``header`` is True if an npy header precedes raw elements.
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
        """The size of all elements in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class ArrayWriter(ABC):
    """A writer of one array member; a context manager that leaves no scratch file behind."""

    @abstractmethod
    def put(self, block: NDArray[Any]) -> None:
        """Write the next elements, 1-D, in C order, in the target type."""

    @abstractmethod
    def finish(self) -> WrittenMember:
        """Finish the member and return it.

        Its digest is that of the stored bytes, and empty if these are the elements themselves.
        """

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Release what the writer still holds."""

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
