"""A source goes only against a proof that holds at that moment; every doubt keeps it."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ctrate_convert.conversion.deletion import delete_sources, read_journal
from ctrate_convert.conversion.gate import unlink_source
from ctrate_convert.conversion.manifest import load_manifest, merge
from ctrate_convert.conversion.plans import load_plans, load_samples
from ctrate_convert.conversion.proof import DeletionProof, Kept, prove
from ctrate_convert.conversion.readback import ReadShard, read_shard
from ctrate_convert.conversion.source_file import GONE, doubt_about_source
from ctrate_convert.durable import append_lines, open_beneath
from ctrate_convert.errors import ExitCode, RefusedError
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.base import sha256_hex
from ctrate_convert.schemas.journal import JournalLine
from ctrate_convert.schemas.manifest import Manifest
from ctrate_convert.schemas.record import ShardRecord, SourceFingerprint
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import (
    DELETE,
    Converted,
    assert_finished,
    command,
    convert_here,
    convert_words,
    input_words,
    load_originals,
    read_dataset,
    run_here,
    sources_left,
)

Make = Callable[..., SyntheticCtRate]


def manifest_of(converted: Converted) -> Manifest:
    manifest = load_manifest(converted.dataset)
    assert manifest is not None
    return manifest


def read_back(converted: Converted, shard: int = 0) -> ReadShard:
    record = converted.record(shard)
    return read_shard(converted.dataset.shard(shard), record.converted, "webdataset")


def proofs_of(converted: Converted, **instead: Any) -> tuple[list[DeletionProof], list[Kept]]:
    """What the gate says of the first shard; ``instead`` replaces what it looks at."""
    facts: dict[str, Any] = {
        "dataset": converted.dataset,
        "plan": converted.plan,
        "samples": load_samples(converted.dataset, converted.plan, converted.planned()),
        "record": converted.record(),
        "read_back": read_back(converted),
        "manifest": manifest_of(converted),
    }
    return prove(**(facts | instead))


def first_proof(converted: Converted) -> DeletionProof:
    proofs, kept = proofs_of(converted)
    assert not kept
    return proofs[0]


# --- The proof --------------------------------------------------------------------------------


def test_sound_shard_is_proven(converted: Converted) -> None:
    """A sound shard gives a proof for each of its samples, and the proof deletes one file."""
    proofs, kept = proofs_of(converted)
    assert [proof.key for proof in proofs] == list(converted.made.keys[:4])
    assert not kept
    assert unlink_source(proofs[0]) is None
    assert sources_left(converted.made) == set(converted.made.keys[1:])


def test_proof_cannot_be_made(converted: Converted) -> None:
    """Whoever constructs a proof, or changes a real one, is refused."""
    proof = first_proof(converted)
    facts = {field.name: getattr(proof, field.name) for field in dataclasses.fields(proof)}
    with pytest.raises(RefusedError, match="only be made by the gate"):
        DeletionProof(**facts, seal=object())
    with pytest.raises(TypeError):
        DeletionProof(**facts)
    other = converted.record(1).converted[0].source
    with pytest.raises(ValueError, match="seal"):
        dataclasses.replace(proof, source=other)  # type: ignore[call-arg]
    with pytest.raises(RefusedError):
        dataclasses.replace(proof, source=other, seal=object())
    with pytest.raises(dataclasses.FrozenInstanceError):
        proof.source = other  # type: ignore[misc]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_proof_cannot_be_kept(converted: Converted, duplicate: Callable[[object], object]) -> None:
    """A proof holds for now only: it is neither copied nor stored."""
    with pytest.raises(RefusedError, match="neither copied nor stored"):
        duplicate(first_proof(converted))


def test_only_a_proof_deletes(converted: Converted) -> None:
    """Nothing that merely looks like a proof deletes a file."""
    proof = first_proof(converted)
    fields = {field.name: getattr(proof, field.name) for field in dataclasses.fields(proof)}
    lookalike: Any = type("Lookalike", (), fields)()
    with pytest.raises(RefusedError, match="only against a proof"):
        unlink_source(lookalike)
    assert sources_left(converted.made) == set(converted.made.keys)


# --- What speaks against a shard --------------------------------------------------------------


def reasons(outcome: tuple[list[DeletionProof], list[Kept]]) -> set[str]:
    proofs, kept = outcome
    assert not proofs
    assert len(kept) == 4
    return {entry.reason for entry in kept}


def test_manifest_without_the_shard(converted: Converted) -> None:
    """A shard that is not in the merged manifest proves nothing."""
    whole = manifest_of(converted)
    manifest = whole.model_copy(update={"shards": whole.shards[1:]})
    assert reasons(proofs_of(converted, manifest=manifest)) == {
        "the shard is not in the merged manifest yet"
    }


def test_manifest_of_another_record(converted: Converted) -> None:
    """A manifest that was merged from another record proves nothing."""
    record = converted.record().model_copy(update={"elapsed_s": 9.0})
    assert reasons(proofs_of(converted, record=record)) == {
        "the manifest was merged from another record of this shard"
    }


def test_record_of_another_plan(converted: Converted) -> None:
    """A record of another plan proves nothing."""
    record = converted.record().model_copy(update={"plan_id": "0" * 64})
    assert reasons(proofs_of(converted, record=record)) == {
        "the record does not belong to this plan"
    }


def test_plan_that_was_changed(converted: Converted) -> None:
    """A plan whose content is not what its id says authorises nothing."""
    plan = converted.plan.model_copy(update={"created": "yesterday"})
    assert reasons(proofs_of(converted, plan=plan)) == {"the record does not belong to this plan"}


def test_shard_that_was_read_damaged(converted: Converted) -> None:
    """A shard that did not read back proves nothing, for any of its samples."""
    path = converted.dataset.shard(0)
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    (reason,) = reasons(proofs_of(converted))
    assert reason.startswith("the shard is damaged: ")


def test_shard_with_another_digest(converted: Converted) -> None:
    """A shard that differs outside its members is not the recorded one."""
    path = converted.dataset.shard(0)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert reasons(proofs_of(converted)) == {
        "the shard's SHA-256, read again, is not the recorded one"
    }


def test_sample_that_the_plan_does_not_name(converted: Converted) -> None:
    """A record cannot authorise the deletion of a file that the plan does not name."""
    samples = load_samples(converted.dataset, converted.plan, converted.planned())
    renamed = [samples[0].model_copy(update={"source": "other.npz"}), *samples[1:]]
    proofs, kept = proofs_of(converted, samples=renamed)
    assert [entry.reason for entry in kept] == [
        "the plan does not name this source for this sample"
    ]
    assert len(proofs) == 3


def store(converted: Converted, record: ShardRecord, **entry: Any) -> Manifest:
    """Put ``record`` in place of the first shard's; returns the manifest merged from it."""
    converted.dataset.record(0).write_bytes(record.to_json())
    whole = manifest_of(converted)
    update = {"record_sha256": sha256_hex(record.to_json()), **entry}
    changed = whole.shards[0].model_copy(update=update)
    return whole.model_copy(update={"shards": (changed, *whole.shards[1:])})


