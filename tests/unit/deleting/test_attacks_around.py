"""Attacks through other nodes, planted links and folders that are away."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.deleting.entries import Entries
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.journals import read_journal
from tests.support import (
    Converted,
    convert_here,
    run_cli,
    run_here,
    sources_left,
)
from tests.unit.deleting.scenes import (
    Make,
    bindfs,
    consent,
    delete,
    events,
    write_volume,
)
from tests.unit.deleting.two_volumes import CT, assert_kept, first, other_bytes

# --- What another node has done -----------------------------------------------------------------


@pytest.fixture
def cached(make_ctrate: Make, tmp_path: Path) -> Any:
    """Data and output as a node sees them that caches attributes for a minute."""
    made = make_ctrate(2)
    for number, path in enumerate(made.sources.values()):
        write_volume(path, CT + number)
    below = tmp_path / "below"
    below.mkdir()
    shutil.move(tmp_path / "ctrate", below)
    with bindfs(below, tmp_path / "ctrate_mount") as mount:
        (tmp_path / "ctrate").symlink_to(mount / "ctrate")
        yield convert_here(made, mount / "out"), below


def test_a_source_changed_by_another_node(cached: Any) -> None:
    """A change made on another node is seen, although this node's cache does not know of it."""
    converted, below = cached
    data = other_bytes(converted)
    for path in converted.made.sources.values():
        path.stat()
    victim = below / "ctrate" / "npz" / first(converted).name
    victim.unlink()
    victim.write_bytes(data)
    assert_kept(converted, run_cli("delete", converted.out, "--yes"))
    assert victim.read_bytes() == data


def test_a_shard_removed_by_another_node(cached: Any) -> None:
    """A shard that another node has removed lets nothing go."""
    converted, below = cached
    converted.dataset.shard(0).stat()
    (below / "out" / converted.dataset.shard(0).name).unlink()
    done = run_cli("delete", converted.out, "--yes")
    assert done.code == ExitCode.DAMAGE
    assert sources_left(converted.made) == set(converted.made.keys)


# --- Links, names and folders -------------------------------------------------------------------


def test_planted_lock_links(ct: Converted) -> None:
    """A lock file that is a link to a source neither truncates nor touches it."""
    locks = ct.dataset.lock("manifest").parent
    locks.mkdir(exist_ok=True)
    precious = ct.made.data_folder.parent / "precious.npz"
    precious.write_bytes(data := other_bytes(ct))
    for name in ("manifest", "shard-000000", "plan", "plans"):
        ct.dataset.lock(name).unlink(missing_ok=True)
        ct.dataset.lock(name).symlink_to(precious)
    before = precious.stat()
    assert delete(ct).code == ExitCode.DONE
    assert run_here("merge", ct.out).code == ExitCode.DONE
    assert precious.read_bytes() == data
    assert precious.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("again", ["nothing", "empty folder", "link"])
def test_a_renamed_data_folder_is_not_gone(ct: Converted, tmp_path: Path, again: str) -> None:
    """Where the folder is away, or another is in its place, no source is called deleted."""
    intents = [line.model_dump_json() + "\n" for line in _intents(ct)]
    ct.dataset.prepare()
    ct.dataset.journal(0).write_text("".join(intents))
    away = ct.made.data_folder.rename(tmp_path / "away")
    if again == "empty folder":
        ct.made.data_folder.mkdir()
    elif again == "link":
        ct.made.data_folder.symlink_to(tmp_path / "nowhere")
    for _ in range(2):
        done = delete(ct)
        assert done.code in (ExitCode.REFUSED, ExitCode.DONE)
        assert not {"deleted", "found_gone", "trashed"} & set(events(ct).values())
    if again != "nothing":
        ct.made.data_folder.unlink() if again == "link" else ct.made.data_folder.rmdir()
    away.rename(ct.made.data_folder)
    assert sources_left(ct.made) == set(ct.made.keys)
    assert delete(ct).code == ExitCode.DONE
    assert set(events(ct).values()) == {"deleted"}


def _intents(converted: Converted) -> Any:
    """Return the intents that a killed deletion leaves."""
    folder = Path(converted.plan.settings.data_folder)
    entries = Entries(converted.dataset, 0, folder, consent(converted))
    samples = converted.record().converted
    converted.dataset.prepare()
    entries.write_intents([(sample.key, sample.source) for sample in samples])
    return read_journal(converted.dataset, 0)
