"""Scan a shard without its record: find every member's place and digest, past the page cache.

``tarfile`` finds the members.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import blake3

from ctrate_convert.errors import DamageError
from ctrate_convert.formats.members import LAYOUTS
from ctrate_convert.store.durable import drop_page_cache, open_regular
from ctrate_convert.store.records.plan import Layout
from ctrate_convert.store.records.record import MemberRecord
from ctrate_convert.store.storage_reader import StorageReader


@dataclass(frozen=True)
class ScannedShard:
    """A shard that was read whole: its members by sample, in order, and the bytes of each JSON."""

    path: Path
    size_bytes: int
    sha256: str
    samples: dict[str, list[MemberRecord]]
    json: dict[str, bytes]


def scan_shard(path: Path, layout: Layout) -> ScannedShard:
    """Read all of ``path`` and return its members.

    Raises:
        DamageError: it is missing, or no sound tar of regular members in a row.
        OSError: it cannot be read.
    """
    try:
        opened = open_regular(path)
    except FileNotFoundError as error:
        raise DamageError("the shard is missing", where=path) from error
    with opened as stream:
        size_bytes = os.fstat(stream.fileno()).st_size
        drop_page_cache(stream.fileno())
        # tarfile reads only the headers; the scan below reads every byte.
        infos = _members(stream, path)
        with StorageReader(stream.fileno()) as storage:
            scan = _Scan(path, layout, storage)
            for info in infos:
                scan.member(info)
            scan.rest()
    if scan.position != size_bytes:
        raise DamageError("the shard changed while it was read", where=path)
    return ScannedShard(path, size_bytes, scan.sha256.hexdigest(), scan.samples, scan.json)


def _members(stream: BinaryIO, path: Path) -> list[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            infos = archive.getmembers()
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DamageError(f"tar structure is damaged: {error}", where=path) from error
    names = [info.name for info in infos]
    if len(set(names)) != len(names) or not all(info.isreg() for info in infos):
        raise DamageError("a member stands there twice or is no regular file", where=path)
    return infos


@dataclass
class _Scan:
    """A single forward pass; every byte that it reads goes into the SHA-256."""

    path: Path
    layout: Layout
    storage: StorageReader
    sha256: hashlib._Hash = field(default_factory=hashlib.sha256)
    position: int = 0
    samples: dict[str, list[MemberRecord]] = field(default_factory=dict)
    json: dict[str, bytes] = field(default_factory=dict)

    def member(self, info: tarfile.TarInfo) -> None:
        """Read on to the end of one member and add it to its sample."""
        key, _, extension = info.name.partition(".")
        # A dict keeps its order, so the last key is the sample of the previous member.
        if key in self.samples and key != next(reversed(self.samples)):
            raise DamageError(f"the members of {key} are not in a row", where=self.path)
        digest, text = blake3.blake3(), bytearray()
        keep = text.extend if extension == LAYOUTS[self.layout].json else _forget
        self._advance(info.offset_data, _forget)
        self._advance(info.offset_data + info.size, digest.update, keep)
        if self.position != info.offset_data + info.size:
            raise DamageError(f"member {info.name} is cut short", where=self.path)
        member = MemberRecord(
            name=info.name, offset=info.offset_data, size_bytes=info.size, blake3=digest.hexdigest()
        )
        self.samples.setdefault(key, []).append(member)
        if keep is not _forget:
            self.json[key] = bytes(text)

    def rest(self) -> None:
        """Read on to the end of the file, where a tar has nothing but zeros."""
        last = [True]

        def look(piece: memoryview) -> None:
            last[0] = last[0] and not any(piece)

        self._advance(None, look)
        if not last[0]:
            raise DamageError("there are bytes behind the tar's last member", where=self.path)

    def _advance(self, target: int | None, *uses: Callable[[memoryview], object]) -> None:
        while target is None or self.position < target:
            piece = self.storage.take(None if target is None else target - self.position)
            if not piece:
                return
            self.sha256.update(piece)
            for use in uses:
                use(piece)
            self.position += len(piece)


def _forget(_: memoryview) -> None:
    """Ignore what was read."""
