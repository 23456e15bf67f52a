"""What a killed deletion left is finished by whatever comes next, and nothing more is done."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.deleting.consents import load_consents
from ctrate_convert.deleting.gate import Release, release_sources
from ctrate_convert.errors import ExitCode
from ctrate_convert.running.delete import with_interrupted
from ctrate_convert.store import presence as presence_module
from ctrate_convert.store.durable import append_lines
from ctrate_convert.store.fresh import FreshStatus
from ctrate_convert.store.journals import journal_line, open_intents, read_journal
from ctrate_convert.store.ledger import Planned
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.presence import Presence, aside_name, presence
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import Converted, convert_here, run_here, sources_left

Make = Callable[..., SyntheticCtRate]
BY = "convert --yes (consent of-a-killed-command)"


@pytest.fixture
def nested(make_ctrate: Make, tmp_path: Path) -> Converted:
    """Six samples in one shard, each patient's in folders of their own."""
    made = make_ctrate(6, layout="nested")
    return convert_here(made, tmp_path / "out", samples_per_shard=6)


def intend(converted: Converted, *keys: str, trash: str = "") -> None:
    """Note an intent for each, as a command does that is killed then."""
    sizes = {one.key: one.source for one in converted.record().converted}
    append_lines(
        converted.dataset.journal(0),
        [
            journal_line("intent", key, sizes[key].source, sizes[key].size_bytes, BY, trash=trash)
            for key in keys
        ],
    )


def take_aside(path: Path) -> Path:
    return path.rename(path.with_name(aside_name(path.name)))


def events(converted: Converted, key: str) -> list[str]:
    return [line.event for line in read_journal(converted.dataset, 0) if line.key == key]


def test_a_run_that_deletes_nothing_finishes_it(nested: Converted) -> None:
    """A name is given back, what is gone is noted with the old consent, no new one is made."""
    gone, aside, untouched = nested.made.keys[:3]
    intend(nested, gone, aside, untouched)
    nested.made.sources[gone].unlink()
    take_aside(nested.made.sources[aside])
    assert run_here("run", nested.out).code == ExitCode.DONE
    assert sources_left(nested.made) == set(nested.made.keys) - {gone}
    assert not list(nested.made.data_folder.rglob(".*"))
    assert events(nested, gone) == ["intent", "found_gone"]
    assert read_journal(nested.dataset, 0)[-1].authorised_by == BY
    assert set(open_intents(read_journal(nested.dataset, 0))) == {aside, untouched}
    assert not load_consents(nested.dataset)


def test_what_cannot_be_seen_is_not_noted_as_gone(nested: Converted) -> None:
    """A folder that is away closes no intent."""
    key = nested.made.keys[0]
    intend(nested, key)
    folder = nested.made.sources[key].parent
    away = folder.rename(folder.with_name("away"))
    assert run_here("run", nested.out).code == ExitCode.DONE
    assert events(nested, key) == ["intent"]
    away.rename(folder)
    assert run_here("run", nested.out).code == ExitCode.DONE
    assert events(nested, key) == ["intent"]
    assert sources_left(nested.made) == set(nested.made.keys)


def test_a_journal_alone_is_not_believed(nested: Converted) -> None:
    """An intent of a source that the shard's record does not name is not closed."""
    append_lines(
        nested.dataset.journal(0),
        [journal_line("intent", nested.made.keys[0], "other/file.npz", 1, BY)],
    )
    (nested.made.data_folder / "other").mkdir()
    assert run_here("run", nested.out).code == ExitCode.DONE
    assert events(nested, nested.made.keys[0]) == ["intent"]


def test_a_repair_takes_up_a_source_that_is_aside(nested: Converted) -> None:
    """A damaged shard's sample is converted again from the file that a killed command left."""
    key = nested.made.keys[0]
    intend(nested, key)
    take_aside(nested.made.sources[key])
    shard = nested.dataset.shard(0)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    done = run_here("verify", nested.out, "--full", "--repair", "--num_workers", 1)
    assert done.code == ExitCode.DONE, done.text
    assert "Repaired 6 samples" in done.text
    assert sources_left(nested.made) == set(nested.made.keys)


