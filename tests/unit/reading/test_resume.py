"""Resuming gives exactly what was left, reads nothing before it, and refuses any other state."""

from __future__ import annotations

import copy
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert import DamageError, SettingsError, Volumes, open_dataset
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from tests.support import Converted, convert_here
from tests.unit.reading.places import ARRANGEMENTS, a_copy, at, keys_of, places, through_json

CROP = (2, 2, 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCtRate:
    return write_synthetic_ctrate(
        tmp_path_factory.mktemp("in"), samples=26, shape=(6, 5, 4), layout="flat"
    )


@pytest.fixture(scope="module")
def way(made: SyntheticCtRate, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """26 samples in seven shards."""
    return convert_here(made, tmp_path_factory.mktemp("out") / "out", samples_per_shard=4)


WAYS: dict[str, dict[str, Any]] = {
    "in order": {},
    "no seed": {"shuffle": True},
    "seed": {"shuffle": True, "seed": 9},
    "equal": {"shuffle": True, "equal_steps": True, "per_scan": True},
    "apart": {"shuffle": True, "apart": 2},
}


def ways(way: Converted) -> dict[str, dict[str, Any]]:
    weights = {key: 1 + len(key) for key in way.originals}
    return {**WAYS, "weights": {"shuffle": True, "weights": weights}}


def told(samples: Any) -> list[tuple[str, list[int]]]:
    """All that random numbers decide of a sample."""
    return [(sample["__key__"], sample["origin"].tolist()) for sample in samples]


def taken(dataset: Any, number: int) -> Iterator[tuple[str, list[int]]]:
    yield from told(itertools.islice(iter(dataset), number))


# --- What is left -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "workers", "name"),
    [
        (nodes, workers, name)
        for nodes, workers in ARRANGEMENTS
        for name in (*WAYS, "weights")
        # Where a worker has few samples, they may all be of one patient.
        if name != "apart" or nodes * max(workers, 1) <= 3
    ],
)
def test_nothing_is_lost_and_nothing_comes_twice(
    nodes: int, workers: int, name: str, way: Converted
) -> None:
    """Broken off twice in the second epoch: its samples and crops, then the third epoch's."""
    arguments = ways(way)[name]
    epochs: list[list[str]] = [[], []]
    opened = open_dataset(way.out, crop=CROP, **arguments)
    for place in places(nodes, workers):
        with at(place):
            whole = a_copy(opened)
            keys_of(whole)
            iteration = iter(whole)
            states, samples = [], []
            for sample in iteration:
                samples += told([sample])
                states.append(through_json(whole.state_dict()))
            third = told(whole)
            first_stop = min(2, len(states)) - 1
            parts = samples[: first_stop + 1]
            resumed = open_dataset(way.out, crop=CROP, **arguments)
            resumed.load_state_dict(states[first_stop])
            assert through_json(resumed.state_dict()) == states[first_stop]
            parts += taken(resumed, 1)
            again = open_dataset(way.out, crop=CROP, **arguments)
            again.load_state_dict(through_json(resumed.state_dict()))
            parts += told(again)
            assert parts == samples
            then = told(again)
            epochs[0] += [key for key, _ in parts]
            epochs[1] += [key for key, _ in then]
            if arguments.get("seed") is not None:
                assert then == third
    if name not in ("weights", "equal"):
        for epoch in epochs:
            assert sorted(epoch) == sorted(way.originals)


@pytest.mark.parametrize("given", [1, 2, 3, 4, 7])
def test_it_goes_on_between_two_crops_of_a_volume(given: int, way: Converted) -> None:
    """Each crop is a sample: those that were given do not come again, the others do."""
    arguments: dict[str, Any] = {"crop": CROP, "crops_per_volume": 3, "shuffle": True, "seed": 4}
    whole = told(open_dataset(way.out, **arguments))
    begun = open_dataset(way.out, **arguments)
    assert len(begun) == len(whole) == 3 * len(way.originals)
    first = list(taken(begun, given))
    resumed = open_dataset(way.out, **arguments)
    resumed.load_state_dict(through_json(begun.state_dict()))
    assert first + told(resumed) == whole
    other = open_dataset(way.out, **{**arguments, "crops_per_volume": 2})
    with pytest.raises(SettingsError, match="crops_per_volume"):
        other.load_state_dict(begun.state_dict())


def test_a_state_of_a_whole_epoch_has_nothing_left(way: Converted) -> None:
    """Then comes the next epoch; and a state before the first sample is the whole epoch's."""
    dataset = open_dataset(way.out, shuffle=True, seed=1)
    begin = dataset.state_dict()
    epochs = [keys_of(dataset)]
    end = dataset.state_dict()
    epochs.append(keys_of(dataset))
    dataset.load_state_dict(end)
    assert [keys_of(dataset), keys_of(dataset)] == [[], epochs[1]]
    dataset.load_state_dict(begin)
    assert [keys_of(dataset), keys_of(dataset)] == epochs
    dataset.load_state_dict(end)
    dataset.set_epoch(1)
    assert keys_of(dataset) == epochs[1]


def test_a_loop_may_set_the_epoch_that_it_resumes(way: Converted) -> None:
    """As loops do before each epoch; another epoch is begun from its first sample."""
    dataset = open_dataset(way.out, shuffle=True, seed=1)
    epochs = [keys_of(dataset) for _ in range(2)]
    dataset.set_epoch(1)
    state = state_at(dataset)
    resumed = open_dataset(way.out, shuffle=True, seed=1)
    resumed.load_state_dict(state)
    resumed.set_epoch(1)
    assert keys_of(resumed) == epochs[1][3:]
    resumed.load_state_dict(state)
    resumed.set_epoch(0)
    assert [keys_of(resumed), keys_of(resumed)] == epochs
    with pytest.raises(SettingsError, match="no such epoch"):
        resumed.set_epoch(-1)


def test_stages_keep_the_place(way: Converted) -> None:
    """The states of a pipeline with further stages count the samples that went into its batches."""
    opened = open_dataset(way.out, shuffle=True, seed=1, crop=CROP)
    dataset = opened.to_tuple("__key__", "array").batched(4)
    whole = [batch[0] for batch in dataset]
    dataset.set_epoch(0)
    iteration = iter(dataset)
    part = [next(iteration)[0] for _ in range(2)]
    other = open_dataset(way.out, shuffle=True, seed=1, crop=CROP)
    other = other.to_tuple("__key__", "array").batched(4)
    other.load_state_dict(through_json(dataset.state_dict()))
    assert part + [batch[0] for batch in other] == whole
    with pytest.raises(SettingsError, match="with_epoch"):
        open_dataset(way.out).with_epoch(5).state_dict()


def test_a_sample_that_could_not_be_read_is_not_counted(
    made: SyntheticCtRate, tmp_path: Path
) -> None:
    """A resumed run tries it again."""
    way = convert_here(made, tmp_path / "out", samples_per_shard=4)
    keys = list(Volumes(way.out))
    hidden = tmp_path / "hidden.tar"
    (way.out / "shard-000001.tar").rename(hidden)
    dataset = open_dataset(way.out)
    with pytest.raises(DamageError):
        list(dataset)
    state = dataset.state_dict()
    assert state["given"] == 4
    hidden.rename(way.out / "shard-000001.tar")
    dataset.load_state_dict(state)
    assert keys_of(dataset) == keys[4:]


# --- What is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [False, True])
def test_what_was_given_is_not_read(shuffle: bool, made: SyntheticCtRate, tmp_path: Path) -> None:
    """All bytes of the given samples are gone, and shards that have no others are too."""
    way = convert_here(made, tmp_path / "out", samples_per_shard=4)
    dataset = open_dataset(way.out, shuffle=shuffle, seed=4)
    whole = keys_of(dataset)
    dataset.set_epoch(0)
    given = [key for key, _ in taken(dataset, 18)]
    state = dataset.state_dict()
    stored = {key: sample.shard for key, sample in Volumes(way.out).items()}
    places_of = {one.key: one for number in range(7) for one in way.record(number).converted}
    for key in given:
        path = Path(stored[key])
        path.chmod(0o644)
        with path.open("r+b") as stream:
            for member in places_of[key].members:
                stream.seek(member.offset - 512)
                stream.write(bytes(member.size_bytes + 512))
    needed = {stored[key] for key in whole[18:]}
    for shard in set(stored.values()) - needed:
        Path(shard).unlink()
    assert shuffle or len(needed) == 3
    with pytest.raises(DamageError):
        list(open_dataset(way.out, shuffle=shuffle, seed=4))
    resumed = open_dataset(way.out, shuffle=shuffle, seed=4)
    resumed.load_state_dict(state)
    assert keys_of(resumed) == whole[18:]


# --- What is refused ----------------------------------------------------------------------------


def state_at(dataset: Any, number: int = 3) -> dict[str, Any]:
    list(taken(dataset, number))
    return through_json(dataset.state_dict())


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("seed", 2), ("seed", None), ("shuffle", False), ("per_scan", True), ("equal_steps", True),
        ("apart", 2), ("keys", 5), ("weights", 1),
    ],
)  # fmt: skip
def test_another_order_is_refused(name: str, other: Any, way: Converted) -> None:
    """By the name of the argument, with both values."""
    keys = list(way.originals)
    if name == "keys":
        other = keys[:other]
    if name == "weights":
        other = dict.fromkeys(keys, other)
    arguments = {"shuffle": True, "seed": 1}
    state = state_at(open_dataset(way.out, **arguments))  # type: ignore[arg-type]
    changed = open_dataset(way.out, **{**arguments, name: other})
    with pytest.raises(SettingsError, match=f"another {name}=") as refused:
        changed.load_state_dict(state)
    if name == "apart":
        assert (refused.value.seen, refused.value.expected) == ("1", "2")


