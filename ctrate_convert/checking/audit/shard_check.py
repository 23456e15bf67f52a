"""Check one shard for an audit: compare what is on storage now with the record."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from ctrate_convert.errors import DamageError
from ctrate_convert.formats.members import LAYOUTS
from ctrate_convert.formats.npy_header import header_bytes
from ctrate_convert.shards.readback import NPY_HEADER_BYTES, check_members, read_shard
from ctrate_convert.store.durable import drop_page_cache, open_regular
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Recorded
from ctrate_convert.store.records.plan import Layout
from ctrate_convert.store.records.record import ArrayRecord, ConvertedSample, MemberRecord


@dataclass
class ShardCheck:
    """The result of checking one shard.

    ``read`` has the keys of the samples that were read. ``wrong`` has what is wrong by key, and
    under None what is wrong with the whole shard.
    """

    shard: int
    read: frozenset[str] = frozenset()
    read_whole: bool = False
    read_bytes: int = 0
    wrong: dict[str | None, list[str]] = field(default_factory=dict)

    def note(self, key: str | None, what: str) -> None:
        """Record what is wrong with the sample ``key``; None stands for the whole shard."""
        self.wrong.setdefault(key, []).append(what)


def check_shard(
    dataset: Dataset, recorded: Recorded, chosen: frozenset[str], *, everything: bool
) -> ShardCheck:
    """Check the shard's file, and read the members of the ``chosen`` samples from storage.

    The shard is read whole if ``everything`` is to be read, or if all its samples are chosen. A
    shard of which a repair has copied samples elsewhere is known to be damaged, so only its chosen
    samples count. What is wrong is reported, never raised.
    """
    found = ShardCheck(recorded.record.shard)
    keys = {sample.key for sample in recorded.record.converted}
    try:
        size_bytes = _look_at_file(dataset, recorded, found)
        if not chosen or size_bytes is None:
            return found
        if not recorded.superseded and (everything or chosen >= keys):
            _read_whole(dataset, recorded, found)
            found.read = chosen
        else:
            _read_members(dataset, recorded, chosen, size_bytes, found)
    except (DamageError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error.what
        found.note(None, f"{dataset.shard(found.shard).name} cannot be read: {why}")
    return found


def _look_at_file(dataset: Dataset, recorded: Recorded, found: ShardCheck) -> int | None:
    """Return the file's size; None if it is not a shard that could be read."""
    path, tar = dataset.shard(found.shard), recorded.record.tar
    status = os.stat(path, follow_symlinks=False)
    if tar is None:
        found.note(None, f"the record says that {path.name} was never published")
        return None
    if not stat.S_ISREG(status.st_mode):
        found.note(None, f"{path.name} is no regular file")
        return None
    if status.st_size != tar.size_bytes and not recorded.superseded:
        found.note(None, f"{path.name} has {status.st_size} bytes, expected {tar.size_bytes}")
    return status.st_size


def _read_whole(dataset: Dataset, recorded: Recorded, found: ShardCheck) -> None:
    record, path = recorded.record, dataset.shard(found.shard)
    read = read_shard(path, record.converted, recorded.plan.settings.layout)
    found.read_whole = True
    found.read_bytes = read.identity.size_bytes
    for damage in read.damage:
        found.note(damage.key, damage.what)
    if record.tar and read.sha256 != record.tar.sha256 and not found.wrong:
        what = f"SHA-256 {read.sha256[:16]}…, expected {record.tar.sha256[:16]}…"
        found.note(None, f"{path.name} was changed outside every member: {what}")


def _read_members(
    dataset: Dataset,
    recorded: Recorded,
    chosen: frozenset[str],
    size_bytes: int,
    found: ShardCheck,
) -> None:
    layout, path = recorded.plan.settings.layout, dataset.shard(found.shard)
    readable = []
    with open_regular(path) as stream:
        # The bytes must come from storage, not from the kernel's memory.
        drop_page_cache(stream.fileno())
        for sample in recorded.record.converted:
            if sample.key not in chosen:
                continue
            wrong = list(_header_damage(stream, sample, layout, size_bytes))
            for what in wrong:
                found.note(sample.key, what)
            if not wrong:
                readable.append(sample)
    for damage in check_members(path, readable, layout):
        found.note(damage.key, damage.what)
    found.read = frozenset(sample.key for sample in readable)
    found.read_bytes = sum(
        tarfile.BLOCKSIZE + member.size_bytes for one in readable for member in one.all_members
    )


def _header_damage(
    stream: BinaryIO, sample: ConvertedSample, layout: Layout, size_bytes: int
) -> Iterator[str]:
    """Yield what is wrong before the digested bytes: in tar headers and the array's npy header."""
    for member in sample.all_members:
        if not tarfile.BLOCKSIZE <= member.offset <= size_bytes - member.size_bytes:
            yield f"member {member.name} lies beyond the {size_bytes} bytes of its shard"
            continue
        stream.seek(member.offset - tarfile.BLOCKSIZE)
        yield from _tar_header_damage(stream.read(tarfile.BLOCKSIZE), member)
        named = isinstance(member, ArrayRecord) and member.encoding == "npy"
        if named and LAYOUTS[layout].array_has_header:
            expected = header_bytes(np.dtype(sample.array.dtype), sample.array.shape)
            if stream.read(NPY_HEADER_BYTES) != expected:
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
