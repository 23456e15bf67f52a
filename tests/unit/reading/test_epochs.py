"""Every epoch gives every sample as often as promised, whatever the nodes and workers."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import random
from collections import Counter
from typing import Any

import pytest

from ctrate_convert import SettingsError, Volumes, open_dataset
from ctrate_convert.reading.order.patients import patient_of, set_apart
from ctrate_convert.synthetic import write_synthetic_ctrate
from tests.support import Converted, convert_here
from tests.unit.reading.places import ARRANGEMENTS, a_copy, at, everywhere, keys_of, places

SHUFFLED: list[dict[str, Any]] = [{}, {"shuffle": True}, {"shuffle": True, "seed": 5}]


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """37 samples in 8 shards of 5, 4 and 3; patients and scans lie across shards."""
    folder = tmp_path_factory.mktemp("uneven")
    made = write_synthetic_ctrate(
        folder / "in", samples=38, shape=(4, 3, 2), layout="flat", faults=["corrupt"]
    )
    return convert_here(made, folder / "out", samples_per_shard=5)


def scan_of(key: str) -> str:
    return key.rpartition("_")[0]


def flat(epoch: list[list[str]]) -> list[str]:
    return [key for part in epoch for key in part]


def per_node(epoch: list[list[str]], nodes: int) -> list[list[list[str]]]:
    workers = len(epoch) // nodes
    return [epoch[node * workers :][:workers] for node in range(nodes)]


# --- Who reads what -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", SHUFFLED, ids=["in order", "no seed", "seed"])
@pytest.mark.parametrize(("nodes", "workers"), ARRANGEMENTS)
def test_every_sample_comes_once_an_epoch(
    nodes: int, workers: int, how: dict[str, Any], uneven: Converted
) -> None:
    """And no worker gives more than one sample more than another; nor does a node."""
    for epoch in everywhere(open_dataset(uneven.out, **how), nodes, workers, epochs=3):
        assert sorted(flat(epoch)) == sorted(uneven.originals)
        on_nodes = [len(flat(parts)) for parts in per_node(epoch, nodes)]
        for sizes in (on_nodes, [len(part) for part in epoch]):
            assert max(sizes) - min(sizes) <= 1


def test_a_node_sees_other_samples_in_each_epoch(uneven: Converted) -> None:
    """Two nodes exchange shards from epoch to epoch; without shuffle each keeps its own."""
    for how in SHUFFLED[1:]:
        epochs = everywhere(open_dataset(uneven.out, **how), 2, 0, epochs=6)
        halves = [frozenset(epoch[0]) for epoch in epochs]
        assert len(set(halves)) == 6
        assert frozenset.union(*halves) == set(uneven.originals)
    in_order = everywhere(open_dataset(uneven.out), 2, 2, epochs=2)
    assert in_order[0] == in_order[1]
    assert flat(in_order[0]) == list(Volumes(uneven.out))


def test_the_seed_and_the_epoch_decide(uneven: Converted) -> None:
    """Equal seeds and epochs give equal orders, others do not; without a seed none is equal."""
    opened = [open_dataset(uneven.out, shuffle=True, seed=seed) for seed in (5, 5, 6)]
    one, other, another = (everywhere(dataset, 2, 2, epochs=2) for dataset in opened)
    assert one == other and one != another and one[0] != one[1]
    opened[1].set_epoch(1)
    assert everywhere(opened[1], 2, 2)[0] == one[1]
    unseeded = open_dataset(uneven.out, shuffle=True)
    assert keys_of(a_copy(unseeded)) != keys_of(a_copy(unseeded))


def test_a_worker_reads_few_shards(uneven: Converted) -> None:
    """Its samples are a row of shards, of which only the first and the last are another's too."""
    shard_of = {key: sample.shard for key, sample in Volumes(uneven.out).items()}
    for epoch in everywhere(open_dataset(uneven.out, shuffle=True, seed=1), 2, 2, epochs=3):
        read = [{shard_of[key] for key in part} for part in epoch]
        assert sum(map(len, read)) <= 8 + 3


