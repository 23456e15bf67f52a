"""The independent reader: read what a shard's bytes on storage hold, parsed by ``tarfile``.

One pass over the file computes the shard's SHA-256 and every member's digest together. The reader
shares no code with the writer except the digest function itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import blake3
import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import DamageError, RefusedError, SampleError
from ctrate_convert.formats.codecs import CODECS
from ctrate_convert.formats.members import LAYOUTS
from ctrate_convert.formats.npy_header import read_header
from ctrate_convert.store.durable import drop_page_cache, open_regular
from ctrate_convert.store.fresh import FreshStatus, fresh_status_of
from ctrate_convert.store.records.damage import Damage
from ctrate_convert.store.records.plan import Layout
from ctrate_convert.store.records.record import ArrayRecord, ConvertedSample, MemberRecord
from ctrate_convert.store.storage_reader import StorageReader

_NPY_VERSION = b"\x01\x00"
"""The only version that this program writes."""

_NPY_HEADER_BYTES = 128
"""Bytes of the header that numpy writes for every array of at most three dimensions."""


@dataclass(frozen=True)
class FileIdentity:
    """The attributes that tell if a path still leads to the file that was verified."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result | FreshStatus) -> FileIdentity:
        """Return the identity in a stat result."""
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )

    def is_file_of(self, other: FileIdentity) -> bool:
        """Return True if both are one file with one content, even if it gained or lost a name."""
        return dataclasses.replace(self, ctime_ns=other.ctime_ns) == other


_ONLY_READ_SHARD = object()


@dataclass(frozen=True)
class ReadShard:
    """The result of one pass over a shard; only `read_shard` makes one.

    It proves something only if ``damage`` is empty.
    """

    path: Path
    identity: FileIdentity
    sha256: str
    digests: Mapping[str, str]
    damage: tuple[Damage, ...]
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _ONLY_READ_SHARD:
            raise RefusedError("what a shard holds can only be told by reading it")

    def require_sound(self) -> None:
        """Raise an error for the first damage, if there is any.

        Raises:
            DamageError: there is any.
        """
        if self.damage:
            first = self.damage[0]
            more = f" (and {len(self.damage) - 1} more)" if len(self.damage) > 1 else ""
            raise DamageError(f"{first.what}{more}", where=self.path)


def read_shard(
    path: Path,
    samples: Sequence[ConvertedSample],
    layout: Layout,
    *,
    decode: bool = True,
) -> ReadShard:
    """Read all of ``path`` and compare each member of ``samples`` with its recorded digest.

    Without ``decode``, compare only the stored bytes, and do not decode compressed arrays.

    Raises:
        OSError: the file cannot be read at all.
    """
    try:
        opened = open_regular(path)
    except DamageError as error:
        damage = Damage(path.name, None, error.what)
        identity = FileIdentity.of(path.stat())
        return ReadShard(path, identity, "", {}, (damage,), seal=_ONLY_READ_SHARD)
    with opened as stream:
        # Before the first byte is read: a change during the pass then shows as another identity.
        status = fresh_status_of(stream.fileno())
        # `parse` reads the tar headers through the page cache, and these must come from storage
        # too.
        drop_page_cache(stream.fileno())
        reader = _ShardReader(path.name, layout)
        found = reader.parse(stream)
        with StorageReader(stream.fileno()) as storage:
            reader.read_members(samples, found, storage)
        if decode:
            reader.decode_arrays(path, samples)
        return ReadShard(
            path,
            FileIdentity.of(status),
            reader.sha256.hexdigest(),
            MappingProxyType(reader.digests),
            tuple(reader.damage),
            seal=_ONLY_READ_SHARD,
        )


def array_blocks(path: Path, array: ArrayRecord) -> Iterator[NDArray[Any]]:
    """Yield the array's elements, decoded, in C order; each block is valid until the next.

    Raises:
        ValueError: the stored bytes are damaged, or hold another type or shape.
        OSError: the file cannot be read.
    """
    dtype = np.dtype(array.dtype).newbyteorder("<")
    codec = CODECS[array.encoding]
    return codec.read_blocks(path, array.offset, array.size_bytes, dtype, array.shape)


def header_size(member: ArrayRecord | MemberRecord, layout: Layout) -> int:
    """Return the number of bytes that precede the member's digested bytes."""
    plain = isinstance(member, ArrayRecord) and member.encoding == "npy"
    return _NPY_HEADER_BYTES if plain and LAYOUTS[layout].array_has_header else 0


def stored_digest(member: ArrayRecord | MemberRecord) -> str:
    """Return the recorded digest of the member's bytes as they stand in the tar."""
    if isinstance(member, ArrayRecord) and member.stored_blake3:
        return member.stored_blake3
    return member.blake3