def test_a_folder_that_went_after_its_sources_is_no_doubt(nested: Converted) -> None:
    """What was deleted stays so where its emptied folder is removed; only the rest is told."""
    linked = nested.made.keys[0]
    os.link(nested.made.sources[linked], nested.out.parent / "second-name.npz")
    words = ("delete", nested.out, "--yes", "--num_workers", 1)
    assert run_here(*words).code == ExitCode.REFUSED
    assert sources_left(nested.made) == {linked}
    before = read_journal(nested.dataset, 0)
    for folder in sorted(nested.made.data_folder.rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    again = run_here(*words, "--json")
    assert again.code == ExitCode.REFUSED
    assert [one["key"] for one in again.json()["kept_by_gate"]] == [linked]
    added = read_journal(nested.dataset, 0)[len(before) :]
    assert {line.key for line in added} == {linked}


def test_a_consent_to_no_file_deletes_none(nested: Converted) -> None:
    """Where only a journal was to be completed, a source that turns up stays."""
    key = nested.made.keys[0]
    intend(nested, key)
    plan = load_plans(nested.dataset)[0]
    nothing = with_interrupted(None, [Planned(plan, plan.shards[0])])
    consent = nothing.accept(nested.dataset, "delete --yes")
    release = Release(nested.dataset, plan, plan.shards[0], nested.record(), consent.name)
    found = release_sources(release)
    assert (found.deleted_files, len(found.kept)) == (0, 6)
    assert {one.reason for one in found.kept} == {"it was not to be seen when the person was asked"}
    assert sources_left(nested.made) == set(nested.made.keys)


def test_a_name_given_back_between_two_looks_is_there(
    nested: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that gets its name back right after it was looked for is not taken for gone."""
    path = nested.made.sources[nested.made.keys[0]]
    aside = take_aside(path)
    look = presence_module.status_of

    def then_it_is_back(name: str, directory: int) -> FreshStatus | None:
        status = look(name, directory)
        if aside.exists():
            aside.rename(path)
        return status

    monkeypatch.setattr(presence_module, "status_of", then_it_is_back)
    source = str(path.relative_to(nested.made.data_folder))
    assert presence(nested.made.data_folder, source) is Presence.THERE


def test_a_file_that_may_not_be_read_gets_its_name_back(
    nested: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed command may have left aside what nobody can open."""
    path = nested.made.sources[nested.made.keys[0]]
    intend(nested, nested.made.keys[0])
    aside = take_aside(path)
    real = os.open

    def may_not(name: Any, *words: Any, **more: Any) -> int:
        if os.fspath(name) == aside.name:
            raise PermissionError(13, "Permission denied", aside.name)
        return real(name, *words, **more)

    monkeypatch.setattr(os, "open", may_not)
    assert run_here("run", nested.out).code == ExitCode.DONE
    assert path.exists()
    assert not aside.exists()


def test_an_intent_identifies_the_source_and_no_other_file(
    nested: Converted, tmp_path: Path
) -> None:
    """Where its place in the trash is taken, the journal still says which file was meant."""
    key = nested.made.keys[0]
    path = nested.made.sources[key]
    place = tmp_path / "trash" / "shard-000000" / path.relative_to(nested.made.data_folder)
    place.parent.mkdir(parents=True)
    place.write_text("somebody else's")
    done = run_here(
        "delete", nested.out, "--yes", "--num_workers", 1, "--trash", tmp_path / "trash"
    )
    assert done.code == ExitCode.REFUSED
    assert "its place in the trash is taken" in done.text
    assert sources_left(nested.made) == {key}
    (intent,) = (
        line
        for line in read_journal(nested.dataset, 0)
        if line.key == key and line.event == "intent"
    )
    assert intent.inode == path.stat().st_ino
    assert place.read_text() == "somebody else's"
