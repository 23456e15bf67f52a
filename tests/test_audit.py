"""`audit` accounts for every deleted source, from what is on disk now."""

from __future__ import annotations

import json
from pathlib import Path

from ctrate_convert.synthetic import write_synthetic_ctrate
from tests.support import DELETE, convert_words, run_cli


def freed_dataset(tmp_path: Path) -> Path:
    """Six samples in three shards, their sources deleted."""
    made = write_synthetic_ctrate(tmp_path / "ct", samples=6, shape=(8, 8, 4))
    out = tmp_path / "out"
    done = run_cli(*convert_words(made, out, "--samples_per_shard", 2, *DELETE))
    assert done.code == 0, done.text
    return out


def test_audit_names_shard_and_member_of_every_deleted_source(tmp_path: Path) -> None:
    """Each deleted source is listed with its member, checked now, and the list is filed."""
    out = freed_dataset(tmp_path)
    done = run_cli("audit", out, "--json")
    assert done.code == 0, done.text
    report = done.json()
    assert report["summary"]["deleted_sources"] == report["summary"]["checked_now"] == 6
    assert {s["shard"] for s in report["sources"]} == {f"shard-00000{n}.tar" for n in range(3)}
    assert all(s["member"] == f"{s['key']}.volume.npy" for s in report["sources"])
    filed = [json.loads(line) for line in Path(report["file"]).read_text().splitlines()]
    assert filed == [report["summary"], *report["sources"]]


def test_audit_finds_a_changed_byte_and_a_missing_shard(tmp_path: Path) -> None:
    """A deleted source whose member has changed is not accounted for, and the exit code says so."""
    out = freed_dataset(tmp_path)
    first, second = out / "shard-000000.tar", out / "shard-000001.tar"
    data = bytearray(first.read_bytes())
    data[700] ^= 1
    first.write_bytes(data)
    second.unlink()
    done = run_cli("audit", out)
    assert done.code == 3
    assert "has changed" in done.stdout
    assert "shard-000001.tar cannot be read" in done.stdout
    assert "NOT accounted for" in done.stdout


def test_audit_of_a_share_checks_only_that_share(tmp_path: Path) -> None:
    """With --sample 0% all sources are accounted for by record, and none is read."""
    out = freed_dataset(tmp_path)
    summary = run_cli("audit", out, "--sample", "0%", "--json").json()["summary"]
    assert (summary["deleted_sources"], summary["checked_now"]) == (6, 0)
    assert run_cli("audit", out, "--sample", "7").code == 1