def with_first(record: ShardRecord, **changes: Any) -> ShardRecord:
    """``record`` with something of its first sample changed."""
    first = record.converted[0].model_copy(update=changes)
    return record.model_copy(update={"samples": (first, *record.samples[1:])})


def test_member_that_was_not_read(converted: Converted) -> None:
    """Every member of a sample has to be read back, not only its array."""
    found, record = read_back(converted), converted.record()
    members = record.converted[0].members
    unseen = members[0].model_copy(update={"name": "another.txt"})
    changed = with_first(record, members=(*members, unseen))
    manifest = store(converted, changed)
    proofs, kept = proofs_of(converted, record=changed, read_back=found, manifest=manifest)
    assert [entry.reason for entry in kept] == [
        "member another.txt, read again, has not the recorded digest"
    ]
    assert len(proofs) == 3


def test_what_was_read_cannot_be_made_up(converted: Converted) -> None:
    """Only reading a shard tells what it holds."""
    found = read_back(converted)
    with pytest.raises(ValueError, match="seal"):
        dataclasses.replace(found, damage=())  # type: ignore[call-arg]
    with pytest.raises(RefusedError, match="only be told by reading it"):
        dataclasses.replace(found, damage=(), seal=object())
    with pytest.raises(TypeError):
        found.digests["another.txt"] = "0" * 64  # type: ignore[index]


def test_a_copy_that_does_not_count(converted: Converted) -> None:
    """The copy that a repair has superseded lets no source go."""
    record = converted.record()
    manifest = store(converted, record, superseded=(record.converted[0].key,))
    proofs, kept = proofs_of(converted, manifest=manifest)
    assert [entry.reason for entry in kept] == [
        "another copy of this sample counts, in a later shard"
    ]
    assert len(proofs) == 3


