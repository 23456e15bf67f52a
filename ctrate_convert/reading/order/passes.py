"""Go through a worker's samples once an epoch, and keep the place to resume from."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, ValidationError

from ctrate_convert.errors import SettingsError
from ctrate_convert.reading.index import StoredSample
from ctrate_convert.reading.order.deal import Deal, Place, list_sha256, reading_rng
from ctrate_convert.reading.order.epochs import MAX_EPOCH, EpochCount
from ctrate_convert.store.records.base import Record

_STATEFUL = "torchdata's StatefulDataLoader, which keeps and loads the state of each worker"


class State(Record):
    """A worker's place in an epoch, as `VolumeDataset.state_dict` gives it.

    ``order`` holds the arguments that decide the order. ``entropy`` is the seed of the worker's
    own order; None before an epoch without a seed. ``given`` counts the samples that were given,
    each crop of a volume for itself. ``list_sha256`` is of the keys of all volumes of this epoch
    that are the worker's, or empty before the first one.
    """

    schema_number: Literal[1] = 1
    order: dict[str, bool | int | str | None]
    node: int
    nodes: int
    worker: int
    workers: int
    epoch: int = Field(ge=0, le=MAX_EPOCH)
    entropy: int | None = Field(ge=0)
    given: int = Field(ge=0)
    list_sha256: str


class Turn(NamedTuple):
    """A sample to read, and the random numbers for it.

    ``given`` of its crops were given already. ``done`` is to be called before each of the others.
    """

    sample: StoredSample
    rng: np.random.Generator
    given: int
    done: Callable[[], None]


class Pass:
    """One worker's way through one epoch."""

    def __init__(
        self, deal: Deal, crops: int, place: Place, epoch: int, entropy: int, given: int
    ) -> None:
        self._deal = deal
        self._crops = crops
        self.place = place
        self.epoch = epoch
        self.entropy = entropy
        self.given = given
        self.list_sha256 = ""

    def turns(self) -> Iterator[Turn]:
        """Yield the samples that were not given yet.

        Raises:
            SettingsError: as `Deal.samples`; or the pass was resumed, and its order is another one.
        """
        samples = self._deal.samples(self.epoch, self.entropy, self.place)
        found = list_sha256(samples)
        if self.list_sha256 not in ("", found):
            raise SettingsError(
                "the order cannot be made again: numpy or this program may be of another version",
                where=self.place,
            )
        if self.given > len(samples) * self._crops:
            raise SettingsError(
                "the state has given more samples than there are", where=self.place,
                seen=self.given, expected=f"at most {len(samples) * self._crops}",
            )  # fmt: skip
        self.list_sha256 = found
        first, given = divmod(self.given, self._crops)
        for position in range(first, len(samples)):
            rng = reading_rng(self.epoch, self.entropy, self.place, position)
            yield Turn(samples[position], rng, given, self._give)
            given = 0

    def _give(self) -> None:
        self.given += 1


class Passes:
    """The passes of a dataset, one an epoch, and the state to resume them from.

    ``len`` is the number of samples of a pass over all nodes and workers, each sample ``crops``
    times.
    """

    def __init__(self, deal: Deal, seed: int | None, crops: int = 1) -> None:
        self._deal = deal
        self._crops = crops
        self._seed = seed
        self._count = EpochCount()
        self._facts = {**deal.facts(), "crops_per_volume": crops}
        self._last: Pass | None = None
        self._loaded: State | None = None
        self._loaded_in = 0
        self._sender: Place | None = None

    def __len__(self) -> int:
        return len(self._deal) * self._crops

    def __getstate__(self) -> dict[str, Any]:
        # A worker that torch spawns cannot see the process group of the one that sends this.
        return {**self.__dict__, "_sender": self._place()}

    def _place(self) -> Place:
        return Place.here(self._sender)

    def begin(self) -> Pass:
        """Begin the next epoch, or the rest of the one that was loaded.

        Raises:
            SettingsError: the state that was loaded is another worker's, or was loaded in another
                process.
        """
        loaded, self._loaded = self._loaded, None
        entropy = loaded.entropy if loaded else None
        if entropy is None:
            entropy = secrets.randbits(63) if self._seed is None else self._seed
        place = self._place()
        if loaded:
            _check_place(loaded, place)
            if self._loaded_in != os.getpid():
                # Else each set of new workers would resume there again.
                raise SettingsError(
                    "the state was loaded in another process than the one that reads",
                    expected=_STATEFUL,
                )
        epoch = self._count.begin(loaded.epoch if loaded else None)
        given = loaded.given if loaded else 0
        self._last = Pass(self._deal, self._crops, place, epoch, entropy, given)
        if loaded:
            self._last.list_sha256 = loaded.list_sha256
        return self._last

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass; a state of that epoch stays loaded.

        Raises:
            SettingsError: there is no such epoch.
        """
        if self._loaded is None or self._loaded.epoch != epoch:
            self._loaded = self._last = None
            self._count.set(epoch)

    def state(self) -> State:
        """Return the state of the last pass, or of the next one if there is none.

        Raises:
            SettingsError: torch's workers have begun since, and each has its own state.
        """
        if self._loaded:
            return self._loaded
        if self._count.begun_elsewhere():
            raise SettingsError(
                "the samples are given by worker processes, each with its own state",
                expected=_STATEFUL,
            )
        last = self._last
        place = last.place if last else self._place()
        return State(
            order=self._facts,
            node=place.node,
            nodes=place.nodes,
            worker=place.worker,
            workers=place.workers,
            epoch=last.epoch if last else self._count.next(),
            entropy=last.entropy if last else self._seed,
            given=last.given if last else 0,
            list_sha256=last.list_sha256 if last else "",
        )

    def load(self, fields: Mapping[str, Any]) -> None:
        """Resume from a state with the next pass.

        Raises:
            SettingsError: it is no such state, or one of another dataset, order or worker.
        """
        try:
            state = State.model_validate(dict(fields))
        except (TypeError, ValueError) as error:
            if not isinstance(error, ValidationError):
                what = "no state that can be resumed"
                raise SettingsError(
                    what, seen=type(fields).__name__, expected="a dictionary"
                ) from error
            first = error.errors(include_url=False)[0]
            raise SettingsError(
                f"no state that can be resumed: {first['msg']}",
                where=".".join(map(str, first["loc"])),
            ) from error
        for name, expected in self._facts.items():
            seen = state.order.get(name)
            if seen != expected:
                raise SettingsError(
                    "the state is of another dataset"
                    if name == "dataset"
                    else f"the state is of a dataset opened with another {name}=",
                    seen=seen,
                    expected=expected,
                )
        _check_place(state, self._place())
        self._loaded, self._loaded_in = state, os.getpid()


def _check_place(state: State, here: Place) -> None:
    place = Place(state.node, state.nodes, state.worker, state.workers)
    if place != here:
        raise SettingsError("the state is of another worker", seen=place, expected=here)