def test_another_dataset_is_refused(made: SyntheticCtRate, way: Converted, tmp_path: Path) -> None:
    """A copy in another folder is the same dataset; other shards are not."""
    state = state_at(open_dataset(way.out))
    copied = tmp_path / "copy"
    shutil.copytree(way.out, copied)
    dataset = open_dataset(copied)
    dataset.load_state_dict(state)
    assert len(keys_of(dataset)) == len(dataset) - 3
    other = convert_here(made, tmp_path / "other", samples_per_shard=5)
    with pytest.raises(SettingsError, match="another dataset") as refused:
        open_dataset(other.out).load_state_dict(state)
    assert refused.value.seen and refused.value.expected


@pytest.mark.parametrize(
    "other", [(0, 2, 1, 3), (0, 2, 1, 2), (1, 2, 1, 3), (0, 3, 0, 3), (0, 2, 0, 0)]
)
def test_another_number_of_workers_is_refused(other: Any, way: Converted) -> None:
    """The message has both places; also where the state was loaded before the workers began."""
    with at((0, 2, 0, 3)):
        state = state_at(open_dataset(way.out))
        loaded = open_dataset(way.out)
        loaded.load_state_dict(state)
    with at(other), pytest.raises(SettingsError, match="another worker") as refused:
        open_dataset(way.out).load_state_dict(state)
    assert refused.value.expected is not None
    assert refused.value.seen == "worker 0 of 3 on node 0 of 2"
    assert refused.value.expected.startswith("worker ")
    with at(other), pytest.raises(SettingsError, match="another worker"):
        list(loaded)


