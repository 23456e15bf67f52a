"""Return where the members of every published sample lie, from the records alone."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from ctrate_convert.errors import DamageError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, Recorded
from ctrate_convert.store.records.plan import shard_name

BLOCK_BYTES = 512
"""A tar header takes one block, and every payload is filled up to whole blocks."""


@dataclass(frozen=True)
class Place:
    """The payload of a member: ``KEY.suffix``, its first byte in the tar, and its length."""

    name: str
    suffix: str
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class PlacedSample:
    """A sample in a tar: its members in their order, and the bytes from its first header on.

    ``superseded`` is True if a repair has published another copy, which counts instead.
    """

    key: str
    begin: int
    end: int
    members: tuple[Place, ...]
    superseded: bool


@dataclass(frozen=True)
class PlacedShard:
    """A published tar that has its recorded length. ``samples`` are all that it holds."""

    name: str
    path: Path
    size_bytes: int
    samples: tuple[PlacedSample, ...]

    @property
    def live(self) -> tuple[PlacedSample, ...]:
        """The samples that count by their copy in this shard."""
        return tuple(one for one in self.samples if not one.superseded)


@dataclass
class Places:
    """The shards in order, and those that were left out, each with the reason."""

    shards: list[PlacedShard] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def load_places(dataset: Dataset) -> Places:
    """Return the places of all published samples. No shard is opened.

    A shard is left out if its record is not reliable, or if its file is missing or has another
    length than its record says. A shard whose samples are all superseded has none to offer.

    Raises:
        SettingsError: there is no plan.
        DamageError: both copies of a plan are damaged.
        OSError: the dataset directory cannot be searched.
    """
    ledger = Ledger.load(dataset)
    places = Places([], [(shard_name(n), f"its record {why}") for n, why in ledger.damaged.items()])
    for recorded in ledger.readable():
        if recorded.shard.index in ledger.damaged or not recorded.live:
            continue
        try:
            places.shards.append(_placed(dataset, recorded))
        except DamageError as error:
            places.left_out.append((recorded.shard.name, error.one_line()))
    return places


def _placed(dataset: Dataset, recorded: Recorded) -> PlacedShard:
    path, tar = dataset.shard(recorded.shard.index), recorded.record.tar
    expected = tar.size_bytes if tar else 0
    try:
        size_bytes = os.stat(path).st_size
    except FileNotFoundError:
        raise _damaged(path, "a published shard is missing") from None
    if size_bytes != expected:
        raise _damaged(
            path,
            "a shard has another length than its record says",
            seen=f"{size_bytes} bytes",
            expected=f"{expected} bytes",
        )
    return PlacedShard(path.name, path, size_bytes, tuple(_samples(recorded)))


def _samples(recorded: Recorded) -> Iterator[PlacedSample]:
    found = []
    for sample in recorded.record.converted:
        members = sorted(
            (
                Place(one.name, one.name.removeprefix(f"{sample.key}."), one.offset, one.size_bytes)
                for one in sample.all_members
            ),
            key=lambda member: member.offset,
        )
        found.append((members[0].offset - BLOCK_BYTES, sample.key, tuple(members)))
    found.sort()
    last = found[-1][2][-1]
    ends = [*(begin for begin, _, _ in found), _filled_up(last.offset + last.size_bytes)]
    for (begin, key, placed), (_, end) in zip(found, pairwise(ends), strict=True):
        yield PlacedSample(key, begin, end, placed, key in recorded.superseded)


def _filled_up(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def _damaged(path: Path, what: str, **facts: object) -> DamageError:
    verify = f"ctrate-convert verify {shlex.quote(str(path.parent))} --full --repair"
    return DamageError(what, where=path, next_command=verify, **facts)
