"""The nodes and workers of a training run, in this process: as webdataset finds them."""

from __future__ import annotations

import itertools
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

NODES = (1, 2, 3, 4)
WORKERS = (0, 1, 2, 3)
"""As in ``num_workers=``: with 0 the samples are read in the node's own process."""

ARRANGEMENTS = list(itertools.product(NODES, WORKERS))

Place = tuple[int, int, int, int]


def places(nodes: int, workers: int) -> list[Place]:
    """Each node, number of nodes, worker and number of workers."""
    return [(n, nodes, w, workers) for n in range(nodes) for w in range(max(workers, 1))]


@contextmanager
def at(place: Place) -> Iterator[None]:
    """Make this process one of the workers."""
    node, nodes, worker, workers = place
    names = {"RANK": node, "WORLD_SIZE": nodes}
    if workers:
        names |= {"WORKER": worker, "NUM_WORKERS": workers}
    with mock.patch.dict(os.environ, {name: str(value) for name, value in names.items()}):
        yield


def a_copy(dataset: Any) -> Any:
    """A dataset as a worker gets it."""
    return pickle.loads(pickle.dumps(dataset))  # noqa: S301 - our own


def keys_of(samples: Any) -> list[str]:
    return [sample["__key__"] for sample in samples]


def everywhere(dataset: Any, nodes: int, workers: int, epochs: int = 1) -> list[list[list[str]]]:
    """For each epoch the keys that each worker of each node gives."""
    found = []
    for place in places(nodes, workers):
        with at(place):
            mine = a_copy(dataset)
            found.append([keys_of(mine) for _ in range(epochs)])
    return [list(epoch) for epoch in zip(*found, strict=True)]


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    """A state as a file keeps it."""
    loaded: dict[str, Any] = json.loads(json.dumps(state, allow_nan=False))
    return loaded