def test_error_past_the_bound(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """A recorded error past the plan's own --max_error keeps the source."""
    converted = convert_here(ctrate, tmp_path / "out", samples_per_shard=4, max_error=0.5)
    record = converted.record()
    array = record.converted[0].array.model_copy(update={"max_abs_error": 99.0})
    changed = with_first(record, array=array)
    manifest = store(converted, changed)
    proofs, kept = proofs_of(converted, record=changed, manifest=manifest)
    assert "precision loss past the bound: seen 99.0" in kept[0].reason
    assert len(proofs) == 3


def test_the_proof_tells_what_it_rests_on(converted: Converted) -> None:
    """A proof holds the digests as read, the error and its bound, and the record."""
    proof, sample = first_proof(converted), converted.record().converted[0]
    assert proof.source == sample.source
    assert proof.shard_sha256 == sha256_hex(converted.dataset.shard(0).read_bytes())
    assert proof.members == {one.name: one.blake3 for one in sample.all_members}
    assert proof.max_abs_error == sample.array.max_abs_error
    assert proof.max_error == converted.plan.settings.max_error
    assert proof.record_sha256 == sha256_hex(converted.dataset.record(0).read_bytes())


def test_there_is_one_kind_of_proof() -> None:
    """No class can be derived that would pass for a proof."""
    with pytest.raises(RefusedError, match="one kind"):
        type("Another", (DeletionProof,), {"__post_init__": lambda self, seal: None})


def change_the_voxels(path: Path) -> None:
    """Another volume under the same name, as honest a file as the first."""
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["data"] = arrays["data"] + 1
    np.savez_compressed(path, **arrays)


def as_read_now(record: ShardRecord, path: Path) -> ShardRecord:
    """The first sample's record, forged so that the source looks like the one that was read."""
    status = path.stat()
    forged = record.converted[0].source.model_copy(
        update={
            "size_bytes": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "ctime_ns": status.st_ctime_ns,
            "inode": status.st_ino,
        }
    )
    return with_first(record, source=forged)


def test_a_forged_record_that_is_merged_later(make_ctrate: Make, tmp_path: Path) -> None:
    """A changed source stays, also where record and manifest were made to fit it."""
    made = make_ctrate(4, kinds=("data",))
    out = tmp_path / "out"
    assert run_here(*convert_words(made, out)).code == ExitCode.DONE
    converted = Converted(made, Dataset(out), {})
    victim = made.sources[made.keys[0]]
    change_the_voxels(victim)
    converted.dataset.record(0).write_bytes(as_read_now(converted.record(), victim).to_json())
    kept_so_far = run_here("delete", out, "--yes")
    assert kept_so_far.code == ExitCode.DAMAGE  # the manifest knows another record
    assert "merged from another record" in kept_so_far.text
    assert sources_left(made) == set(made.keys)

    converted.dataset.manifest.unlink()
    done = run_here("delete", out, "--yes")
    assert done.code == ExitCode.REFUSED
    assert "its shard holds other voxels than it has now" in done.text
    assert sources_left(made) == {made.keys[0]}


# --- Between proof and unlink -----------------------------------------------------------------


def append_to(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def replace_by_a_copy(path: Path) -> None:
    new = path.with_name("new")
    shutil.copy2(path, new)
    new.rename(path)


def replace_by_a_link(path: Path) -> None:
    aside = path.with_name("aside.npz")
    path.rename(aside)
    path.symlink_to(aside.name)


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def give_another_name(path: Path) -> None:
    os.link(path, path.with_name("another name"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (os.utime, "it is not the file that was read any more (mtime_ns "),
        (append_to, "it is not the file that was read any more (size_bytes "),
        (replace_by_a_copy, "it is not the file that was read any more ("),
        (replace_by_a_link, "it is a link; links are neither followed nor deleted"),
        (replace_by_a_folder, "it is no regular file"),
        (give_another_name, "it has 2 hard links; deleting one would free nothing"),
    ],
)
def test_source_changes_after_the_proof(
    converted: Converted, change: Callable[[Path], None], reason: str
) -> None:
    """What happens to the source after the proof is seen right before the unlink."""
    proof = first_proof(converted)
    path = converted.made.sources[proof.key]
    change(path)
    doubt = unlink_source(proof)
    assert doubt is not None
    assert doubt.startswith(reason)
    assert os.path.lexists(path)


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes())


@pytest.mark.parametrize("change", [os.unlink, os.utime, append_to, replace_by_a_copy, rewrite])
def test_shard_changes_after_the_proof(
    converted: Converted, change: Callable[[Path], None]
) -> None:
    """A shard that is not the very file that was verified any more keeps its sources."""
    proof = first_proof(converted)
    change(converted.dataset.shard(0))
    doubt = unlink_source(proof)
    assert doubt is not None
    assert "its shard " in doubt
    assert converted.made.sources[proof.key].exists()


def test_source_that_is_gone_already(converted: Converted) -> None:
    """A source that is gone needs no deletion, and none is claimed."""
    proof = first_proof(converted)
    converted.made.sources[proof.key].unlink()
    assert unlink_source(proof) == GONE


def test_source_changes_between_the_proofs_and_its_turn(converted: Converted) -> None:
    """In the middle of a shard's deletions each file is looked at anew."""
    victim = converted.made.sources[converted.made.keys[2]]
    turn = iter(range(4 + 4))  # to be proven, then to be deleted

    def change_at_the_second_turn() -> None:
        if next(turn) == 4 + 1:
            append_to(victim)

    result = delete_sources(
        converted.dataset,
        converted.plan,
        converted.planned(),
        converted.record(),
        read_back(converted),
        manifest_of(converted),
        "test",
        check_stop=change_at_the_second_turn,
    )
    assert result.deleted_files == 3
    assert [entry.key for entry in result.kept] == [converted.made.keys[2]]
    assert victim.exists()
    events = [(line.event, line.key) for line in read_journal(converted.dataset, 0)]
    assert events.count(("kept", converted.made.keys[2])) == 1
    assert [event for event, _ in events].count("deleted") == 3


# --- Paths ------------------------------------------------------------------------------------


def fingerprint_of(path: str) -> SourceFingerprint:
    return SourceFingerprint(source=path, size_bytes=0, mtime_ns=0, ctime_ns=0, inode=0)


def test_folder_turned_into_a_link(make_ctrate: Make, tmp_path: Path) -> None:
    """No link below the data folder is followed, not even to the file that was read."""
    converted = convert_here(make_ctrate(4, layout="nested"), tmp_path / "out")
    folder = converted.made.sources[converted.made.keys[0]].parent
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    there = sorted(elsewhere.iterdir())

    deleted = run_here("delete", converted.out, "--yes")
    assert deleted.code == ExitCode.REFUSED
    assert "its path cannot be followed safely: " in deleted.text
    assert sorted(elsewhere.iterdir()) == there


@pytest.mark.parametrize(
    "path",
    ["../tables.csv", "a/../../b", "/etc/passwd", "a//b", "./a", "a/.", "..", "", "a\n/../b"],
)
def test_path_that_leads_elsewhere(converted: Converted, path: str) -> None:
    """A path that leads out of the data folder is no valid record, and opens nothing."""
    with pytest.raises(ValidationError):
        fingerprint_of(path)
    source = converted.record().converted[0].source.model_copy(update={"source": path})
    doubt = doubt_about_source(converted.made.data_folder, source, converted.out)
    assert doubt is not None
    assert doubt.startswith("its path cannot be followed safely")


@given(st.text("./a\n\\ ", min_size=1, max_size=12))
def test_no_path_leads_out_of_the_folder(path: str) -> None:
    """A path that a record may hold stays beneath its folder; any other opens nothing."""
    try:
        fingerprint_of(path)
    except ValidationError:
        with pytest.raises((ValueError, OSError)), open_beneath(Path("/nowhere"), path):
            pass
        return
    assert os.path.normpath(path) == path
    assert not path.startswith(("/", "../"))


def test_data_folder_within_the_dataset(make_ctrate: Make, tmp_path: Path) -> None:
    """Sources that lie in the dataset directory are converted and never deleted."""
    made = make_ctrate(4)
    out = made.data_folder.parent
    done = run_here(*convert_words(made, out, *DELETE))
    assert done.code == ExitCode.DONE
    assert "it lies in the dataset directory" in done.text
    assert "4 files were NOT deleted." in done.text
    assert sources_left(made) == set(made.keys)
    assert len(read_dataset(out)) == 4


def test_dataset_within_the_data_folder(make_ctrate: Make, tmp_path: Path) -> None:
    """The dataset directory may lie in the data folder; its own files are no sources."""
    made = make_ctrate(4)
    originals = load_originals(made)
    out = made.data_folder / "shards"
    assert run_here(*convert_words(made, out, *DELETE)).code == ExitCode.DONE
    assert not sources_left(made)
    assert_finished(made, originals, out)


def test_odd_folder_names(make_ctrate: Make, tmp_path: Path) -> None:
    """Blanks, quotes and line ends in a folder's name do no harm."""
    made = make_ctrate(4)
    originals = load_originals(made)
    folder = made.data_folder / 'it\'s "odd"\n$(here) ünïcode'
    folder.mkdir()
    moved = {key: path.rename(folder / path.name) for key, path in made.sources.items()}
    made = dataclasses.replace(made, sources=moved)
    assert run_here(*convert_words(made, tmp_path / "out", *DELETE)).code == ExitCode.DONE
    assert not sources_left(made)
    assert_finished(made, originals, tmp_path / "out")


# --- The command ------------------------------------------------------------------------------


def test_dry_run(converted: Converted) -> None:
    """Without --yes, and with --dry_run, the view is the whole of it."""
    for words in (["delete", converted.out], ["delete", converted.out, "--dry_run"]):
        shown = run_here(*words)
        assert shown.code == ExitCode.DONE
        assert re.search(r"^deletable +8 ", shown.stdout, re.MULTILINE)
        assert "Nothing was deleted. Next: ctrate-convert delete" in shown.stdout
    assert sources_left(converted.made) == set(converted.made.keys)
    assert not list((converted.dataset.run / "deletions").iterdir())
    both = run_here("delete", converted.out, "--dry_run", "--yes")
    assert both.code == ExitCode.USAGE
    assert sources_left(converted.made) == set(converted.made.keys)


def test_delete_twice(converted: Converted) -> None:
    """The second deletion finds nothing to do, and the journal stays as it is."""
    first = run_here("delete", converted.out, "--yes")
    assert first.code == ExitCode.DONE
    assert "Deleted 8 source files" in first.text
    assert not sources_left(converted.made)
    journals = [converted.dataset.journal(shard).read_bytes() for shard in (0, 1)]

    second = run_here("delete", converted.out, "--yes")
    assert second.code == ExitCode.DONE
    assert "Deleted 0 source files" in second.text
    assert [converted.dataset.journal(shard).read_bytes() for shard in (0, 1)] == journals
    assert run_here("verify", converted.out, "--full").code == ExitCode.DONE


def test_every_unlink_has_its_intent(converted: Converted) -> None:
    """The journal has one intent and one end a source, the intents first."""
    run_here("delete", converted.out, "--yes")
    for shard in (0, 1):
        lines = read_journal(converted.dataset, shard)
        keys = [sample.key for sample in converted.record(shard).samples]
        assert [(line.event, line.key) for line in lines] == [
            *(("intent", key) for key in keys),
            *(("deleted", key) for key in keys),
        ]
        assert {line.authorised_by for line in lines} == {"delete --yes"}


def intend(converted: Converted, keys: list[str], torn: str = "") -> None:
    """The journal as a killed process leaves it: intents without an end, perhaps a torn line."""
    lines = [
        JournalLine(
            event="intent",
            key=sample.key,
            source=sample.source.source,
            size_bytes=sample.source.size_bytes,
            time="2024-01-01T00:00:00+00:00",
            authorised_by="test",
        ).model_dump_json()
        for sample in converted.record().converted
        if sample.key in keys
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
    shown = run_here("delete", converted.out)
    assert re.search(r"^deleted +1 ", shown.stdout, re.MULTILINE)
    assert "gone" not in shown.stdout

    done = run_here("delete", converted.out, "--yes")
    assert done.code == ExitCode.DONE
    assert not sources_left(converted.made)
    ends = {line.key: line.event for line in read_journal(converted.dataset, 0)}
    assert ends == {gone: "found_gone", there: "deleted", **dict.fromkeys(others, "deleted")}
    before = converted.dataset.journal(0).read_bytes()
    run_here("delete", converted.out, "--yes")
    assert converted.dataset.journal(0).read_bytes() == before


def test_only_the_journal_awaits_its_last_line(converted: Converted) -> None:
    """Where every file of a shard is gone and only the ends are missing, they are written."""
    keys = list(converted.made.keys[:4])
    intend(converted, keys)
    for key in keys:
        converted.made.sources[key].unlink()
    assert run_here("delete", converted.out, "--yes").code == ExitCode.DONE
    ends = {line.key: line.event for line in read_journal(converted.dataset, 0)}
    assert ends == dict.fromkeys(keys, "found_gone")


def test_intent_is_no_proof(converted: Converted) -> None:
    """An open intent does not delete a file that has changed since."""
    key = converted.made.keys[0]
    intend(converted, [key])
    append_to(converted.made.sources[key])
    done = run_here("delete", converted.out, "--yes")
    assert "it is not the file that was read any more (size_bytes " in done.text
    assert sources_left(converted.made) == {key}


def test_missing_by_another_hand(converted: Converted) -> None:
    """A source that vanished without this program is called gone, not deleted."""
    key = converted.made.keys[0]
    converted.made.sources[key].unlink()
    shown = run_here("delete", converted.out)
    assert f"gone: {key}.npz — missing, though this program did not delete it" in shown.stdout

    assert run_here("delete", converted.out, "--yes").code == ExitCode.DONE
    lines = {line.key: line for line in read_journal(converted.dataset, 0)}
    assert (lines[key].event, lines[key].authorised_by) == ("kept", "delete --yes")
    assert lines[key].reason == "it is missing, though this program did not delete it"
    assert {line.event for line in lines.values() if line.key != key} == {"deleted"}
    shown = run_here("delete", converted.out, "--yes")
    assert f"gone: {key}.npz — missing, though this program did not delete it" in shown.stdout
    assert {line.key: line for line in read_journal(converted.dataset, 0)} == lines


def test_missing_data_folder(converted: Converted) -> None:
    """Where the data folder itself is away, no source is taken for deleted, intended or not."""
    intend(converted, [converted.made.keys[0]])
    away = converted.out.parent / "away"
    converted.made.data_folder.rename(away)
    done = run_here("delete", converted.out, "--yes")
    assert "kept: train_1_a_1.npz — its path cannot be followed safely: " in done.text
    assert {line.event for line in read_journal(converted.dataset, 0)} == {"intent", "kept"}
    away.rename(converted.made.data_folder)
    assert run_here("delete", converted.out, "--yes").code == ExitCode.DONE
    assert not sources_left(converted.made)


def test_plan_without_authority(make_ctrate: Make, tmp_path: Path) -> None:
    """Without --delete_source_files neither plan, run nor merge deletes anything."""
    made = make_ctrate(4)
    out = tmp_path / "out"
    for words in (["plan", *input_words(made, out)], ["run", out], ["merge", out], ["run", out]):
        assert run_here(*words).code == ExitCode.DONE
    assert sources_left(made) == set(made.keys)


def test_failed_and_excluded_sources_stay(make_ctrate: Make, tmp_path: Path) -> None:
    """Whatever is deleted, failed and excluded samples keep their sources."""
    made = make_ctrate(8, kinds=("data",), faults=("corrupt", "no_report", "duplicate", "excluded"))
    originals = {k: v for k, v in load_originals(made).items() if k not in made.faults}
    out = tmp_path / "out"
    words = convert_words(made, out, "--exclude_file", made.exclude_file, *DELETE)
    done = run_here(*words)
    assert done.code == ExitCode.SAMPLES_FAILED
    assert "1 file was NOT deleted." in done.text
    assert sources_left(made) == set(made.faults)
    assert_finished_but(made, originals, out)
    assert run_here("delete", out, "--yes").code == ExitCode.DONE
    assert sources_left(made) == set(made.faults)


def assert_finished_but(made: SyntheticCtRate, originals: dict[str, Any], out: Path) -> None:
    assert read_dataset(out).keys() == originals.keys()
    states = manifest_states(out)
    assert states == {"converted": 4, "failed": 1, "pending": 0, "excluded": 4, "total": 9}


def manifest_states(out: Path) -> dict[str, int]:
    manifest = load_manifest(Dataset(out))
    assert manifest is not None
    return manifest.samples


def test_two_deletions_at_once(converted: Converted) -> None:
    """Two deletions at the same time together delete every source once."""
    words = command("delete", converted.out, "--yes")
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert not sources_left(converted.made)
    merge(converted.dataset, load_plans(converted.dataset))
    for shard in (0, 1):
        ended = [e.key for e in read_journal(converted.dataset, shard) if e.event == "deleted"]
        assert sorted(ended) == sorted(sample.key for sample in converted.record(shard).samples)