@pytest.mark.parametrize(
    "change",
    [
        {"schema_number": 2}, {"given": -1}, {"given": "3"}, {"epoch": 0.5}, {"more": 1},
        {"order": None}, {"entropy": -1},
    ],
)  # fmt: skip
def test_what_is_no_state_is_refused(change: dict[str, Any], way: Converted) -> None:
    state = state_at(open_dataset(way.out))
    dataset = open_dataset(way.out)
    with pytest.raises(SettingsError, match="no state that can be resumed") as refused:
        dataset.load_state_dict({**state, **change})
    assert refused.value.where == next(iter(change))
    with pytest.raises(SettingsError, match="no state"):
        dataset.load_state_dict({})
    assert len(keys_of(dataset)) == len(dataset)


def test_an_order_that_cannot_be_made_again_is_refused(way: Converted) -> None:
    """As with a numpy whose random numbers are others: not a sample of a wrong order comes."""
    dataset = open_dataset(way.out, shuffle=True, seed=1)
    state = state_at(dataset) | {"list_sha256": "0" * 64}
    dataset.load_state_dict(state)
    with pytest.raises(SettingsError, match="cannot be made again"):
        next(iter(dataset))


# --- torch --------------------------------------------------------------------------------------


def stateful(dataset: Any, workers: int, start: str = "fork", persistent: bool = False) -> Any:
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    return loaders.StatefulDataLoader(
        dataset.to_tuple("__key__", "origin"),
        batch_size=3,
        num_workers=workers,
        multiprocessing_context=start if workers else None,
        persistent_workers=persistent,
        collate_fn=list,
    )


