"""Write the index files of DALI's ``fn.readers.webdataset``, one for each shard."""

from __future__ import annotations

from collections.abc import Sequence

from ctrate_convert.exporting.indexes.places import PlacedSample, PlacedShard

_VERSION = "v1.2"
"""The version of DALI's ``wds2idx.py`` that also has the members' names."""


def dali_files(shards: Sequence[PlacedShard]) -> dict[str, bytes]:
    """Return ``shard-000000.idx`` for every shard, as DALI's ``wds2idx.py`` writes it.

    A superseded copy has no line, so DALI does not read it.
    """
    return {f"{one.name.removesuffix('.tar')}.idx": _index(one) for one in shards}


def _index(shard: PlacedShard) -> bytes:
    lines = [f"{_VERSION} {len(shard.live)}", *map(_line, shard.live)]
    return "".join(f"{line}\n" for line in lines).encode()


def _line(sample: PlacedSample) -> str:
    return " ".join(
        f"{one.suffix} {one.offset} {one.size_bytes} {one.name}" for one in sample.members
    )
