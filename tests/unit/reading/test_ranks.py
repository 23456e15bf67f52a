"""Ranks of one machine that inherit a dataset count for themselves, and see who they are."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

from ctrate_convert import open_dataset
from ctrate_convert.synthetic import write_synthetic_ctrate
from tests.support import Converted, convert_here

RANKS, EPOCHS = 2, 3
Start = Literal["fork", "spawn"]


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    made = write_synthetic_ctrate(
        tmp_path_factory.mktemp("in"), samples=13, shape=(6, 5, 4), layout="flat"
    )
    return convert_here(made, tmp_path_factory.mktemp("out") / "out", samples_per_shard=3)


def one_rank(
    dataset: Any, rank: int, store: str, workers: str, set_epochs: bool, answer: Any
) -> None:
    """What a rank of a training program does; each has another seed, as is usual."""
    import torch

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS
    )
    torch.manual_seed(1000 + rank)
    found = []
    for epoch in range(EPOCHS):
        if set_epochs:
            dataset.set_epoch(epoch)
        loader = torch.utils.data.DataLoader(
            dataset.to_tuple("__key__"), batch_size=None, num_workers=2,
            multiprocessing_context=workers,
        )  # fmt: skip
        found.append([key for (key,) in loader])
    answer.put((rank, found))


@pytest.mark.parametrize("ranks", ["fork", "spawn"])
@pytest.mark.parametrize("workers", ["fork", "spawn"])
@pytest.mark.parametrize("set_epochs", [False, True])
def test_ranks_that_inherit_a_dataset_share_each_epoch(
    ranks: Start, workers: Start, set_epochs: bool, way: Converted, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As `torch.multiprocessing.spawn` and notebooks start them: nothing in the environment."""
    pytest.importorskip("torch")
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    dataset = open_dataset(way.out, shuffle=True, seed=3)
    context: Any = multiprocessing.get_context(ranks)
    answer = context.Queue()
    processes = [
        context.Process(
            target=one_rank,
            args=(dataset, rank, str(tmp_path / "store"), workers, set_epochs, answer),
        )
        for rank in range(RANKS)
    ]
    for process in processes:
        process.start()
    given = dict(answer.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    orders = set()
    for epoch in range(EPOCHS):
        keys = [key for rank in range(RANKS) for key in given[rank][epoch]]
        assert Counter(keys) == Counter(way.originals.keys())
        orders.add(tuple(keys))
    assert len(orders) == EPOCHS


@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_go_on_though_torchs_seed_is_set_before_each(
    persistent: bool, way: Converted
) -> None:
    torch = pytest.importorskip("torch")
    dataset = open_dataset(way.out, shuffle=True, seed=3)
    loader = torch.utils.data.DataLoader(
        dataset.to_tuple("__key__"), batch_size=None, num_workers=2, persistent_workers=persistent
    )
    orders = set()
    for _ in range(EPOCHS):
        torch.manual_seed(7)
        keys = [key for (key,) in loader]
        assert Counter(keys) == Counter(way.originals.keys())
        orders.add(tuple(keys))
    assert len(orders) == EPOCHS


def test_a_script_ends_without_a_word(way: Converted) -> None:
    """Its dataset is a global: it goes when the interpreter does."""
    program = f"import ctrate_convert\ndataset = ctrate_convert.open_dataset({str(way.out)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", program + "next(iter(dataset))\n"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