def batches_of(iteration: Any, number: int | None = None) -> list[list[tuple[str, list[int]]]]:
    return [
        [(key, np.asarray(origin).tolist()) for key, origin in batch]
        for batch in itertools.islice(iteration, number)
    ]


@pytest.mark.parametrize(
    ("workers", "start", "persistent", "seed"),
    [
        (0, "", False, None), (0, "", False, 7), (2, "fork", False, None), (2, "fork", False, 7),
        (2, "fork", True, None), (2, "fork", True, 7), (2, "spawn", True, 7),
    ],
)  # fmt: skip
def test_a_stateful_loader_resumes(
    workers: int, start: str, persistent: bool, seed: int | None, way: Converted
) -> None:
    """Within the second epoch, twice, in loaders of their own; then comes the third."""

    def loader() -> Any:
        dataset = open_dataset(way.out, crop=CROP, shuffle=True, seed=seed)
        return stateful(dataset, workers, start, persistent)

    one = loader()
    first = batches_of(one)
    iteration = iter(one)
    second = batches_of(iteration, 4)
    state = copy.deepcopy(one.state_dict())
    rest = batches_of(iteration)
    after = copy.deepcopy(one.state_dict())
    third = batches_of(one)
    other = loader()
    other.load_state_dict(state)
    resumed = batches_of(iter(other), 2)
    state = copy.deepcopy(other.state_dict())
    another = loader()
    another.load_state_dict(state)
    resumed += batches_of(another)
    assert resumed == rest
    following = batches_of(another)
    for epoch in (first, second + rest, third, following):
        assert sorted(key for batch in epoch for key, _ in batch) == sorted(way.originals)
    last = loader()
    last.load_state_dict(after)
    at_once = batches_of(last)
    if seed is not None:
        assert following == third == at_once
    assert sorted(key for batch in at_once for key, _ in batch) == sorted(way.originals)


def test_a_stateful_loader_with_other_workers_is_refused(way: Converted) -> None:
    """Fewer workers or none cannot go on where others were."""
    one = stateful(open_dataset(way.out), 2)
    batches_of(iter(one), 1)
    state = one.state_dict()
    other = stateful(open_dataset(way.out), 1)
    other.load_state_dict(state)
    with pytest.raises(SettingsError, match="worker 0 of 2"):
        batches_of(other)


def test_the_parent_does_not_answer_for_its_workers(way: Converted) -> None:
    """A plain loader's workers keep their places to themselves: its dataset says so."""
    torch = pytest.importorskip("torch")
    dataset = open_dataset(way.out, shuffle=True, seed=1)
    loader = torch.utils.data.DataLoader(
        dataset.to_tuple("__key__"), batch_size=None, num_workers=2
    )
    list(loader)
    with pytest.raises(SettingsError, match="StatefulDataLoader"):
        dataset.state_dict()
    dataset.set_epoch(4)
    assert dataset.state_dict()["epoch"] == 4
    alone = open_dataset(way.out)
    alone.load_state_dict(state_at(open_dataset(way.out)))
    loader = torch.utils.data.DataLoader(alone.to_tuple("__key__"), batch_size=None, num_workers=1)
    with pytest.raises(SettingsError, match="StatefulDataLoader"):
        list(loader)
    assert len(keys_of(alone)) == len(alone) - 3
