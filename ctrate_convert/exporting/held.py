"""Read what a shard holds of one source: its voxels in the source's type and order, and the rest.

Every byte is checked against the digests in the shard's record, so that nothing is exported that
was not recorded.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3
import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import DamageError
from ctrate_convert.formats.reorder import in_c_order
from ctrate_convert.shards.readback import array_blocks
from ctrate_convert.store.durable import open_regular
from ctrate_convert.store.records.geometry import Geometry
from ctrate_convert.store.records.plan import ArrayHeader
from ctrate_convert.store.records.record import ArrayRecord, ConvertedSample


@dataclass(frozen=True)
class Entry:
    """An entry that stood beside the volume in an NPZ: its name, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Held:
    """A sample in its shard, and what its JSON tells of the source.

    ``raw_header`` are the bytes of the source's array header; None in shards of versions that did
    not keep it. ``comment`` is that of a zip file.
    """

    shard: Path
    sample: ConvertedSample
    raw_header: bytes | None
    comment: bytes
    entries: tuple[Entry, ...]

    @property
    def header(self) -> ArrayHeader:
        """The source's header."""
        return self.sample.source_header

    @property
    def array(self) -> ArrayRecord:
        """The array in the shard."""
        return self.sample.array

    @property
    def geometry(self) -> Geometry:
        """The known geometry of the array, with its evidence."""
        return self.sample.geometry

    def stored_blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the elements as stored, in C order; check their digest with the last one.

        Raises:
            DamageError: the shard does not hold what its record says.
        """
        digest = blake3.blake3()
        try:
            for block in array_blocks(self.shard, self.array):
                digest.update(block.data.cast("B"))
                yield block
        except ValueError as error:
            raise _damaged(self.shard, f"{self.array.name} cannot be decoded: {error}") from error
        if digest.hexdigest() != self.array.blake3:
            raise _damaged(self.shard, f"{self.array.name} is not what its record says")

    def source_blocks(self, scratch: Path) -> Iterator[NDArray[Any]]:
        """Yield the elements in the source's type, byte order and file order.

        The C order of the reversed axes is the Fortran order, so the scratch file that turns
        Fortran order into C order turns them back.

        Raises:
            DamageError: the shard does not hold what its record says.
        """
        dtype = np.dtype(self.header.dtype)
        blocks = (self._as_source(block, dtype) for block in self.stored_blocks())
        shape, fortran_order = self.header.shape[::-1], self.header.fortran_order
        return in_c_order(blocks, shape, dtype, scratch, fortran_order=fortran_order)

    def _as_source(self, block: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        if block.dtype.kind in "iu" and self.array.value_scale == 1.0:
            return block.astype(dtype)
        values: NDArray[np.float64] = np.multiply(block, self.array.value_scale, dtype=np.float64)
        if dtype.kind != "f":
            values = np.rint(values)
        return values.astype(dtype)


def _damaged(shard: Path, what: str) -> DamageError:
    verify = f"ctrate-convert verify {shard.parent} --full --repair"
    return DamageError(what, where=shard, next_command=verify)


def read_held(shard: Path, sample: ConvertedSample) -> Held:
    """Return what the published file ``shard`` holds of the source of ``sample``.

    Raises:
        DamageError: the JSON member is not what the record says.
        OSError: the shard cannot be read.
    """
    member = next(one for one in sample.members if one.name.endswith(".json"))
    with open_regular(shard) as stream:
        stream.seek(member.offset)
        data = stream.read(member.size_bytes)
    if blake3.blake3(data).hexdigest() != member.blake3:
        raise _damaged(shard, f"{member.name} is not what its record says")
    fields = json.loads(data)
    raw_header = fields.get("source_header_base64")
    comment, entries = b"", []
    for one in fields.get("source_extra", []):
        content = base64.b64decode(one["header_base64"]) + base64.b64decode(one["base64"])
        if one["name"]:
            entries.append(Entry(one["name"], content))
        else:
            comment = content
    return Held(
        shard=shard,
        sample=sample,
        raw_header=None if raw_header is None else base64.b64decode(raw_header),
        comment=comment,
        entries=tuple(entries),
    )
