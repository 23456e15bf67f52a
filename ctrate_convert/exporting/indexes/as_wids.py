"""Write the shard index of ``wids``, the indexed reader that came with ``webdataset`` below 1.0."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ctrate_convert.exporting.indexes.places import PlacedShard

INDEX_FILE = "index.json"


def wids_files(shards: Sequence[PlacedShard]) -> dict[str, bytes]:
    """Return ``index.json`` for ``wids.ShardListDataset``, with the shards beside it.

    ``nsamples`` counts every sample that stands in the tar, since wids numbers them in the tar's
    order. So a superseded copy keeps its number.
    """
    index = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "shardlist": [
            {"url": one.name, "nsamples": len(one.samples), "filesize": one.size_bytes}
            for one in shards
        ],
    }
    return {INDEX_FILE: json.dumps(index, indent=2).encode() + b"\n"}
