"""What an earlier version wrote is read for ever: datasets of every stored format version."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert import Volumes
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.journals import read_journal
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.base import sha256_hex
from ctrate_convert.store.records.plan import Plan
from ctrate_convert.store.records.record import ShardRecord
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from tests.support import Array, load_originals, run_here, sources_left

GOLDEN = Path(__file__).parent / "golden"
DATASETS = sorted(path for path in GOLDEN.glob("v*/*") if path.is_dir())
WITH_METADATA = "train_1_a_1"
"""The one source that holds an entry beside its volume, which its old shard has not."""


@dataclass(frozen=True)
class Old:
    """An earlier version's dataset, and the sources that it was made from."""

    dataset: Dataset
    made: SyntheticCtRate
    originals: dict[str, Array]

    @property
    def out(self) -> Path:
        return self.dataset.out

    def write_journal(self, shard: int, event: str, keys: list[str]) -> None:
        """Write lines as the earlier version did, which knew no consents."""
        lines = [
            {
                "schema_number": 1,
                "event": one,
                "key": key,
                "source": f"{key}.npz",
                "size_bytes": self.size_bytes(shard, key),
                "time": "2026-11-22T22:10:00+00:00",
                "authorised_by": "delete --yes",
                "reason": "",
                "trash": "",
            }
            for one in ("intent", event)
            for key in keys
        ]
        path = self.dataset.journal(shard)
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def size_bytes(self, shard: int, key: str) -> int:
        samples = json.loads(self.dataset.record(shard).read_bytes())["samples"]
        return next(int(one["source"]["size_bytes"]) for one in samples if one["key"] == key)


def edit(path: Path, **changed: Any) -> bytes:
    """Change fields of a stored JSON file; returns what it holds now."""
    data = json.dumps(json.loads(path.read_bytes()) | changed).encode()
    path.write_bytes(data)
    return data


def edit_record(path: Path, **changed: Any) -> str:
    """Change fields of a record, and store it as its version did; returns its SHA-256."""
    record = ShardRecord.model_validate_json(edit(path, **changed))
    data = record.model_dump_json(exclude_unset=True).encode()
    path.write_bytes(data)
    return sha256_hex(data)


@pytest.fixture(params=DATASETS, ids=lambda path: f"{path.parent.name}-{path.name}")
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Old:
    """A golden dataset with its sources beside it: as that version would have made it here."""
    out = tmp_path / "out"
    shutil.copytree(request.param, out)
    made = write_synthetic_ctrate(
        tmp_path / "made", samples=4, shape=(6, 5, 4), seed=1, layout="flat"
    )
    dataset = Dataset(out)
    for path in (dataset.run, *dataset.run.rglob("*")):  # a copy has the modes of a checkout
        path.chmod(path.stat().st_mode & ~0o022)
    plan = json.loads((dataset.plan(0) / "plan.json").read_bytes())
    plan["settings"] |= {
        "data_folder": str(made.data_folder),
        "reports_file": str(made.reports_file),
        "meta_file": str(made.meta_file),
        "labels_file": str(made.labels_file),
    }
    plan["plan_id"] = Plan.model_validate_json(json.dumps(plan)).content_id()
    edit(dataset.plan(0) / "plan.json", **plan)
    shards = json.loads(dataset.manifest.read_bytes())["shards"]
    for index, shard in enumerate(shards):
        sha256 = edit_record(dataset.record(index), plan_id=plan["plan_id"])
        shard |= {"record_sha256": sha256, "by_converter": True}
    edit(dataset.manifest, plans=[plan["plan_id"]], shards=shards)
    return Old(dataset, made, load_originals(made))


def require_volumes(out: Path, originals: dict[str, Array]) -> None:
    volumes = Volumes(out, units="source")
    assert sorted(volumes) == sorted(originals)
    for key, original in originals.items():
        np.testing.assert_allclose(volumes[key].array[:], original, atol=0.0005)


