"""`audit` accounts for every source that is gone, from what is on disk now, and claims no more."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import socket
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert.checking.audit import accounts as audit_module
from ctrate_convert.checking.audit import against_sources as audit_compare
from ctrate_convert.checking.audit import gathered as audit_evidence
from ctrate_convert.checking.audit.gathered import gather
from ctrate_convert.checking.audit.gone import find_gone
from ctrate_convert.checking.shard_check import check_shard
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.presence import aside_name
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.record import ArrayRecord
from tests.consents import allow_deletion
from tests.support import Converted, Finished, run_cli, run_here, sources_left

FIRST, SECOND = "shard-000000.tar", "shard-000001.tar"
ALL_WELL = "every deleted source is accounted for"


@pytest.fixture
def freed(converted: Converted) -> Converted:
    """Eight samples in two shards, their sources deleted."""
    assert run_here("delete", converted.out, "--yes", "--num_workers", 1).code == ExitCode.DONE
    return converted


def audit(converted: Converted, *words: object) -> Finished:
    return run_here("audit", converted.out, "--num_workers", 1, *words)


def summary_of(done: Finished) -> dict[str, Any]:
    summary: dict[str, Any] = done.json()["summary"]
    return summary


def findings_of(done: Finished) -> dict[str, str]:
    return {one["key"]: one["finding"] for one in done.json()["sources"] if one["finding"]}


def keys_of(converted: Converted, shard: int) -> list[str]:
    return [sample.key for sample in converted.record(shard).converted]


def array_of(converted: Converted, shard: int = 0, place: int = 1) -> ArrayRecord:
    return converted.record(shard).converted[place].array


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def journal_lines(converted: Converted, shard: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in converted.dataset.journal(shard).read_text().splitlines()]


def write_journal(converted: Converted, lines: list[dict[str, Any]], shard: int = 0) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    converted.dataset.journal(shard).write_text(text)


# --- What is filed ------------------------------------------------------------------------------


def test_shard_and_member_of_every_deleted_source(freed: Converted) -> None:
    """Each deleted source is listed with shard, member and digests, read from storage now."""
    done = run_cli("audit", freed.out, "--json")
    assert done.code == ExitCode.DONE, done.text
    report = done.json()
    summary = report["summary"]
    assert summary["gone_sources"] == summary["deleted_sources"] == summary["checked_now"] == 8
    assert summary["members_read_now"] == summary["members_sound_now"] == 8 * 4
    assert summary["shards_read_whole"] == 2
    assert summary["read_bytes"] == sum(p.stat().st_size for p in freed.out.glob("*.tar"))
    assert (summary["untold_sources"], summary["open_intents"], summary["findings"]) == (0, 0, 0)
    for one in report["sources"]:
        shard = freed.out / one["shard"]
        assert one["member"] == f"{one['key']}.volume.npy"
        assert one["shard_sha256"] == hashlib.sha256(shard.read_bytes()).hexdigest()
        assert (one["told"], one["event"], one["checked"]) == ("journal", "deleted", True)
        assert not freed.made.sources[one["key"]].exists()


def test_a_page_that_can_be_signed_and_checked(freed: Converted) -> None:
    """It says who, where, when and of what; its own command compares the list with its digest."""
    done = audit(freed, "--json")
    files = {name: Path(path) for name, path in done.json()["files"].items()}
    text = files["page"].read_text()
    summary = summary_of(done)
    for fact in (
        str(freed.out.resolve()),
        str(freed.made.data_folder.resolve()),
        freed.plan.plan_id,
        f"by {getpass.getuser()} on {socket.gethostname()}",
        summary["time"],
        f"ctrate-convert {summary['program_version']}",
        f"8 ({summary['gone_bytes']:,} bytes)",
        f"100%, chosen by --seed {summary['seed']}",
        f"{ALL_WELL}; 8 of 8 read and checked now, and sound",
    ):
        assert fact in text
    assert all(f"\n{name} " in text for name in ("Name", "Date", "Signature"))
    assert json.loads(files["summary"].read_text()) == summary
    listed = files["list"].read_text().splitlines()
    assert [json.loads(line) for line in listed] == done.json()["sources"]
    assert summary["gone_bytes"] == sum(one["size_bytes"] for one in done.json()["sources"])

    start = text.index("\ncd ")
    check = text[start : text.index("\nEND\n", start)] + "\nEND\n"
    agreed = subprocess.run(["sh", "-c", check], capture_output=True, text=True, check=False)
    assert agreed.stdout.splitlines() == ["sources.jsonl: OK", "summary.json: OK"], agreed.stderr
    files["list"].write_bytes(files["list"].read_bytes().replace(b"deleted", b"trashed", 1))
    changed = subprocess.run(["sh", "-c", check], capture_output=True, text=True, check=False)
    assert "sources.jsonl: FAILED" in changed.stdout


def test_an_earlier_audit_is_never_overwritten(freed: Converted) -> None:
    """Each audit has a folder of its own, also where several are made at the same moment."""
    first = audit(freed, "--json").json()["files"]
    before = {name: Path(path).read_bytes() for name, path in first.items()}
    threads = [threading.Thread(target=run_cli, args=("audit", freed.out)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: Path(path).read_bytes() for name, path in first.items()} == before
    folders = sorted((freed.dataset.run / "audits").iterdir())
    assert len(folders) == 3
    for folder in folders:
        names = {path.name for path in folder.iterdir()}
        assert names == {"audit.txt", "summary.json", "sources.jsonl"}


def test_what_is_there_is_left_out(converted: Converted) -> None:
    """Where nothing is gone there is nothing to account for, and that is what is said."""
    done = audit(converted)
    assert done.code == ExitCode.DONE
    assert "no source is gone" in done.stdout
    assert ALL_WELL not in done.stdout
    assert summary_of(audit(converted, "--json"))["gone_sources"] == 0


def test_a_source_that_was_put_back(freed: Converted) -> None:
    """It is named apart and not counted as gone, whatever the journal says."""
    key = keys_of(freed, 0)[0]
    freed.made.sources[key].write_bytes(b"from a backup")
    done = audit(freed)
    assert done.code == ExitCode.DONE
    assert "Deleted, but a file of that name is there again" in done.stdout
    summary = summary_of(audit(freed, "--json"))
    assert summary["gone_sources"] == 7
    assert summary["put_back"] == [freed.record(0).converted[0].source.source]


# --- A share ------------------------------------------------------------------------------------


def test_a_share_is_read_and_the_seed_chooses_it(freed: Converted) -> None:
    """34% of eight are three; the same seed gives the same ones, others give others."""

    def chosen(seed: int) -> frozenset[str]:
        done = audit(freed, "--sample", "34%", "--seed", seed, "--json")
        assert done.code == ExitCode.DONE
        summary = summary_of(done)
        assert (summary["checked_now"], summary["members_sound_now"]) == (3, 12)
        assert (summary["share"], summary["seed"]) == (0.34, seed)
        return frozenset(one["key"] for one in done.json()["sources"] if one["checked"])

    choices = [chosen(seed) for seed in range(4)]
    assert chosen(2) == choices[2]
    assert len(set(choices)) > 1
    done = audit(freed, "--sample", "34%", "--seed", 0)
    assert "accounted for by record; 3 of 8 read and checked now, and sound" in done.stdout
    assert "34%, chosen by --seed 0" in done.stdout
    assert ALL_WELL not in done.stdout


@pytest.mark.parametrize("share", ["0.1%", "0.000000001%"])
def test_at_least_one_is_read(freed: Converted, share: str) -> None:
    """A share that comes to none reads one, and the verdict says how many that are."""
    done = audit(freed, "--sample", share)
    assert done.code == ExitCode.DONE
    assert "accounted for by record; 1 of 8 read and checked now" in done.stdout
    assert ALL_WELL not in done.stdout


@pytest.mark.parametrize("share", ["0%", "0", "-1%", "101%", "7", "nan", "some", ""])
def test_a_share_that_is_none(converted: Converted, share: str) -> None:
    """Nothing, and what is no share, is refused, and what is expected is said."""
    done = audit(converted, "--sample", share)
    assert done.code == ExitCode.USAGE
    assert "more than 0% and at most 100%" in done.stderr
    assert not (converted.dataset.run / "audits").exists()


# --- What the journals do not tell --------------------------------------------------------------


def test_a_lost_journal(freed: Converted) -> None:
    """Sources that are gone are found without it, matched to their members, and told apart."""
    freed.dataset.journal(0).unlink()
    done = audit(freed)
    assert done.code == ExitCode.DONE
    assert ALL_WELL not in done.stdout
    assert (
        "accounted for WITH RESERVATIONS; 8 of 8 read and checked now, and sound; no journal tells "
        "of 4 of the sources that are gone" in done.stdout
    )
    assert all(f"{key} (" in done.stdout for key in keys_of(freed, 0))
    summary = summary_of(audit(freed, "--json"))
    assert (summary["gone_sources"], summary["deleted_sources"]) == (8, 4)
    assert (summary["untold_sources"], summary["checked_now"]) == (4, 8)


def test_a_lost_record(freed: Converted) -> None:
    """A deletion whose record is gone is matched to nothing, with a journal or without."""
    lost = keys_of(freed, 0)
    freed.dataset.record(0).unlink()
    for _ in range(2):
        done = audit(freed, "--json")
        assert done.code == ExitCode.DAMAGE
        assert findings_of(done) == dict.fromkeys(
            lost, "no shard is known to hold it: shard 0 has no record that can be read"
        )
        assert "NOT accounted for: 4 of 8 sources" in summary_of(done)["verdict"]
        freed.dataset.journal(0).unlink(missing_ok=True)


def test_a_record_that_does_not_name_a_sample(freed: Converted) -> None:
    """What the plan names, is gone, and is in no record is found, without a journal too."""
    path = freed.dataset.record(0)
    facts = json.loads(path.read_bytes())
    dropped = facts["samples"].pop(0)["key"]
    path.write_text(json.dumps(facts))
    freed.dataset.journal(0).unlink()
    done = audit(freed, "--json")
    assert done.code == ExitCode.DAMAGE
    assert "the record of shard 0 does not name it" in findings_of(done)[dropped]


def test_an_open_intent_whose_file_is_gone(converted: Converted) -> None:
    """A process killed between the unlink and its line has deleted; what it only meant to, not."""
    assert run_here("delete", converted.out, "--yes", "--num_workers", 1).code == ExitCode.DONE
    lines = journal_lines(converted)
    write_journal(converted, [line for line in lines if line["event"] == "intent"])
    meant = keys_of(converted, 0)[0]
    converted.made.sources[meant].write_bytes(b"still there")
    done = audit(converted, "--json")
    assert done.code == ExitCode.DONE
    summary = summary_of(done)
    assert (summary["deleted_sources"], summary["open_intents"]) == (7, 3)
    assert (summary["untold_sources"], summary["put_back"]) == (0, [])
    told = {one["key"]: one["told"] for one in done.json()["sources"]}
    assert meant not in told
    assert {told[key] for key in keys_of(converted, 0)[1:]} == {"open intent"}
    assert "3 (an open intent, the file gone)" in audit(converted).stdout


def test_unreadable_lines_are_named(freed: Converted) -> None:
    """A line that cannot be read is named by file and number; its source is found all the same."""
    path = freed.dataset.journal(0)
    lines = path.read_text().splitlines()
    place = next(n for n, line in enumerate(lines) if '"deleted"' in line)
    key = json.loads(lines[place])["key"]
    kept = [line for line in lines if f'"{key}"' not in line]
    path.write_text("\n".join([*kept, lines[place][:40], "nonsense"]) + "\n")
    done = audit(freed)
    assert done.code == ExitCode.DONE
    for number in (len(kept) + 1, len(kept) + 2):
        assert f"{path}, line {number}: it cannot be read" in done.stdout
    assert "WITH RESERVATIONS" in done.stdout
    assert "no journal tells of 1 of the sources" in done.stdout
    assert "2 entries could not be relied on" in done.stdout
    assert f"{key} (" in done.stdout
    assert len(summary_of(audit(freed, "--json"))["remarks"]) == 2


def test_a_journal_that_cannot_be_opened(freed: Converted) -> None:
    """A folder or a pipe in its place hides no deletion and keeps nobody waiting."""
    for make in (Path.mkdir, os.mkfifo):
        path = freed.dataset.journal(0)
        path.rename(path.with_suffix(".away")) if path.is_file() else path.rmdir()
        make(path)
        done = audit(freed)
        assert done.code == ExitCode.DONE
        assert f"{path}: " in done.stdout
        assert "no journal tells of 4 of the sources" in done.stdout


def test_a_journal_of_no_plan(freed: Converted) -> None:
    """A deletion told of a shard that no plan knows is matched to nothing."""
    path = freed.dataset.journal(0)
    path.with_name("shard-000009.jsonl").write_bytes(path.read_bytes())
    done = audit(freed)
    assert done.code == ExitCode.DAMAGE
    assert "no plan knows the shard of its journal" in done.stdout


@pytest.mark.parametrize("field", ["source", "size_bytes"])
def test_a_journal_that_tells_of_another_file(freed: Converted, field: str) -> None:
    """Where path or size are not the record's, what was deleted is not what is held."""
    lines = journal_lines(freed)
    one = next(line for line in lines if line["event"] == "deleted")
    one[field] = "elsewhere.npz" if field == "source" else 7
    write_journal(freed, lines)
    done = audit(freed, "--json")
    assert done.code == ExitCode.DAMAGE
    assert list(findings_of(done)) == [one["key"]]
    assert (
        f"the journal tells of {one['source']} with {one['size_bytes']} bytes, the record of"
        in (findings_of(done)[one["key"]])
    )