def test_more_nodes_than_samples_are_refused(uneven: Converted) -> None:
    """A node without samples would let the others wait; a worker without any just ends."""
    few = list(uneven.originals)[:2]
    assert sorted(flat(everywhere(open_dataset(uneven.out, keys=few), 1, 3)[0])) == few
    with pytest.raises(SettingsError, match="fewer samples than nodes") as refused:
        everywhere(open_dataset(uneven.out, keys=few), 3, 0)
    assert (refused.value.seen, refused.value.expected) == ("2", "3 or more")
    with pytest.raises(SettingsError, match="fewer samples than workers"):
        everywhere(open_dataset(uneven.out, keys=few, equal_steps=True), 1, 3)


# --- Equal steps --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", SHUFFLED, ids=["in order", "no seed", "seed"])
@pytest.mark.parametrize(("nodes", "workers"), ARRANGEMENTS)
def test_equal_steps(nodes: int, workers: int, how: dict[str, Any], uneven: Converted) -> None:
    """All workers give the same number, none leaves a sample out, and few come twice."""
    dataset = open_dataset(uneven.out, equal_steps=True, **how)
    each = math.ceil(len(dataset) / (nodes * max(workers, 1)))
    for epoch in everywhere(dataset, nodes, workers, epochs=2):
        assert {len(part) for part in epoch} == {each}
        assert set(flat(epoch)) == set(uneven.originals)
        for part in epoch:
            assert len(part) - len(set(part)) <= 1


# --- One reconstruction of each scan ------------------------------------------------------------


