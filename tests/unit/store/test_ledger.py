"""The ledger lists records by their exact names."""

from __future__ import annotations

from ctrate_convert.store.ledger import Ledger, recorded_numbers
from tests.support import Converted


def test_a_stray_file_hides_no_record(converted: Converted) -> None:
    """Whatever the order in which the folder is listed."""
    for name in ("shard-0000000.json", "shard-0000001.json", "shard-00000001.json", "shard-1.json"):
        (converted.dataset.records / name).write_text("{}")
    assert recorded_numbers(converted.dataset) == {0, 1}
    assert Ledger.load(converted.dataset).pending() == []