def test_lines_of_the_plan_that_cannot_be_relied_on(freed: Converted) -> None:
    """They would tell what else there was, so the audit does not vouch for all."""
    flip(freed.dataset.plan(0) / "samples.jsonl", 30)
    done = audit(freed)
    assert done.code == ExitCode.DAMAGE
    assert "DAMAGE, so not all is accounted for" in done.stdout
    assert "the planned samples of shard-000000.tar: " in done.stdout


def test_a_source_that_cannot_be_looked_at(converted: Converted, tmp_path: Path) -> None:
    """Whether it is gone is not known, and that is said."""
    folder = converted.made.data_folder
    folder.rename(tmp_path / "away")
    folder.write_bytes(b"no folder")
    done = audit(converted)
    assert "could not be relied on" in done.stdout
    assert "so that whether it is gone is not known" in done.stdout


def test_a_data_folder_that_is_not_there(converted: Converted, tmp_path: Path) -> None:
    """All that no journal tells of counts as gone, is checked, and the folder is named."""
    folder = converted.made.data_folder
    folder.rename(tmp_path / "away")
    done = audit(converted)
    assert done.code == ExitCode.DONE
    assert f"{folder}: this data folder is not there" in done.stdout
    assert "WITH RESERVATIONS; 8 of 8 read and checked now" in done.stdout


