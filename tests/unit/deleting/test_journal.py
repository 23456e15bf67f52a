"""The journal: deletions that were interrupted are finished, and nothing is claimed unseen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.store.durable import append_lines
from ctrate_convert.store.journals import closed_keys, journal_line, read_journal
from ctrate_convert.store.records.journal import Event
from tests.support import Converted, run_here, sources_left
from tests.unit.deleting.scenes import delete, events, with_one_voxel_changed


def intend(converted: Converted, keys: list[str], torn: str = "") -> None:
    """Write the journal as a killed process leaves it: intents, and perhaps a torn line."""
    lines = [
        journal_line("intent", one.key, one.source.source, one.source.size_bytes, "test")
        for one in converted.record().converted
        if one.key in keys
    ]
    converted.dataset.prepare()
    append_lines(converted.dataset.journal(0), lines)
    with converted.dataset.journal(0).open("a") as stream:
        stream.write(torn)


@pytest.mark.parametrize("torn", ["", '{"schema_number":1,"event":"del', "\0\0\0"])
def test_interrupted_deletion_is_finished(converted: Converted, torn: str) -> None:
    """Killed between intent and end, with the file gone or not, the next deletion finishes it."""
    gone, there, *others = converted.made.keys[:4]
    intend(converted, [gone, there], torn)
    converted.made.sources[gone].unlink()
    shown = run_here("delete", converted.out, "--dry_run")
    assert re.search(r"^deleted +1 ", shown.stdout, re.MULTILINE)
    assert "gone" not in shown.stdout

    assert delete(converted).code == ExitCode.DONE
    assert not sources_left(converted.made)
    expected = {gone: "found_gone", there: "deleted", **dict.fromkeys(others, "deleted")}
    assert events(converted) == expected
    before = converted.dataset.journal(0).read_bytes()
    delete(converted)
    assert converted.dataset.journal(0).read_bytes() == before


def test_only_the_journal_awaits_its_last_line(converted: Converted) -> None:
    """Where every file of a shard is gone and only the ends are missing, they are written."""
    keys = list(converted.made.keys[:4])
    intend(converted, keys)
    for key in keys:
        converted.made.sources[key].unlink()
    assert delete(converted).code == ExitCode.DONE
    assert events(converted) == dict.fromkeys(keys, "found_gone")


def test_intent_is_no_proof(converted: Converted) -> None:
    """An open intent does not delete a file that holds something else than its shard."""
    key = converted.made.keys[0]
    intend(converted, [key])
    with_one_voxel_changed(converted.made.sources[key])
    done = delete(converted)
    assert done.code == ExitCode.REFUSED
    assert "its shard does not hold it: " in done.text
    assert sources_left(converted.made) == {key}


def test_missing_by_another_hand(converted: Converted) -> None:
    """A source that vanished without this program is called gone, not deleted."""
    key = converted.made.keys[0]
    converted.made.sources[key].unlink()
    gone = f"gone: {key}.npz — missing, though this program did not delete it"
    assert gone in run_here("delete", converted.out, "--dry_run").stdout

    assert delete(converted).code == ExitCode.DONE
    lines = {line.key: line for line in read_journal(converted.dataset, 0)}
    assert lines[key].event == "kept"
    assert lines[key].authorised_by.startswith("delete --yes (consent ")
    assert lines[key].reason == "it is missing, though this program did not delete it"
    assert {line.event for line in lines.values() if line.key != key} == {"deleted"}
    assert gone in delete(converted).stdout
    assert {line.key: line for line in read_journal(converted.dataset, 0)} == lines


def test_missing_data_folder(converted: Converted) -> None:
    """Where the data folder itself is away, no source is taken for deleted, intended or not."""
    intend(converted, [converted.made.keys[0]])
    away = converted.out.parent / "away"
    converted.made.data_folder.rename(away)
    done = delete(converted)
    assert done.code == ExitCode.REFUSED
    assert "kept: train_1_a_1.npz — the folder that it is in cannot be seen now" in done.text
    assert set(events(converted).values()) == {"undecided"}
    away.rename(converted.made.data_folder)
    assert delete(converted).code == ExitCode.DONE
    assert not sources_left(converted.made)


def test_a_journal_that_cannot_be_written(converted: Converted, tmp_path: Path) -> None:
    """Without an intent on storage nothing goes; a link in place of the journal is not followed."""
    converted.dataset.prepare()
    journal = converted.dataset.journal(0)
    (elsewhere := tmp_path / "elsewhere").write_bytes(b"precious")
    journal.symlink_to(elsewhere)
    assert delete(converted).code == ExitCode.ENVIRONMENT
    assert elsewhere.read_bytes() == b"precious"
    assert set(converted.made.keys[:4]) <= sources_left(converted.made)


def test_what_settles_a_source(converted: Converted) -> None:
    """Taken away and kept for good are closed; an open intent and a passing doubt are not."""
    keys = list(converted.made.keys[:4])
    intend(converted, keys)
    assert closed_keys(read_journal(converted.dataset, 0)) == set()
    last: tuple[Event, ...] = ("deleted", "kept", "undecided", "intent")
    lines = [
        journal_line(event, key, f"{key}.npz", 0, "test")
        for key, event in zip(keys, last, strict=True)
    ]
    append_lines(converted.dataset.journal(0), lines)
    assert closed_keys(read_journal(converted.dataset, 0)) == set(keys[:2])