class _ShardReader:
    """A single forward pass over the shard; every byte it reads goes into the SHA-256."""

    def __init__(self, shard: str, layout: Layout) -> None:
        self.sha256 = hashlib.sha256()
        self.digests: dict[str, str] = {}
        self.damage: list[Damage] = []
        self._shard = shard
        self._layout = layout
        self._position = 0

    def read_members(
        self,
        samples: Sequence[ConvertedSample],
        found: dict[str, tarfile.TarInfo],
        storage: StorageReader,
    ) -> None:
        """Check every member of ``samples``, then read on to the end of the file."""
        self._storage = storage
        expected = [m.name for s in samples for m in s.all_members]
        surplus = [name for name in found if name not in set(expected)]
        if surplus:
            self._note(None, f"{len(surplus)} members that no record knows, first {surplus[0]}")
        elif [name for name in found if name in set(expected)] != [
            name for name in expected if name in found
        ]:
            self._note(None, "members are not in the recorded order")
        for sample in samples:
            for member in sample.all_members:
                self._read_member(sample.key, member, found.get(member.name))
        self._advance(None)

    def parse(self, stream: BinaryIO) -> dict[str, tarfile.TarInfo]:
        """Return all members by name, as ``tarfile`` finds them."""
        found: dict[str, tarfile.TarInfo] = {}
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for info in archive:
                    if info.name in found:
                        self._note(None, f"member {info.name} stands there twice")
                    found[info.name] = info
                    if not info.isreg():
                        self._note(None, f"member {info.name} is no regular file")
        except (tarfile.TarError, EOFError, ValueError) as error:
            self._note(None, f"tar structure is damaged: {error}")
        return found

    def _read_member(
        self, key: str, member: ArrayRecord | MemberRecord, info: tarfile.TarInfo | None
    ) -> None:
        if info is None:
            return self._note(key, f"member {member.name} is missing")
        if (info.offset_data, info.size) != (member.offset, member.size_bytes):
            return self._note(
                key,
                f"member {member.name} is elsewhere: seen {info.size} bytes at "
                f"{info.offset_data}, expected {member.size_bytes} at {member.offset}",
            )
        if member.offset < self._position:
            return self._note(key, f"member {member.name} overlaps another")
        self._advance(member.offset)
        digest = blake3.blake3()
        end = member.offset + member.size_bytes
        # The digest of an array covers its elements alone, so the npy header is checked by itself.
        if isinstance(member, ArrayRecord) and header_size(member, self._layout):
            self._read_array_header(key, member, end)
        self._advance(end, digest.update)
        seen, expected = digest.hexdigest(), stored_digest(member)
        self.digests[member.name] = seen
        if self._position < end:
            self._note(key, f"member {member.name} is cut short at byte {self._position}")
        elif seen != expected:
            self._note(
                key,
                f"member {member.name} has changed (bytes {member.offset}–{end}): seen BLAKE3 "
                f"{seen[:16]}…, expected {expected[:16]}…",
            )
        return None

    def decode_arrays(self, path: Path, samples: Sequence[ConvertedSample]) -> None:
        """Decode the arrays whose stored bytes are not their elements, and compare the digests."""
        for sample in samples:
            array = sample.array
            # Changed bytes were noted already: decoding them would only report the damage twice.
            if array.stored_blake3 is None or self.digests.get(array.name) != array.stored_blake3:
                continue
            digest = blake3.blake3()
            try:
                for block in array_blocks(path, array):
                    digest.update(block.data.cast("B"))
            except ValueError as error:
                self._note(sample.key, f"member {array.name} cannot be decoded: {error}")
            self.digests[array.name] = digest.hexdigest()
            if self.digests[array.name] != array.blake3:
                self._note(sample.key, f"member {array.name} decodes to other voxels")

    def _read_array_header(self, key: str, member: ArrayRecord, end: int) -> None:
        stream = io.BytesIO()
        self._advance(min(member.offset + _NPY_HEADER_BYTES, end), stream.write)
        stream.seek(0)
        try:
            if stream.getvalue()[6:8] != _NPY_VERSION:
                raise SampleError("npy version", seen=stream.getvalue()[6:8].hex(" "))
            header = read_header(stream.read)
        except SampleError as error:
            what = f"member {member.name} has a damaged npy header: {error.one_line()}"
            return self._note(key, what)
        seen = (header.shape, header.fortran_order, header.dtype.name)
        if seen != (member.shape, False, member.dtype):
            self._note(
                key, f"member {member.name} is {header.dtype.name} {header.shape}, not as recorded"
            )
        return None

    def _advance(
        self, target: int | None, use: Callable[[memoryview], object] = lambda _: None
    ) -> None:
        while target is None or self._position < target:
            piece = self._storage.take(None if target is None else target - self._position)
            if not piece:
                return
            self.sha256.update(piece)
            use(piece)
            self._position += len(piece)

    def _note(self, key: str | None, what: str) -> None:
        self.damage.append(Damage(self._shard, key, what))
