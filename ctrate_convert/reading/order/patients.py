"""Choose one reconstruction of each scan, and keep the samples of a patient apart."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence

import numpy as np

from ctrate_convert.errors import SettingsError
from ctrate_convert.formats.names import parse_key


def patient_of(key: str) -> str:
    """Return the split and patient of a key, ``train_1``; another key is a patient of its own."""
    name = parse_key(key)
    return key if name is None else f"{name.split}_{name.patient}"


def group_by_scan(keys: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the keys of each scan, by the number of the reconstruction; scans as first met."""
    scans: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        scans[key if parse_key(key) is None else key.rpartition("_")[0]].append(key)
    return [tuple(sorted(scan, key=lambda key: (len(key), key))) for scan in scans.values()]


def choose_one_of_each(
    scans: Sequence[tuple[str, ...]], epoch: int, rng: np.random.Generator | None
) -> frozenset[str]:
    """Return one key of each scan: the first, or with ``rng`` another one in each epoch.

    ``rng`` draws where a scan begins and has to be the same in each epoch; from there on a scan's
    reconstructions follow in turn.
    """
    if rng is None:
        return frozenset(scan[0] for scan in scans)
    starts = rng.integers(2**31, size=len(scans))
    return frozenset(
        scan[(int(start) + epoch) % len(scan)] for scan, start in zip(scans, starts, strict=True)
    )


def set_apart(keys: Sequence[str], apart: int) -> list[int]:
    """Return all places of ``keys`` in an order where ``apart`` in a row are of as many patients.

    The order stays as it is but for samples that have to wait for their turn.

    Raises:
        SettingsError: there is no such order, as one patient has too many of the samples.
    """
    patients = [patient_of(key) for key in keys]
    counts = Counter(patients)
    most = max(counts.values(), default=0)
    # Known from scheduling with a cool-down: this condition is necessary and sufficient.
    if (most - 1) * apart + sum(count == most for count in counts.values()) > len(keys):
        patient = next(name for name, count in counts.items() if count == most)
        raise SettingsError(
            f"{apart} samples in a row cannot be of {apart} patients",
            seen=f"{patient} has {most} of the {len(keys)} samples of this worker",
            expected="a smaller apart=, fewer workers, per_scan=True, or other keys=",
        )
    order = _in_turn(patients, apart, most_first=False)
    left = sorted(set(range(len(keys))).difference(order))
    if all(_insert(order, place, patients, apart) for place in left):
        return order
    return _in_turn(patients, apart, most_first=True)


def _in_turn(patients: Sequence[str], apart: int, *, most_first: bool) -> list[int]:
    """Return places in order, each the first whose patient is free, until there is none.

    With ``most_first`` it is the patient with the most samples left, and none is left over.
    """
    waiting: dict[str, deque[int]] = {}
    for place, patient in enumerate(patients):
        waiting.setdefault(patient, deque()).append(place)

    def entry(patient: str) -> tuple[int, int, str]:
        places = waiting[patient]
        return (-len(places) if most_first else 0, places[0], patient)

    free = [entry(patient) for patient in waiting]
    heapq.heapify(free)
    order: list[int] = []
    while free:
        _, place, patient = heapq.heappop(free)
        waiting[patient].popleft()
        order.append(place)
        if len(order) >= apart:
            rested = patients[order[-apart]]
            if waiting[rested]:
                heapq.heappush(free, entry(rested))
    return order


def _insert(order: list[int], place: int, patients: Sequence[str], apart: int) -> bool:
    """Insert a place as late as its patient may stand; others only move further apart."""
    patient = patients[place]
    since = 0
    for at in range(len(order), -1, -1):
        # ``since`` others follow until the same patient comes again, or the end does.
        before = order[max(0, at - apart + 1) : at]
        clear = since >= apart - 1 or at + since == len(order)
        if clear and all(patients[other] != patient for other in before):
            order.insert(at, place)
            return True
        since = 0 if at and patients[order[at - 1]] == patient else since + 1
    return False