def test_a_source_that_failed_and_is_gone(make_ctrate: Any, tmp_path: Path) -> None:
    """No shard holds it, so it is not accounted for, and why it failed is told."""
    made = make_ctrate(4, faults=("corrupt",))
    words = ["--data_folder", made.data_folder, "--reports_file", made.reports_file]
    words += ["--meta_file", made.meta_file, "--labels_file", made.labels_file]
    done = run_here("convert", *words, "--output_dir", tmp_path / "out", "--probe", 0)
    assert done.code == ExitCode.SAMPLES_FAILED
    key = next(key for key, fault in made.faults.items() if fault == "corrupt")
    made.sources[key].unlink()
    found = run_here("audit", tmp_path / "out", "--json")
    assert found.code == ExitCode.DAMAGE
    assert list(findings_of(found)) == [key]
    assert "it could not be converted (" in findings_of(found)[key]


def test_a_run_that_deletes_meanwhile(
    converted: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources that go between the first look and the journals are no finding and no doubt."""
    read = audit_evidence._read_journal

    def read_later(path: Path, found: audit_evidence.Evidence) -> Any:
        if sources_left(converted.made):
            run_here("delete", converted.out, "--yes", "--num_workers", 1)
        return read(path, found)

    monkeypatch.setattr(audit_evidence, "_read_journal", read_later)
    done = audit(converted, "--json")
    assert done.code == ExitCode.DONE
    summary = summary_of(done)
    assert (summary["deleted_sources"], summary["put_back"]) == (8, [])
    assert ALL_WELL in summary["verdict"]


# --- What the shards hold -----------------------------------------------------------------------


def test_a_flipped_byte_and_a_missing_shard(freed: Converted) -> None:
    """A deleted source whose member has changed or is missing is not accounted for."""
    array = array_of(freed)
    flip(freed.out / FIRST, array.offset + array.size_bytes - 1)
    (freed.out / SECOND).unlink()
    done = audit(freed)
    assert done.code == ExitCode.DAMAGE
    assert "NOT accounted for: 5 of 8 sources that are gone" in done.stdout
    assert f"member {array.name} has changed" in done.stdout
    assert f"{SECOND}: cannot be seen: No such file or directory" in done.stdout
    summary = summary_of(audit(freed, "--json"))
    assert (summary["checked_now"], summary["members_sound_now"]) == (4, 12)


def test_a_missing_or_short_shard_is_found_by_any_share(freed: Converted) -> None:
    """Presence and size of every shard that holds a source are looked at, chosen or not."""
    (freed.out / SECOND).unlink()
    with (freed.out / FIRST).open("ab") as stream:
        stream.write(bytes(512))
    for seed in range(3):
        done = audit(freed, "--sample", "1%", "--seed", seed, "--json")
        assert done.code == ExitCode.DAMAGE
        assert set(findings_of(done)) == {*keys_of(freed, 0), *keys_of(freed, 1)}
    assert f"{FIRST}: has " in findings_of(done)[keys_of(freed, 0)[0]]


def test_bytes_that_no_member_covers(freed: Converted) -> None:
    """Where all of a shard is read its SHA-256 is compared, so that no byte goes unseen."""
    flip(freed.out / FIRST, (freed.out / FIRST).stat().st_size - 1)
    done = audit(freed)
    assert done.code == ExitCode.DAMAGE
    assert f"{FIRST}: has changed outside every member: SHA-256" in done.stdout


@pytest.mark.parametrize("share", ["100%", "1%"])
@pytest.mark.parametrize(
    ("where", "told"), [(148, "tar header"), (0, "tar header"), (156, "tar header"), (530, "npy")]
)
def test_a_broken_header(freed: Converted, share: str, where: int, told: str) -> None:
    """Checksum, name or type in a tar header, or the npy header: a share sees it, too."""
    seed, key = 0, ""
    while key not in keys_of(freed, 0):  # a choice that falls on the first shard
        seed += 1
        chosen = audit(freed, "--sample", "1%", "--seed", seed, "--json").json()["sources"]
        key = next(one["key"] for one in chosen if one["checked"])
    array = next(one.array for one in freed.record(0).converted if one.key == key)
    flip(freed.out / FIRST, array.offset - 512 + where)
    done = audit(freed, "--sample", share, "--seed", seed, "--json")
    assert done.code == ExitCode.DAMAGE
    if share == "1%":
        assert list(findings_of(done)) == [key]
        assert told in findings_of(done)[key]


@pytest.mark.parametrize("change", [{"name": "other.npy"}, {"size": 1}, {"type": tarfile.DIRTYPE}])
def test_a_sound_header_of_another_member(freed: Converted, change: dict[str, Any]) -> None:
    """A tar header that only tells of another name, size or kind is found by a share, too."""
    evidence = gather(freed.dataset, [freed.plan])
    array, path = array_of(freed), freed.out / FIRST
    data = bytearray(path.read_bytes())
    info = tarfile.TarInfo.frombuf(
        bytes(data[array.offset - 512 : array.offset]), "ascii", "strict"
    )
    for name, value in change.items():
        setattr(info, name, value)
    data[array.offset - 512 : array.offset] = info.tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(data)
    key = keys_of(freed, 0)[1]
    found = check_shard(freed.dataset, evidence.recorded[0], frozenset([key]), everything=False)
    assert list(found.wrong) == [key]
    assert f"the tar header of member {array.name} tells of" in found.wrong[key][0]
    assert audit(freed).code == ExitCode.DAMAGE


def test_a_place_beyond_the_shard(freed: Converted) -> None:
    """A record that places a member nowhere is found out, whatever number it holds."""
    path = freed.dataset.record(0)
    facts = json.loads(path.read_bytes())
    for sample, offset in zip(facts["samples"], (511, 0, 2**63 - 1, 2**62), strict=True):
        sample["array"]["offset"] = offset
    path.write_text(json.dumps(facts))
    evidence = gather(freed.dataset, [freed.plan])
    assert len(find_gone([freed.plan], evidence).sources) == 8
    chosen = frozenset(keys_of(freed, 0)[:3])
    found = check_shard(freed.dataset, evidence.recorded[0], chosen, everything=False)
    assert set(found.wrong) == chosen
    assert found.read == frozenset()
    assert audit(freed).code == ExitCode.DAMAGE


@pytest.mark.parametrize("offset", [-512, 10**30])
def test_a_place_that_no_file_has(freed: Converted, offset: int) -> None:
    """A record with such a number is no record, and what it told of is not accounted for."""
    path = freed.dataset.record(0)
    facts = json.loads(path.read_bytes())
    facts["samples"][1]["array"]["offset"] = offset
    path.write_text(json.dumps(facts))
    done = audit(freed)
    assert done.code == ExitCode.DAMAGE
    assert "not a valid ShardRecord" in done.stdout
    assert "no shard is known to hold it" in done.stdout


def test_damage_to_a_sample_whose_source_is_there(freed: Converted) -> None:
    """It is no lost source, and it is named, with the exit code of damage."""
    key = keys_of(freed, 0)[1]
    freed.made.sources[key].write_bytes(b"from a backup")
    array = array_of(freed)
    flip(freed.out / FIRST, array.offset + array.size_bytes - 1)
    done = audit(freed)
    assert done.code == ExitCode.DAMAGE
    assert f"{FIRST}, {key}: member {array.name} has changed" in done.stdout
    assert "DAMAGE, so not all is accounted for" in done.stdout


def test_a_repaired_shard_is_no_matter_any_more(converted: Converted) -> None:
    """The copy that counts is audited, in its new shard; the damaged one is not spoken of."""
    array = array_of(converted)
    flip(converted.out / FIRST, array.offset + array.size_bytes - 1)
    words = ("--full", "--repair", "--num_workers", 1)
    assert run_here("verify", converted.out, *words).code == ExitCode.DONE
    assert run_here("delete", converted.out, "--yes", "--num_workers", 1).code == ExitCode.DONE
    done = audit(converted, "--json")
    assert done.code == ExitCode.DONE
    assert f"{ALL_WELL}; 8 of 8 read" in summary_of(done)["verdict"]
    shards = {one["key"]: one["shard"] for one in done.json()["sources"]}
    assert {shards[key] for key in keys_of(converted, 0)} == {"shard-000002.tar"}
    assert len(done.json()["sources"]) == 8


# --- The trash ----------------------------------------------------------------------------------


def test_a_trash_and_what_was_removed_from_it(converted: Converted, tmp_path: Path) -> None:
    """Of each trashed source it is looked whether the very file is still in the trash."""
    trash = tmp_path / "trash"
    moved = run_here("delete", converted.out, "--yes", "--trash", trash, "--num_workers", 1)
    assert moved.code == ExitCode.DONE
    samples = converted.record(0).converted
    (trash / "shard-000000" / samples[0].source.source).unlink()
    replaced = trash / "shard-000000" / samples[1].source.source
    replaced.unlink()
    replaced.write_bytes(b"another file")
    done = audit(converted, "--json")
    assert done.code == ExitCode.DONE
    states = {one["key"]: one["trash_state"] for one in done.json()["sources"]}
    removed = {samples[0].key, samples[1].key}
    assert {key for key, s in states.items() if s == "removed from the trash since"} == removed
    assert {key for key, s in states.items() if s == "in the trash"} == states.keys() - removed
    summary = summary_of(done)
    assert (summary["in_the_trash"], summary["removed_from_the_trash"]) == (6, 2)
    assert ALL_WELL in summary["verdict"]
    shown = audit(converted).stdout.splitlines()
    assert [" ".join(line.split()) for line in shown if "the trash" in line] == [
        "in the trash 6",
        "removed from the trash since 2",
    ]
    back = run_here("restore", converted.out)
    assert back.code == ExitCode.REFUSED
    assert summary_of(audit(converted, "--json"))["gone_sources"] == 2


def test_a_trash_that_the_journal_cannot_mean(converted: Converted, tmp_path: Path) -> None:
    """A forged place in the journal is told as such."""
    run_here("delete", converted.out, "--yes", "--trash", tmp_path / "t", "--num_workers", 1)
    lines = journal_lines(converted)
    for line in lines:
        line["trash"] = str(tmp_path / "precious")
    write_journal(converted, lines)
    done = audit(converted, "--json")
    assert done.code == ExitCode.DAMAGE
    assert set(findings_of(done)) == set(keys_of(converted, 0))
    assert "a place that is no trash" in next(iter(findings_of(done).values()))


def test_a_name_cannot_pass_for_a_verdict(freed: Converted) -> None:
    """What a tampered journal holds stays in its line, on the page too."""
    lines = journal_lines(freed)
    forged = f"x\nVERDICT                           {ALL_WELL}"
    for line in lines:
        line["source"] = forged
    write_journal(freed, lines)
    done = audit(freed)
    assert done.code == ExitCode.DAMAGE
    verdicts = [line for line in done.stdout.splitlines() if line.startswith("VERDICT")]
    assert len(verdicts) == 1
    assert "NOT accounted for" in verdicts[0]


# --- Who allowed it -----------------------------------------------------------------------------


def consents_of(converted: Converted) -> list[Path]:
    return sorted(converted.dataset.consents.glob("*.json"))


def test_consents_are_quoted(freed: Converted) -> None:
    """Page, summary and JSON say who allowed which deletion, when, where, by which command, of how
    much and with what rounding, and how much went under it."""
    done = audit(freed, "--json")
    (quoted,) = summary_of(done)["consents"]
    consent = json.loads(consents_of(freed)[0].read_bytes())
    assert quoted["consent"] == consent
    assert (quoted["gone_sources"], quoted["gone_bytes"]) == (8, consent["size_bytes"])
    (line,) = (
        text
        for text in Path(done.json()["files"]["page"]).read_text().splitlines()
        if consent["name"] in text
    )
    for fact in (
        Consent.model_validate_json(consents_of(freed)[0].read_bytes()).words(),
        f"{getpass.getuser()} on {socket.gethostname()}, {consent['time']}",
        "delete --yes",
        f"8 files ({consent['size_bytes']:,} bytes)",
        f"gone under it: 8 ({consent['size_bytes']:,} bytes)",
        *(f"rounding: {sentence}" for sentence in consent["rounding"]),
    ):
        assert fact in line
    assert consent["rounding"]
    assert line.strip() in audit(freed).stdout


def test_two_consents_are_told_apart(converted: Converted, tmp_path: Path) -> None:
    """Each is quoted with what went under it; one that nothing went under is quoted, too."""
    allow_deletion(converted.dataset, "never used")
    kept = converted.made.sources[keys_of(converted, 1)[0]]
    held_back = kept.rename(kept.with_name("held-back"))
    assert run_here("delete", converted.out, "--yes").code == ExitCode.DONE
    held_back.rename(kept)
    last = run_here("delete", converted.out, "--yes", "--trash", tmp_path / "trash")
    assert last.code == ExitCode.DONE
    quoted = summary_of(audit(converted, "--json"))["consents"]
    went = [(one["consent"]["trash"] != "", one["gone_sources"]) for one in quoted]
    assert sorted(went) == [(False, 0), (False, 7), (True, 1)]


def test_a_consent_that_is_gone_is_a_remark(freed: Converted) -> None:
    """What the shards hold does not depend on it: no damage, and every source is accounted for."""
    (path,) = consents_of(freed)
    path.unlink()
    done = audit(freed, "--json")
    assert done.code == ExitCode.DONE
    summary = summary_of(done)
    assert (summary["findings"], summary["consents"]) == (0, [])
    told = [(one["kind"], one["where"], one["what"]) for one in summary["remarks"]]
    what = f"8 of its lines name the consent {path.stem}, which is not there any more"
    assert told == [("journal", str(freed.dataset.journal(shard)), what) for shard in (0, 1)]
    assert "WITH RESERVATIONS" in summary["verdict"]


@pytest.mark.parametrize("data", [b"", b"{}", b"[", b"\xff"])
def test_a_consent_that_cannot_be_read_is_a_remark(freed: Converted, data: bytes) -> None:
    """It is named, and so are the lines that it should stand behind."""
    (path,) = consents_of(freed)
    path.write_bytes(data)
    summary = summary_of(audit(freed, "--json"))
    assert [one["where"] for one in summary["remarks"] if one["kind"] == "consent"] == [str(path)]
    assert sum(one["kind"] == "journal" for one in summary["remarks"]) == 2
    assert summary["findings"] == 0


def test_a_consent_for_other_shards_is_a_remark(freed: Converted) -> None:
    """Lines of a shard that the consent does not name are remarked upon."""
    (path,) = consents_of(freed)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"shards": [[1, 1]]}))
    (remark,) = summary_of(audit(freed, "--json"))["remarks"]
    assert remark["where"] == str(freed.dataset.journal(0))
    assert remark["what"].endswith("which does not name this shard")


def test_journals_from_before_there_were_consents(freed: Converted) -> None:
    """Their words name no consent, and that is nothing to remark upon."""
    for shard in (0, 1):
        lines = journal_lines(freed, shard)
        words = {"authorised_by": "delete --yes by someone"}
        write_journal(freed, [line | words for line in lines], shard)
    summary = summary_of(audit(freed, "--json"))
    assert summary["remarks"] == []
    assert [one["gone_sources"] for one in summary["consents"]] == [0]


# --- Sources that are still there ---------------------------------------------------------------


def compare_sources(converted: Converted, *words: object) -> tuple[Finished, dict[str, Any]]:
    done = audit(converted, "--against_sources", "--json", *words)
    return done, summary_of(done)["against_sources"]


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Save the arrays of an NPZ again, changed."""
    with np.load(path) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    change(held)
    np.savez_compressed(path, **held)


def change_a_voxel(arrays: dict[str, Any]) -> None:
    (volume,) = (array for array in arrays.values() if array.ndim == 3)
    volume[0, 0, 0] += 50


def everything_below(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("num_workers", [1, 2])
def test_sources_that_are_equal(converted: Converted, num_workers: int) -> None:
    """Each source that is there is compared with its shard; nothing is deleted or renamed."""
    before = everything_below(converted.made.data_folder)
    done, compared = compare_sources(converted, "--num_workers", num_workers)
    assert done.code == ExitCode.DONE
    assert (compared["there"], compared["compared"], compared["equal"]) == (8, 8, 8)
    lists = ("different", "not_wholly_held", "unreadable")
    assert [compared[name] for name in lists] == [[], [], []]
    assert everything_below(converted.made.data_folder) == before
    assert not list((converted.dataset.run / "deletions").glob("*"))
    verdict = summary_of(done)["verdict"]
    assert verdict == "no source is gone; 8 of 8 sources still there compared now, and equal"
    page = Path(done.json()["files"]["page"]).read_text()
    assert re.search(r"equal, voxel by voxel +8\n", page)


def test_sources_are_compared_only_where_asked_for(converted: Converted) -> None:
    """Without the option the summary says that nothing was compared."""
    assert summary_of(audit(converted, "--json"))["against_sources"] is None


def test_a_source_that_differs_is_a_finding(converted: Converted) -> None:
    """One voxel is enough, whatever the time stamps say; the page names the source."""
    key = keys_of(converted, 1)[2]
    source = converted.made.sources[key]
    times = source.stat()
    rewrite(source, change_a_voxel)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    done, compared = compare_sources(converted)
    assert done.code == ExitCode.DAMAGE
    assert (compared["compared"], compared["equal"]) == (8, 7)
    (one,) = compared["different"]
    assert (one["key"], one["shard"]) == (key, SECOND)
    assert one["difference"]
    assert summary_of(done)["verdict"].startswith("NOT as their shards have it: 1 of 8 sources")
    shown = audit(converted, "--against_sources")
    assert f"  {key} ({one['source']}): {one['difference']}" in shown.stdout


def test_a_source_that_holds_more_than_its_shard(converted: Converted) -> None:
    """Equal voxels beside an entry that the shard does not hold: named, and no finding."""
    key = keys_of(converted, 0)[0]
    rewrite(converted.made.sources[key], lambda arrays: arrays.update(mask=np.arange(2**18) % 7919))
    done, compared = compare_sources(converted)
    assert done.code == ExitCode.DONE
    assert (compared["equal"], compared["different"]) == (8, [])
    (one,) = compared["not_wholly_held"]
    assert one["key"] == key
    assert one["left_out"][0].startswith("mask.npy (")
    assert "1 of these hold more than their shards" in summary_of(done)["verdict"]


def test_a_source_that_cannot_be_read(converted: Converted) -> None:
    """It is listed with the reason and not counted as compared; the others are."""
    key = keys_of(converted, 0)[1]
    source = converted.made.sources[key]
    source.write_bytes(source.read_bytes()[:-30])
    done, compared = compare_sources(converted)
    assert done.code == ExitCode.DONE
    assert (compared["there"], compared["compared"], compared["equal"]) == (8, 7, 7)
    assert [one["key"] for one in compared["unreadable"]] == [key]
    assert "1 could not be compared" in summary_of(done)["verdict"]


@pytest.mark.parametrize("harm", ["gone", "short", "flipped"])
def test_a_shard_that_does_not_give_its_samples_back(converted: Converted, harm: str) -> None:
    """Sources of a damaged shard are there, and their shard does not hold them: a finding."""
    path, array = converted.out / FIRST, array_of(converted)
    if harm == "gone":
        path.unlink()
    elif harm == "short":
        os.truncate(path, path.stat().st_size - 512)
    else:
        flip(path, array.offset + array.size_bytes - 1)
    done, compared = compare_sources(converted)
    assert done.code == ExitCode.DAMAGE
    keys = {one["key"] for one in compared["different"]}
    assert keys == ({keys_of(converted, 0)[1]} if harm == "flipped" else {*keys_of(converted, 0)})
    assert compared["equal"] == 8 - len(keys)


def test_a_share_of_the_sources(converted: Converted) -> None:
    """--sample and --seed choose the sources that are compared, the same ones each time."""
    for key in converted.made.keys:
        rewrite(converted.made.sources[key], change_a_voxel)
    chosen = []
    for _ in range(2):
        _, compared = compare_sources(converted, "--sample", "25%", "--seed", 3)
        assert (compared["there"], compared["compared"]) == (8, 2)
        chosen.append([one["key"] for one in compared["different"]])
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 2


def test_what_is_gone_is_not_compared(converted: Converted) -> None:
    """A source that was deleted is accounted for by its member; the others are compared."""
    gone = keys_of(converted, 0)[0]
    converted.made.sources[gone].unlink()
    done, compared = compare_sources(converted)
    assert (compared["there"], compared["equal"]) == (7, 7)
    assert [one["key"] for one in done.json()["sources"]] == [gone]


def test_a_source_under_its_hidden_name(converted: Converted) -> None:
    """While a deletion compares it, or was killed at that, it is compared under that name."""
    source = converted.made.sources[keys_of(converted, 0)[0]]
    aside = source.rename(source.with_name(aside_name(source.name)))
    done, compared = compare_sources(converted)
    assert done.code == ExitCode.DONE
    assert (compared["there"], compared["equal"]) == (8, 8)
    assert aside.is_file()
    assert not source.exists()


def test_a_source_that_goes_before_its_turn(
    converted: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process deleted it meanwhile: that is counted, and no finding."""
    gone = converted.made.sources[keys_of(converted, 0)[0]]

    def go(*words: Any) -> Any:
        gone.unlink(missing_ok=True)
        return comparer(*words)

    comparer = audit_compare.compare_shards
    monkeypatch.setattr(audit_module, "compare_shards", go)
    done, compared = compare_sources(converted)
    assert done.code == ExitCode.DONE
    assert (compared["there"], compared["equal"], compared["went_meanwhile"]) == (8, 7, 1)


def test_a_deletion_beside_the_comparison(converted: Converted) -> None:
    """Audits that compare while sources are deleted find no difference, and hinder nothing."""
    stop = threading.Event()
    codes, differing = set(), []

    def compare_often() -> None:
        while not stop.is_set():
            done = run_cli("audit", converted.out, "--against_sources", "--json")
            codes.add(done.code)
            differing.extend(summary_of(done)["against_sources"]["different"])

    thread = threading.Thread(target=compare_often)
    thread.start()
    try:
        done = run_cli("delete", converted.out, "--yes")
    finally:
        stop.set()
        thread.join()
    assert done.code == ExitCode.DONE
    assert (codes, differing) == ({ExitCode.DONE}, [])
    assert sources_left(converted.made) == set()
