"""Write what ``energon prepare`` of Megatron-Energon writes, without reading a shard."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
import uuid
from collections.abc import Iterator, Sequence

from ctrate_convert.exporting.indexes.places import PlacedShard
from ctrate_convert.formats.names import parse_key

META = ".nv-meta"

_DATASET_YAML = b"__module__: megatron.energon\n__class__: CrudeWebdataset\n"
"""Samples as dictionaries, which a cooker of the training code turns into what it wants."""

_TABLES = """
CREATE TABLE samples (
    tar_file_id INTEGER NOT NULL,
    sample_key TEXT NOT NULL UNIQUE,
    sample_index INTEGER NOT NULL,
    byte_offset INTEGER,
    byte_size INTEGER
);
CREATE TABLE sample_parts (
    tar_file_id INTEGER,
    sample_index INTEGER,
    part_name TEXT,
    content_byte_offset INTEGER,
    content_byte_size INTEGER
);
"""

_INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full ON sample_parts(
    tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size
);
"""


def energon_files(shards: Sequence[PlacedShard]) -> dict[str, bytes]:
    """Return the files of a prepared dataset: ``.nv-meta`` and an index beside every shard.

    Shards whose samples are all of CT-RATE's split ``valid`` are the part ``val``; all others are
    the part ``train``. Superseded copies are counted, since energon numbers the samples of a tar,
    and excluded.
    """
    counts = {one.name: len(one.samples) for one in shards}
    offsets = {f"{one.name}.idx": _offsets(one) for one in shards}
    return {
        **offsets,
        f"{META}/.info.json": json.dumps({"shard_counts": counts}, indent=2).encode() + b"\n",
        f"{META}/dataset.yaml": _DATASET_YAML,
        f"{META}/split.yaml": _splits(shards),
        f"{META}/index.sqlite": _database(shards),
        f"{META}/index.uuid": _uuid(offsets),
    }


def _offsets(shard: PlacedShard) -> bytes:
    """Return where each sample begins, and where the last one ends: unsigned 64-bit integers."""
    places = [*(one.begin for one in shard.samples), shard.samples[-1].end]
    return struct.pack(f"<{len(places)}Q", *places)


def _splits(shards: Sequence[PlacedShard]) -> bytes:
    parts: dict[str, list[str]] = {}
    for shard in shards:
        parts.setdefault(_part(shard), []).append(shard.name)
    excluded = [f"{s.name}/{one.key}" for s in shards for one in s.samples if one.superseded]
    lines = ["split_parts:"]
    for part, names in parts.items():
        lines += [f"  {part}:", *(f"  - {name}" for name in names)]
    lines += ["exclude:", *(f"- {name}" for name in excluded)] if excluded else ["exclude: []"]
    return "".join(f"{line}\n" for line in lines).encode()


def _part(shard: PlacedShard) -> str:
    names = [parse_key(one.key) for one in shard.live]
    return "val" if all(name and name.split == "valid" for name in names) else "train"


def _database(shards: Sequence[PlacedShard]) -> bytes:
    """Return an SQLite database of all samples that count and of their members."""
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(_TABLES)
        database.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", _sample_rows(shards))
        database.executemany("INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)", _part_rows(shards))
        database.commit()
        database.executescript(_INDEXES)
        return database.serialize()
    finally:
        database.close()


def _sample_rows(shards: Sequence[PlacedShard]) -> Iterator[tuple[object, ...]]:
    for number, shard in enumerate(shards):
        for index, one in enumerate(shard.samples):
            if not one.superseded:
                yield number, one.key, index, one.begin, one.end - one.begin


def _part_rows(shards: Sequence[PlacedShard]) -> Iterator[tuple[object, ...]]:
    for number, shard in enumerate(shards):
        for index, one in enumerate(shard.samples):
            for member in () if one.superseded else one.members:
                yield number, index, member.suffix, member.offset, member.size_bytes


def _uuid(offsets: dict[str, bytes]) -> bytes:
    """Return an identifier that changes with the shards or the places in them."""
    digest = hashlib.sha256()
    for name, places in offsets.items():
        digest.update(f"{name} {len(places)}\n".encode() + places)
    return str(uuid.UUID(bytes=digest.digest()[:16], version=4)).encode()
