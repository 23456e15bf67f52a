"""What every reader must give: the sources' voxels and the tables' cells, read without us."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support import Array, Converted, expected_volume, read_dataset, same_voxels
from tests.unit.reading.test_readers import table_rows


@dataclass(frozen=True)
class Given:
    """A sample as a reader gave it."""

    key: str
    voxels: Array
    labels: Array
    report: str
    json: Mapping[str, Any]

    @classmethod
    def by_members(cls, one: Mapping[str, Any], encoding: str) -> Given:
        """As readers give it whose samples have their members' names."""
        return cls(
            one["__key__"], one[f"volume.{encoding}"], one["labels.npy"], one["report.txt"],
            one["json"],
        )  # fmt: skip


def assert_all_there(converted: Converted, given: Iterable[Given], *, dtype: Any = None) -> None:
    """Every sample once: its voxels bit for bit (cast to ``dtype``), labels, report and JSON."""
    samples = list(given)
    assert sorted(one.key for one in samples) == sorted(converted.originals)
    rows, stored = table_rows(converted.made), read_dataset(converted.out)
    for one in samples:
        expected = expected_volume(converted.originals[one.key])
        assert same_voxels(one.voxels, expected if dtype is None else expected.astype(dtype))
        assert np.asarray(one.labels).dtype == np.float32
        assert np.asarray(one.labels).tolist() == rows[one.key]["labels"]
        assert one.report == "\n".join(rows[one.key]["report"])
        assert one.json == stored[one.key].description
        assert one.json["metadata"] == rows[one.key]["metadata"]
