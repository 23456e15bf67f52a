"""Make the memory that arrays are read into: numpy's own, or that of torch tensors.

In a worker process of torch's ``DataLoader`` tensors lie in shared memory from the start. What the
worker hands to the main process is then a name; else torch would copy every voxel to new shared
memory, which takes longer than reading it.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SettingsError
from ctrate_convert.reading.boxes import Shape


class Room(Protocol):
    """Makes the memory for arrays."""

    def make(self, shape: Shape, dtype: np.dtype[Any]) -> tuple[Any, NDArray[Any]]:
        """Return what to give to the user, and the array, in C order, that fills it."""
        ...


class Arrays:
    """Room in numpy arrays."""

    def make(self, shape: Shape, dtype: np.dtype[Any]) -> tuple[Any, NDArray[Any]]:
        """Return the same new array twice."""
        values: NDArray[Any] = np.empty(shape, dtype)
        return values, values


class Tensors:
    """Room in torch tensors, which in a worker of a ``DataLoader`` lie in shared memory.

    Raises:
        SettingsError: torch is not installed.
    """

    def __init__(self) -> None:
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise SettingsError(
                "tensors=True needs torch, which is not installed", next_command="pip install torch"
            ) from error

    def make(self, shape: Shape, dtype: np.dtype[Any]) -> tuple[Any, NDArray[Any]]:
        """Return a new tensor, and an array of the same memory."""
        import torch
        import torch.utils.data

        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        if torch.utils.data.get_worker_info() is None:
            tensor = torch.empty(shape, dtype=kind)
        else:
            storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
            tensor = torch.empty(0, dtype=kind).set_(storage, 0, shape)
        return tensor, tensor.numpy()
