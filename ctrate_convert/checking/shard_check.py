"""Check one published shard: compare what is on storage now with the shard's record.

`verify`, `audit` and the repair judge a shard by this check alone. It reports what is wrong, and
never raises.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import blake3
import numpy as np

from ctrate_convert.checking.damage import told
from ctrate_convert.errors import DamageError
from ctrate_convert.formats.npy_header import header_bytes
from ctrate_convert.shards.readback import header_size, read_shard, stored_digest
from ctrate_convert.store.durable import drop_page_cache, open_regular
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Recorded
from ctrate_convert.store.records.damage import Damage
from ctrate_convert.store.records.plan import Layout
from ctrate_convert.store.records.record import (
    ArrayRecord,
    ConvertedSample,
    MemberRecord,
    ShardRecord,
)

_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class ShardCheck:
    """The damage that was found in one shard, and the keys of the samples that were read."""

    damage: tuple[Damage, ...] = ()
    read: frozenset[str] = frozenset()
    read_whole: bool = False
    read_bytes: int = 0

    @cached_property
    def wrong(self) -> dict[str | None, list[str]]:
        """The findings by key; under None, with the shard's name, those on the whole shard."""
        found: dict[str | None, list[str]] = {}
        for one in self.damage:
            what = f"{one.shard}: {one.what}" if one.key is None else one.what
            found.setdefault(one.key, []).append(what)
        return found


def check_shard(
    dataset: Dataset, recorded: Recorded, chosen: frozenset[str], *, everything: bool
) -> ShardCheck:
    """Check the shard's file, and read the members of the ``chosen`` samples from storage.

    The shard is read whole if ``everything`` is to be read, or if all its samples are chosen; but
    if a repair has copied samples of it elsewhere, only its chosen samples count.
    """
    record = recorded.record
    readable, damage = file_damage(dataset, recorded)
    if not (readable and chosen):
        return ShardCheck(damage)
    samples = [sample for sample in record.converted if sample.key in chosen]
    whole = recorded.is_whole and (everything or len(samples) == len(record.converted))
    path, layout = dataset.shard(record.shard), recorded.plan.settings.layout
    read = check_samples(path, record, layout, samples, whole=whole)
    return replace(read, damage=damage + read.damage)


def file_damage(dataset: Dataset, recorded: Recorded) -> tuple[bool, tuple[Damage, ...]]:
    """Return whether the shard's file can be read, and what its status shows to be wrong.

    The size of a shard of which a repair has copied samples elsewhere does not count: such a shard
    is known to be damaged.
    """
    path, tar = dataset.shard(recorded.record.shard), recorded.record.tar
    readable, what = False, ""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError as error:
        what = f"cannot be seen: {error.strerror}; it held {len(recorded.live)} samples"
    else:
        readable = tar is not None and stat.S_ISREG(status.st_mode)
        if tar is None:
            what = "its record says that it was never published"
        elif not readable:
            what = "is no regular file"
        elif recorded.is_whole and status.st_size != tar.size_bytes:
            what = f"has {status.st_size} bytes, expected {tar.size_bytes}"
    return readable, (Damage(path.name, None, what),) if what else ()


def check_samples(
    path: Path,
    record: ShardRecord,
    layout: Layout,
    samples: Sequence[ConvertedSample],
    *,
    whole: bool,
) -> ShardCheck:
    """Read the members of ``samples`` from storage, or all of the shard if ``whole``."""
    try:
        return _whole(path, record, layout) if whole else _members(path, layout, samples)
    except (DamageError, OSError) as error:
        return ShardCheck((Damage(path.name, None, told(error)),))


def _whole(path: Path, record: ShardRecord, layout: Layout) -> ShardCheck:
    read = read_shard(path, record.converted, layout)
    damage = read.damage
    if not damage and record.tar and read.sha256 != record.tar.sha256:
        digests = f"SHA-256 {read.sha256[:16]}…, expected {record.tar.sha256[:16]}…"
        damage = (Damage(path.name, None, f"has changed outside every member: {digests}"),)
    keys = frozenset(sample.key for sample in record.converted)
    return ShardCheck(damage, keys, read_whole=True, read_bytes=read.identity.size_bytes)


def _members(path: Path, layout: Layout, samples: Sequence[ConvertedSample]) -> ShardCheck:
    damage, read = [], []
    with open_regular(path) as stream:
        size_bytes = os.fstat(stream.fileno()).st_size
        # The bytes must come from storage, not from the kernel's memory.
        drop_page_cache(stream.fileno())
        for sample in samples:
            members = sample.all_members
            wrong = [
                what for m in members for what in _header_damage(stream, m, layout, size_bytes)
            ]
            if not wrong:
                read.append(sample)
                wrong = [w for m in members for w in _change(stream, m, layout)]
            damage += [Damage(path.name, sample.key, what) for what in wrong]
    return ShardCheck(
        tuple(damage),
        frozenset(sample.key for sample in read),
        read_bytes=sum(tarfile.BLOCKSIZE + m.size_bytes for one in read for m in one.all_members),
    )


def _header_damage(
    stream: BinaryIO, member: ArrayRecord | MemberRecord, layout: Layout, size_bytes: int
) -> Iterator[str]:
    """Yield what is wrong before the digested bytes: in the tar header and the npy header."""
    if not tarfile.BLOCKSIZE <= member.offset <= size_bytes - member.size_bytes:
        yield f"member {member.name} lies beyond the {size_bytes} bytes of its shard"
        return
    stream.seek(member.offset - tarfile.BLOCKSIZE)
    yield from _tar_header_damage(stream.read(tarfile.BLOCKSIZE), member)
    if isinstance(member, ArrayRecord) and header_size(member, layout):
        expected = header_bytes(np.dtype(member.dtype), member.shape)
        if stream.read(len(expected)) != expected:
            yield f"member {member.name} has a damaged npy header"


def _tar_header_damage(block: bytes, member: ArrayRecord | MemberRecord) -> Iterator[str]:
    try:
        info = tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        yield f"member {member.name} has a damaged tar header: {error}"
        return
    if (info.name, info.size, info.isreg()) != (member.name, member.size_bytes, True):
        yield (
            f"the tar header of member {member.name} tells of {info.name!r} with {info.size} bytes"
        )


def _change(stream: BinaryIO, member: ArrayRecord | MemberRecord, layout: Layout) -> Iterator[str]:
    """Yield a finding if the digested bytes are not the recorded ones."""
    end = member.offset + member.size_bytes
    left = member.size_bytes - header_size(member, layout)
    stream.seek(end - left)
    digest = blake3.blake3()
    while left > 0 and (data := stream.read(min(_BLOCK_BYTES, left))):
        digest.update(data)
        left -= len(data)
    if left or digest.hexdigest() != stored_digest(member):
        yield f"member {member.name} has changed (bytes {member.offset}–{end})"