@pytest.mark.parametrize("how", SHUFFLED, ids=["in order", "no seed", "seed"])
@pytest.mark.parametrize(("nodes", "workers"), ARRANGEMENTS)
def test_one_reconstruction_of_each_scan(
    nodes: int, workers: int, how: dict[str, Any], uneven: Converted
) -> None:
    """Every scan comes once an epoch; shuffled, all of its reconstructions come in turn."""
    scans = Counter(map(scan_of, uneven.originals))
    dataset = open_dataset(uneven.out, per_scan=True, **how)
    assert len(dataset) == len(scans) < len(uneven.originals)
    turns = math.lcm(*scans.values())
    epochs = everywhere(dataset, nodes, workers, epochs=turns)
    for epoch in epochs:
        assert sorted(map(scan_of, flat(epoch))) == sorted(scans)
    seen = Counter(key for epoch in epochs for key in flat(epoch))
    if how:
        assert seen == {key: turns // scans[scan_of(key)] for key in uneven.originals}
    else:
        assert set(seen) == {min(k for k in uneven.originals if scan_of(k) == s) for s in scans}


# --- Weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nodes", "workers"), ARRANGEMENTS)
def test_weights_draw_together(nodes: int, workers: int, uneven: Converted) -> None:
    """All workers together give one draw of the whole dataset, whatever their number."""
    heavy = next(iter(uneven.originals))
    weights = dict.fromkeys(uneven.originals, 1.0) | {heavy: len(uneven.originals) - 1.0}
    dataset = open_dataset(uneven.out, shuffle=True, seed=2, weights=weights)
    epochs = everywhere(dataset, nodes, workers, epochs=8)
    drawn = [Counter(flat(epoch)) for epoch in epochs]
    assert [d.total() for d in drawn] == [len(dataset)] * 8
    alone = [Counter(flat(epoch)) for epoch in everywhere(dataset, 1, 0, epochs=8)]
    assert drawn == alone
    assert len({frozenset(d.items()) for d in drawn}) == 8
    # Half of 296 draws: 60 away would be seven standard deviations.
    assert abs(sum(d[heavy] for d in drawn) - 148) < 60


def test_weights_go_with_one_of_each_scan(uneven: Converted) -> None:
    """Only the chosen reconstructions are drawn."""
    dataset = open_dataset(
        uneven.out, shuffle=True, seed=2, per_scan=True, equal_steps=True,
        weights=dict.fromkeys(uneven.originals, 2),
    )  # fmt: skip
    (epoch,) = everywhere(dataset, 2, 2)
    by_scan = {scan_of(key): key for key in flat(epoch)}
    assert all(by_scan[scan_of(key)] == key for key in flat(epoch))
    assert len({len(part) for part in epoch}) == 1


def test_weights_that_cannot_be_used_are_refused(uneven: Converted) -> None:
    """Every sample that may come needs a positive number; others are none of our business."""
    keys = list(uneven.originals)
    weights = dict.fromkeys(keys, 1.0)
    for wrong in (0, -1, math.inf, math.nan):
        with pytest.raises(SettingsError, match="1 samples have no usable weight") as refused:
            open_dataset(uneven.out, shuffle=True, weights={**weights, keys[3]: wrong})
        assert refused.value.seen == f"{keys[3]}: {wrong}"
    with pytest.raises(SettingsError, match=f"{len(keys) - 1} samples"):
        open_dataset(uneven.out, shuffle=True, weights={keys[0]: 1})
    with pytest.raises(SettingsError, match="shuffle=True"):
        open_dataset(uneven.out, weights=weights)
    others: list[Any] = ["1", None, 1j, 10**400]
    for other in others:
        with pytest.raises(SettingsError, match="1 samples have no usable weight"):
            open_dataset(uneven.out, shuffle=True, weights={**weights, keys[3]: other})
    listed: Any = list(weights.values())
    with pytest.raises(SettingsError, match="no mapping"):
        open_dataset(uneven.out, shuffle=True, weights=listed)
    with pytest.raises(SettingsError, match="too large to be added"):
        open_dataset(uneven.out, shuffle=True, weights=dict.fromkeys(keys, 1e308))
    open_dataset(uneven.out, shuffle=True, weights=weights, keys=keys[:3])


# --- Patients apart -----------------------------------------------------------------------------


def are_apart(keys: list[str], apart: int) -> bool:
    patients = [patient_of(key) for key in keys]
    return all(
        len(set(row)) == len(row) for row in (patients[n : n + apart] for n in range(len(patients)))
    )


@pytest.mark.parametrize("how", SHUFFLED, ids=["in order", "no seed", "seed"])
@pytest.mark.parametrize(("nodes", "workers"), [(1, 0), (1, 2), (2, 0), (2, 2)])
def test_no_two_of_a_patient_in_a_row(
    nodes: int, workers: int, how: dict[str, Any], uneven: Converted
) -> None:
    """Whatever the batches' first samples: nothing is lost, nothing comes twice."""
    apart = 2 if nodes * workers == 4 else 3
    assert not are_apart(list(Volumes(uneven.out)), 2)
    for epoch in everywhere(open_dataset(uneven.out, apart=apart, **how), nodes, workers, 3):
        assert sorted(flat(epoch)) == sorted(uneven.originals)
        assert all(are_apart(part, apart) for part in epoch)


def test_too_many_of_a_patient_are_refused(uneven: Converted) -> None:
    """The message names the patient."""
    patients = Counter(map(patient_of, uneven.originals))
    (patient, most), *_ = patients.most_common()
    keys = [key for key in uneven.originals if patient_of(key) == patient]
    others = [key for key in uneven.originals if patient_of(key) != patient]
    dataset = open_dataset(uneven.out, keys=[*keys, *others[:1]], apart=3)
    with pytest.raises(SettingsError, match="3 samples in a row cannot be of 3") as refused:
        list(dataset)
    assert refused.value.seen == f"{patient} has {most} of the {most + 1} samples of this worker"


def test_patients_are_set_apart_wherever_that_is_possible() -> None:
    """Against trying all orders; and an order that is right already stays."""
    rng = random.Random(4)
    for _ in range(300):
        number, apart = rng.randint(0, 6), rng.randint(1, 4)
        keys = [f"train_{rng.randint(1, 3)}_a_{place + 1}" for place in range(number)]
        possible = any(are_apart(list(order), apart) for order in itertools.permutations(keys))
        if not possible:
            with pytest.raises(SettingsError):
                set_apart(keys, apart)
            continue
        order = set_apart(keys, apart)
        assert sorted(order) == list(range(number))
        assert are_apart([keys[place] for place in order], apart)
        if are_apart(keys, apart):
            assert order == list(range(number))
    for _ in range(50):
        apart = rng.randint(2, 8)
        keys = [f"train_{int(rng.expovariate(0.05)) + 1}_a_{n}" for n in range(1, 300)]
        order = set_apart(keys, apart)
        assert sorted(order) == list(range(len(keys)))
        assert are_apart([keys[place] for place in order], apart)


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"seed": 1.5}, {"apart": 0}, {"apart": 1.5}])
def test_unusable_arguments_are_refused_at_once(
    arguments: dict[str, Any], uneven: Converted
) -> None:
    with pytest.raises(SettingsError):
        open_dataset(uneven.out, **arguments)


