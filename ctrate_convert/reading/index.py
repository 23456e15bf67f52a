"""What is published, as the manifest and the records tell it: where each sample's bytes lie."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.conversion.manifest import load_manifest
from ctrate_convert.errors import DamageError, SettingsError
from ctrate_convert.formats.members import LAYOUTS
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.base import parse
from ctrate_convert.schemas.manifest import ManifestShard
from ctrate_convert.schemas.plan import Encoding
from ctrate_convert.schemas.record import ArrayRecord, ConvertedSample, MemberRecord, ShardRecord


@dataclass(frozen=True)
class Shard:
    """A published shard: where it is, how long it must be, and what mends it where it is not."""

    path: str
    size_bytes: int
    next_command: str

    def damage(self, what: str, *, seen: object = None, expected: object = None) -> DamageError:
        """What to raise where the shard is not what its record says."""
        return DamageError(
            what, where=self.path, seen=seen, expected=expected, next_command=self.next_command
        )


@dataclass(frozen=True, slots=True)
class Member:
    """One member's payload."""

    name: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ArrayMember(Member):
    """The array's payload; its fields are those of the record."""

    dtype: str
    shape: tuple[int, int, int]
    encoding: Encoding
    value_scale: float
    value_min: float


@dataclass(frozen=True, slots=True)
class StoredSample:
    """All that is needed to read a sample, or a part of it, without reading anything before it."""

    key: str
    shard: Shard
    array: ArrayMember
    json: Member
    report: Member
    labels: Member


class Index:
    """The published samples of a dataset directory, in shard order.

    A shard's record is read when its samples are first asked for, and kept in a compact form.

    Raises:
        SettingsError: there is no manifest in ``out``, or none that names a shard.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self._dataset = Dataset(Path(out))
        manifest = load_manifest(self._dataset)
        if manifest is None:
            raise SettingsError(
                "no manifest here that can be read",
                where=self._dataset.manifest,
                next_command=f"ctrate-convert merge {self._out}",
            )
        self._plans = frozenset(manifest.plans)
        layout = LAYOUTS[next(name for name in LAYOUTS if name == manifest.layout)]
        self._small = (layout.json, layout.report, layout.labels)
        self.shards = tuple(shard for shard in manifest.shards if shard.samples)
        if not self.shards:
            raise SettingsError(
                "no shard is published yet",
                where=self._dataset.out,
                next_command=f"ctrate-convert run {self._out}",
            )
        self._known: dict[str, tuple[StoredSample, ...]] = {}

    def __len__(self) -> int:
        return sum(shard.samples for shard in self.shards)

    def __iter__(self) -> Iterator[StoredSample]:
        for shard in self.shards:
            yield from self.samples(shard)

    def samples(self, shard: ManifestShard) -> Sequence[StoredSample]:
        """The samples of one shard in their order.

        Raises:
            DamageError: its record is missing, damaged, or not the one that was merged.
        """
        if shard.name not in self._known:
            self._known[shard.name] = tuple(self._load(shard))
        return self._known[shard.name]

    @property
    def _out(self) -> str:
        return shlex.quote(str(self._dataset.out))

    def _load(self, merged: ManifestShard) -> Iterator[StoredSample]:
        number = int(Path(merged.name).stem.removeprefix("shard-"))
        path = self._dataset.record(number)
        verify = f"ctrate-convert verify {self._out} --full"
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise DamageError(
                "the record of a shard is missing", where=path, next_command=verify
            ) from error
        record = parse(ShardRecord, data, path)
        # The merger hashes what it parsed, which is the file but for later program versions.
        same = merged.record_sha256 == record.stored_sha256()
        if not same or record.tar is None or record.plan_id not in self._plans:
            raise DamageError(
                "a record is not the one that the manifest knows", where=path, next_command=verify
            )
        shard = Shard(str(self._dataset.shard(number)), record.tar.size_bytes, verify)
        for sample in record.converted:
            yield self._stored(sample, shard)

    def _stored(self, sample: ConvertedSample, shard: Shard) -> StoredSample:
        members = {member.name: member for member in sample.members}
        try:
            small = [_member(members[f"{sample.key}.{suffix}"]) for suffix in self._small]
        except KeyError as error:
            raise shard.damage(
                f"the record of {sample.key} lacks a member", expected=error.args[0]
            ) from error
        return StoredSample(sample.key, shard, _array(sample.array), *small)


def _member(record: MemberRecord) -> Member:
    return Member(record.name, record.offset, record.size_bytes)


def _array(record: ArrayRecord) -> ArrayMember:
    return ArrayMember(
        name=record.name,
        offset=record.offset,
        size_bytes=record.size_bytes,
        dtype=record.dtype,
        shape=record.shape,
        encoding=record.encoding,
        value_scale=record.value_scale,
        value_min=record.value_min,
    )
