"""Damaged shards are converted again from sources that still exist, and never touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

import ctrate_convert
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.plans import load_plans
from ctrate_convert.synthetic import SyntheticCtRate
from tests.promises.test_corruption import (
    BAD,
    GOOD,
    SHARD_DAMAGE,
    Damage,
    flip_in_array,
    member,
    name_of,
    remove_the_shard,
    replace_the_shard_by_a_folder,
    swap_two_shards,
)
from tests.support import (
    Converted,
    command,
    convert_here,
    expected_volume,
    input_words,
    read_shard_file,
    run_cli,
    run_here,
    same_voxels,
    sources_left,
)

NEW = "shard-000002.tar"
Make = Callable[..., SyntheticCtRate]


def repair(converted: Converted) -> Any:
    return run_here("verify", converted.out, "--full", "--repair")


def shards_as_they_are(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.tar") if path.is_file()}


def require_every_sample_once(converted: Converted, keys: set[str] | None = None) -> None:
    """Our readers give each sample once, as its source was."""
    volumes = ctrate_convert.Volumes(converted.out)
    assert set(volumes) == (set(converted.originals) if keys is None else keys)
    for key, sample in volumes.items():
        assert same_voxels(np.asarray(sample.array), expected_volume(converted.originals[key]))
    seen = [sample["__key__"] for sample in ctrate_convert.open_dataset(converted.out)]
    assert sorted(seen) == sorted(volumes)


@pytest.mark.parametrize("damage", [row[0] for row in SHARD_DAMAGE], ids=name_of)
def test_every_damage_is_repaired_into_new_shards(converted: Converted, damage: Damage) -> None:
    """Whatever a shard suffered: each sample reads as its source again, nothing old is touched."""
    damage(converted)
    before = shards_as_they_are(converted.out)
    done = repair(converted)
    assert done.code == ExitCode.DONE
    assert f"into {NEW}" in done.stdout
    hit = 8 if damage is swap_two_shards else 4
    assert f"Repaired {hit} samples" in done.stdout
    after = shards_as_they_are(converted.out)
    assert {name: after.get(name) for name in before} == before
    require_every_sample_once(converted)
    assert sources_left(converted.made) == set(converted.made.sources)

    again = run_here("verify", converted.out, "--full")
    assert again.code == ExitCode.DONE
    if damage is not remove_the_shard:
        assert f"Note: {BAD}: all its samples were repaired into other shards" in again.stdout


def test_a_plan_with_a_trash_is_repaired(make_ctrate: Make, tmp_path: Path) -> None:
    """The repair proposes no deletion, and so names no place for what is deleted."""
    made, trash = make_ctrate(8), tmp_path / "trash"
    trash.mkdir()
    converted = convert_here(
        made, tmp_path / "out", samples_per_shard=4, delete_source_files=True, trash=str(trash)
    )
    flip_in_array(converted)
    done = repair(converted)
    assert done.code == ExitCode.DONE, done.text
    assert "Repaired 4 samples" in done.stdout
    require_every_sample_once(converted)
    deleted = run_here("delete", converted.out, "--yes", "--trash", trash)
    assert deleted.code == ExitCode.DONE, deleted.text
    assert sources_left(made) == set()


def test_counts_stay_those_of_the_samples(converted: Converted) -> None:
    """A second copy is no second sample: manifest, status, report and `merge` say eight."""
    flip_in_array(converted)
    before = json.loads(converted.dataset.manifest.read_bytes())
    repair(converted)
    for _ in range(2):
        after = json.loads(converted.dataset.manifest.read_bytes())
        assert after["samples"] == before["samples"]
        assert (after["num_shards"], after["total_samples"]) == (2, 8)
        assert [shard["samples"] for shard in after["shards"]] == [0, 4, 4]
        converted.dataset.manifest.unlink()  # and so they are when counted anew
        run_here("merge", converted.out)
    status = run_here("status", converted.out, "--json").json()
    assert status["samples"]["converted"] == 8
    assert status["samples"]["pending"] == 0


def test_sources_go_behind_the_proof_of_the_new_shard(converted: Converted) -> None:
    """After a repair `delete` frees every source, though the damaged shard is still there."""
    flip_in_array(converted)
    repair(converted)
    deleted = run_here("delete", converted.out, "--yes")
    assert deleted.code == ExitCode.DONE
    assert sources_left(converted.made) == set()
    audit = run_here("audit", converted.out, "--json").json()
    assert audit["summary"]["findings"] == 0
    assert {one["shard"] for one in audit["sources"]} == {GOOD, NEW}
    assert run_here("verify", converted.out, "--full").code == ExitCode.DONE
    require_every_sample_once(converted)


def test_what_has_no_source_any_more_is_named_as_lost(converted: Converted) -> None:
    """Of a damaged shard whose sources are gone, sound samples stay readable; the rest is lost."""
    record = converted.record(0)
    keys = [sample.key for sample in record.converted]
    broken = member(converted, "volume.npy").name.partition(".")[0]
    spared = next(key for key in keys if key != broken)
    for key in keys:
        if key != spared:
            converted.made.sources[key].unlink()
    flip_in_array(converted)
    done = repair(converted)
    assert done.code == ExitCode.DAMAGE
    assert "Repaired 1 sample from" in done.stdout
    assert "LOST, 1 sample" in done.stdout
    assert f"  {BAD}, {broken}" in done.stdout
    again = run_here("verify", converted.out, "--full")
    assert again.code == ExitCode.DAMAGE
    assert f"{BAD}, {broken}" in again.stdout
    volumes = ctrate_convert.Volumes(converted.out)
    assert set(volumes) == set(converted.originals)
    assert spared in {key for key, _ in read_shard_file(converted.out / NEW)}
    repaired_twice = repair(converted)
    assert repaired_twice.code == ExitCode.DAMAGE
    assert len(load_plans(converted.dataset)) == 2  # nothing was planned again


@pytest.mark.parametrize("damage", [remove_the_shard, replace_the_shard_by_a_folder], ids=name_of)
def test_without_file_and_sources_all_is_lost(converted: Converted, damage: Damage) -> None:
    """A shard that is no regular file any more holds none of its samples."""
    for sample in converted.record(0).converted:
        converted.made.sources[sample.key].unlink()
    damage(converted)
    done = repair(converted)
    assert done.code == ExitCode.DAMAGE
    assert f"LOST, {len(converted.record(0).converted)} samples" in done.stdout


def test_a_source_that_is_broken_now_costs_only_itself(converted: Converted) -> None:
    """A sound copy in a damaged shard still counts where its source cannot be converted again."""
    flip_in_array(converted)
    broken = member(converted, "volume.npy").name.partition(".")[0]
    other = next(s.key for s in converted.record(0).converted if s.key != broken)
    converted.made.sources[other].write_bytes(b"no NPZ any more")
    done = repair(converted)
    assert done.code == ExitCode.DONE
    assert f"Failed: {other}: " in done.stdout
    require_every_sample_once(converted)
    assert run_here("verify", converted.out, "--full").code == ExitCode.DONE
    inputs = input_words(converted.made, converted.out)
    plain = run_here("plan", *inputs, "--samples_per_shard", 4)
    assert plain.code == ExitCode.DONE
    assert len(load_plans(converted.dataset)) == 2  # the sample is converted: no retry


def test_a_killed_repair_goes_on(converted: Converted) -> None:
    """Killed at any moment, the same command ends the same way, and plans nothing twice."""
    flip_in_array(converted)
    for delay_s in (0.2, 0.6, 0.9, 1.2, 1.5):
        with subprocess.Popen(
            command("verify", converted.out, "--full", "--repair"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            time.sleep(delay_s)
            os.killpg(process.pid, signal.SIGKILL)
    done = repair(converted)
    assert done.code == ExitCode.DONE
    assert run_here("verify", converted.out, "--full").code == ExitCode.DONE
    require_every_sample_once(converted)
    assert len(load_plans(converted.dataset)) == 2


def test_a_full_disk_is_no_loss(converted: Converted) -> None:
    """Where the new shard cannot be written, nothing is called lost, and the command says so."""
    flip_in_array(converted)
    limit = ("prlimit", "--fsize=16000")
    stopped = run_cli("verify", converted.out, "--full", "--repair", before=limit)
    assert stopped.code == ExitCode.ENVIRONMENT
    assert "LOST" not in stopped.text
    assert "Still damaged, 1 sample" in stopped.stdout
    assert repair(converted).code == ExitCode.DONE
    require_every_sample_once(converted)


def test_repaired_shards_can_be_repaired(converted: Converted) -> None:
    """Damage to the new shard is repaired like any other."""
    flip_in_array(converted)
    repair(converted)
    (converted.out / NEW).unlink()
    assert run_here("verify", converted.out, "--full").code == ExitCode.DAMAGE
    done = repair(converted)
    assert done.code == ExitCode.DONE
    assert "into shard-000003.tar" in done.stdout
    require_every_sample_once(converted)
    assert json.loads(converted.dataset.manifest.read_bytes())["samples"]["converted"] == 8


def test_a_forged_repair_hides_nothing_unconverted(converted: Converted) -> None:
    """A generation that mixes repairs with other samples is not believed."""
    flip_in_array(converted)
    repair(converted)
    path = converted.dataset.plan(1) / "plan.json"
    fields = json.loads(path.read_bytes())
    fields["repairs"].popitem()
    path.write_text(json.dumps(fields))
    seen = run_here("verify", converted.out, "--full")
    assert seen.code == ExitCode.DAMAGE
    assert "changed after it was written" in seen.text


def test_repair_needs_a_full_verification(converted: Converted) -> None:
    """Without --full not every damage is known."""
    refused = run_here("verify", converted.out, "--repair")
    assert refused.code == ExitCode.USAGE
    assert "--full --repair" in refused.text


def test_nothing_to_repair(converted: Converted) -> None:
    """On a sound dataset --repair plans and writes nothing."""
    before = converted.dataset.manifest.read_bytes()
    done = repair(converted)
    assert done.code == ExitCode.DONE
    assert "No damage found." in done.stdout
    assert "Nothing to repair." in done.stdout
    assert converted.dataset.manifest.read_bytes() == before
    assert len(load_plans(converted.dataset)) == 1


def test_foreign_readers_need_the_old_shard_out_of_the_way(converted: Converted) -> None:
    """As the command says: with the superseded shard moved away, webdataset alone reads all."""
    flip_in_array(converted)
    done = repair(converted)
    assert f"Not read any more, and may be moved away: {BAD}." in done.stdout
    (converted.out / BAD).rename(converted.out.parent / BAD)
    paths = sorted(str(path) for path in converted.out.glob("shard-*.tar"))
    keys = [sample["__key__"] for sample in webdataset.WebDataset(paths, shardshuffle=False)]
    assert sorted(keys) == sorted(converted.originals)
    assert run_here("verify", converted.out, "--full").code == ExitCode.DONE