def test_crops_of_a_volume_cannot_be_set_apart(uneven: Converted) -> None:
    """They come one after the other, and are of one patient."""
    more: dict[str, Any] = {"crop": (2, 2, 2), "apart": 2}
    with pytest.raises(SettingsError, match="apart= sets volumes apart") as refused:
        open_dataset(uneven.out, crops_per_volume=2, **more)
    assert refused.value.expected == "one of the two"
    open_dataset(uneven.out, crops_per_volume=1, **more)


# --- Counting epochs ----------------------------------------------------------------------------


def iterate(dataset: Any, place: Any, answers: Any) -> None:
    with at(place):
        answers.put([keys_of(dataset) for _ in range(2)])


def test_processes_of_ones_own_count_for_themselves(uneven: Converted) -> None:
    """A fork that is no worker of torch's goes on from the parent's epoch, as its brothers do."""
    dataset = open_dataset(uneven.out, shuffle=True, seed=1)
    first = keys_of(dataset)
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    for place in places(1, 3):
        child = fork.Process(target=iterate, args=(dataset, place, answers))
        child.start()
        child.join(60)
    parts = [answers.get(timeout=60) for _ in range(3)]
    for epoch in zip(*parts, strict=True):
        assert sorted(flat(list(epoch))) == sorted(uneven.originals)
    dataset.set_epoch(0)
    assert keys_of(dataset) == first


def test_an_iteration_that_is_dropped_counts(uneven: Converted) -> None:
    """The epoch begins when an iterator is made, so that all workers count alike."""
    dataset = open_dataset(uneven.out, shuffle=True, seed=1)
    epochs = [keys_of(dataset) for _ in range(3)]
    dataset.set_epoch(0)
    one, other = iter(dataset), iter(dataset)
    assert [sample["__key__"] for sample in other] == epochs[1]
    assert [sample["__key__"] for sample in one] == epochs[0]
    assert keys_of(dataset) == epochs[2]


def loader_of(torch: Any, dataset: Any, **more: Any) -> Any:
    return torch.utils.data.DataLoader(
        dataset.to_tuple("__key__"), batch_size=None, num_workers=2, **more
    )


@pytest.mark.parametrize(
    ("start", "persistent"), [("fork", False), ("fork", True), ("spawn", False), ("spawn", True)]
)
def test_torch_needs_no_set_epoch(start: str, persistent: bool, uneven: Converted) -> None:
    """Workers that persist and those that start anew read the same epochs, and all of each."""
    torch = pytest.importorskip("torch")
    dataset = open_dataset(uneven.out, shuffle=True, seed=3)
    loader = loader_of(torch, dataset, multiprocessing_context=start, persistent_workers=persistent)
    epochs = [[key for (key,) in loader] for _ in range(2)]
    in_turn = everywhere(open_dataset(uneven.out, shuffle=True, seed=3), 1, 2, epochs=2)
    for found, expected in zip(epochs, in_turn, strict=True):
        assert sorted(found) == sorted(uneven.originals)
        assert found == [k for pair in itertools.zip_longest(*expected) for k in pair if k]
    dataset.set_epoch(0)
    assert [key for (key,) in loader] == epochs[0]


def test_torch_iterators_at_the_same_time(uneven: Converted) -> None:
    """Each has an epoch of its own, though their workers begin in any order."""
    torch = pytest.importorskip("torch")
    loader = loader_of(torch, open_dataset(uneven.out, shuffle=True, seed=3))
    next(iter(loader))
    pairs = [(one, other) for (one,), (other,) in zip(loader, loader, strict=True)]
    for found in zip(*pairs, strict=True):
        assert sorted(found) == sorted(uneven.originals)
    assert len(set(zip(*pairs, strict=True))) == 2