@pytest.mark.parametrize("golden", DATASETS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_earlier_versions_dataset_is_sound_and_decodes(golden: Path, tmp_path: Path) -> None:
    """Plan, records and manifest are believed, nothing is damaged, and the voxels are the same."""
    out = tmp_path / "out"
    shutil.copytree(golden, out)
    manifest = (out / "manifest.json").read_bytes()
    assert run_here("merge", out).code == ExitCode.DONE
    assert (out / "manifest.json").read_bytes() == manifest
    verified = run_here("verify", out, "--full")
    assert verified.code == ExitCode.DONE, verified.text

    made = write_synthetic_ctrate(
        tmp_path / "made", samples=4, shape=(6, 5, 4), seed=1, layout="flat"
    )
    require_volumes(out, load_originals(made))


def test_what_an_old_manifest_and_plan_lack_or_have_more(old: Old) -> None:
    """`by_converter` in the manifest, no second copy of the plan: sound, and read as ever."""
    assert [path.name for path in old.dataset.plan(0).glob("plan*")] == ["plan.json"]
    require_volumes(old.out, old.originals)
    verified = run_here("verify", old.out, "--full", "--json")
    assert verified.code == ExitCode.DONE, verified.text
    assert verified.json()["compared_with_source"] == 4
    for words in (("status",), ("report",), ("delete", "--dry_run"), ("audit",)):
        looked = run_here(words[0], old.out, *words[1:])
        assert looked.code == ExitCode.DONE, looked.text
    before = json.loads(old.dataset.manifest.read_bytes())
    old.dataset.manifest.unlink()
    assert run_here("merge", old.out).code == ExitCode.DONE
    for shard in before["shards"]:
        del shard["by_converter"]
        shard.setdefault("superseded", [])  # younger than this manifest
    before.setdefault("lists", [])  # as young
    assert json.loads(old.dataset.manifest.read_bytes()) == before
    require_volumes(old.out, old.originals)


def test_an_old_dataset_goes_on(old: Old) -> None:
    """A shard that was pending is converted; the other is as it was."""
    old.dataset.shard(1).unlink()
    old.dataset.record(1).unlink()
    first = old.dataset.shard(0).read_bytes()
    done = run_here("run", old.out)
    assert done.code == ExitCode.DONE, done.text
    assert old.dataset.shard(0).read_bytes() == first
    verified = run_here("verify", old.out, "--full")
    assert verified.code == ExitCode.DONE, verified.text
    require_volumes(old.out, old.originals)
    assert sources_left(old.made) == set(old.made.keys)


def test_an_old_plans_list_was_not_recorded(old: Old) -> None:
    """Report and card say so of a list that an earlier version used; nothing else is touched."""
    plan = json.loads((old.dataset.plan(0) / "plan.json").read_bytes())
    plan["settings"]["exclude_file"] = ["/old/place/no_chest_train.txt"]
    plan["plan_id"] = Plan.model_validate_json(json.dumps(plan)).content_id()
    edit(old.dataset.plan(0) / "plan.json", **plan)
    shards = json.loads(old.dataset.manifest.read_bytes())["shards"]
    for index, shard in enumerate(shards):
        shard["record_sha256"] = edit_record(old.dataset.record(index), plan_id=plan["plan_id"])
    edit(old.dataset.manifest, plans=[plan["plan_id"]], shards=shards)

    assert run_here("verify", old.out, "--full").code == ExitCode.DONE
    facts = run_here("report", old.out, "--json").json()
    assert facts["lists"] == [{"generation": 0, "lists": []}]
    assert facts["unrecorded_lists"] == {"0": ["no_chest_train.txt"]}
    told = "List of generation 0: --exclude_file no_chest_train.txt: not recorded"
    assert told in run_here("report", old.out).stdout
    before = old.dataset.manifest.read_bytes()
    assert run_here("merge", old.out).code == ExitCode.DONE
    assert old.dataset.manifest.read_bytes() == before
    row = "| 0 | exclude_file | `no_chest_train.txt` | not recorded | not recorded |"
    assert row in old.dataset.card.read_text().splitlines()
    assert run_here("delete", old.out, "--yes").code == ExitCode.REFUSED
    assert sources_left(old.made) == {WITH_METADATA}


def test_old_sources_go_where_the_shards_hold_all_of_them(old: Old) -> None:
    """An entry beside the volume, which old shards have not, keeps its source with the reason;
    the others go, and `run` proposes nothing."""
    assert run_here("run", old.out).code == ExitCode.DONE
    assert sources_left(old.made) == set(old.made.keys)
    done = run_here("delete", old.out, "--yes")
    assert done.code == ExitCode.REFUSED
    assert sources_left(old.made) == {WITH_METADATA}
    assert "its shard does not hold all of it: metadata.npy" in done.stdout
    assert "--discard_members metadata.npy lets it go" in done.stdout
    audit = run_here("audit", old.out, "--against_sources", "--json")
    compared = audit.json()["summary"]["against_sources"]
    assert audit.code == ExitCode.DONE
    assert [one["key"] for one in compared["not_wholly_held"]] == [WITH_METADATA]
    require_volumes(old.out, old.originals)

    named = run_here("delete", old.out, "--yes", "--discard_members", "metadata.npy")
    assert named.code == ExitCode.DONE, named.text
    assert sources_left(old.made) == set()
    require_volumes(old.out, old.originals)


def test_an_old_dataset_that_others_could_write_to(old: Old) -> None:
    """An earlier version left `.run` to the umask: nothing is deleted until that is mended."""
    old.dataset.run.chmod(0o775)
    done = run_here("delete", old.out, "--yes")
    assert done.code == ExitCode.REFUSED
    assert "is writable by others than its owner (mode 0775)" in done.text
    assert sources_left(old.made) == set(old.made.keys)
    old.dataset.run.chmod(0o755)
    run_here("delete", old.out, "--yes")
    assert sources_left(old.made) == {WITH_METADATA}


def test_an_old_source_that_differs_stays(old: Old) -> None:
    """What the old record says of a source allows nothing: its voxels are compared now."""
    victim = old.made.keys[2]
    path = old.made.sources[victim]
    times = path.stat()
    with np.load(path) as arrays:
        ((name, volume),) = arrays.items()
    volume[0, 0, 0] += 50
    np.savez(path, **{name: volume})
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run_here("delete", old.out, "--yes").code == ExitCode.REFUSED
    assert sources_left(old.made) == {victim, WITH_METADATA}


def test_journals_with_the_old_words(old: Old) -> None:
    """What an earlier version deleted is accounted for; an intent that it left is finished, and
    no line is a remark for want of a consent."""
    keys = [sorted(old.made.keys)[:2], sorted(old.made.keys)[2:]]
    for key in (*keys[0], keys[1][0]):
        old.made.sources[key].unlink()
    old.write_journal(0, "deleted", keys[0])
    old.write_journal(1, "intent", keys[1])
    audit = run_here("audit", old.out, "--json")
    summary = audit.json()["summary"]
    assert audit.code == ExitCode.DONE, audit.text
    assert (summary["deleted_sources"], summary["open_intents"]) == (3, 1)
    assert (summary["findings"], summary["remarks"], summary["consents"]) == (0, [], [])

    done = run_here("delete", old.out, "--yes")
    assert done.code == ExitCode.DONE, done.text
    assert sources_left(old.made) == set()
    newest = {line.key: line.event for line in read_journal(old.dataset, 1)}
    assert newest == {keys[1][0]: "found_gone", keys[1][1]: "deleted"}
    assert not run_here("audit", old.out, "--json").json()["summary"]["remarks"]


def test_an_old_trash_is_brought_back(old: Old, tmp_path: Path) -> None:
    """Lines without inode and time lead to the file that the record knows."""
    trash = tmp_path / "trash"
    contents = {}
    for shard, keys in enumerate((sorted(old.made.keys)[:2], sorted(old.made.keys)[2:])):
        old.write_journal(shard, "trashed", keys)
        lines = [json.loads(line) for line in old.dataset.journal(shard).read_text().splitlines()]
        samples = json.loads(old.dataset.record(shard).read_bytes())["samples"]
        for line in lines:
            line["trash"] = str(trash / f"shard-{shard:06d}" / line["source"])
        old.dataset.journal(shard).write_text("".join(json.dumps(x) + "\n" for x in lines))
        for sample in samples:
            path = old.made.sources[sample["key"]]
            contents[sample["key"]] = path.read_bytes()
            place = trash / f"shard-{shard:06d}" / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
            status = place.stat()
            times = {"mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}
            sample["source"] |= {"inode": status.st_ino, "size_bytes": status.st_size, **times}
        sha256 = edit_record(old.dataset.record(shard), samples=samples)
        shards = json.loads(old.dataset.manifest.read_bytes())["shards"]
        shards[shard]["record_sha256"] = sha256
        edit(old.dataset.manifest, shards=shards)
    back = run_here("restore", old.out)
    assert back.code == ExitCode.DONE, back.text
    assert {key: path.read_bytes() for key, path in old.made.sources.items()} == contents
