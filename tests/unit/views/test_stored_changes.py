"""Whatever changes beneath a dataset of views makes no wrong view: it is refused, or told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ctrate_convert import Volumes
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.record import ConvertedSample
from ctrate_convert.synthetic import write_synthetic_ctrate
from tests.support import Converted, convert_here, run_here
from tests.unit.views.test_stored import (
    SHAPE,
    flip,
    native,
    offered,
    out,
    plan_view,
    recipe,
    store,
)

__all__ = ["native", "out", "recipe"]


def first_with_a_view(native: Converted, shard: int = 0) -> ConvertedSample:
    return next(
        one for one in native.record(shard).converted if one.key != native.made.without_spacing
    )


def change_json(native: Converted, sample: ConvertedSample, name: str, shard: int = 0) -> None:
    """Change one digit of a number in a published sample's JSON: its length stays."""
    member = next(one for one in sample.members if one.name.endswith(".json"))
    path = native.dataset.shard(shard)
    data = bytearray(path.read_bytes())
    text = bytes(data[member.offset : member.offset + member.size_bytes])
    found = re.search(rb'"%s": ?\[*(\d)' % name.encode(), text)
    assert found, text
    place = member.offset + found.start(1)
    data[place] ^= 2
    path.write_bytes(data)


def edit_record(native: Converted, shard: int, edit: Callable[[dict[str, object]], None]) -> None:
    path = native.dataset.record(shard)
    record = json.loads(path.read_bytes())
    for sample in record["samples"]:
        edit(sample)
    path.write_text(json.dumps(record))


def add_one(native: Converted, key: str) -> None:
    """Write other voxels into a source."""
    path = native.made.sources[key]
    with np.load(path) as entries:
        arrays = dict(entries)
    name = max(arrays, key=lambda one: arrays[one].size)
    arrays[name] = arrays[name] + arrays[name].dtype.type(1)
    np.savez(path, **arrays)


# --- The volume's description -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spacing_axes_mm", "hu_slope"])
@pytest.mark.parametrize("moment", ["before the plan", "after it"])
def test_a_changed_digit_in_a_volumes_json_makes_no_view(
    name: str, moment: str, native: Converted, recipe: Path, out: Path
) -> None:
    sample = first_with_a_view(native)
    if moment == "before the plan":
        change_json(native, sample, name)
    assert plan_view(native, recipe, out).code == ExitCode.DONE
    if moment == "after it":
        change_json(native, sample, name)
    done = run_here("run", out, "--num_workers", 1)
    assert done.code == ExitCode.SAMPLES_FAILED
    assert f"{sample.key}.json is not the one that the record knows" in done.text
    assert set(Volumes(out)) == set(offered(native)) - {sample.key}


def test_a_record_that_the_manifest_does_not_know_gives_no_view(
    native: Converted, recipe: Path, out: Path
) -> None:
    def double(sample: dict[str, object]) -> None:
        sample["geometry"]["spacing_axes_mm"] = [9.0, 9.0, 9.0]  # type: ignore[index]

    edit_record(native, 0, double)
    planned = plan_view(native, recipe, out)
    assert planned.code == ExitCode.DONE
    assert "1 shards cannot be relied on" in " ".join(planned.text.split())
    assert run_here("run", out, "--num_workers", 1).code == ExitCode.DONE
    rest = {one.key for shard in (1, 2) for one in native.record(shard).converted}
    assert set(Volumes(out)) == rest & set(offered(native))


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda one: one["geometry"].update(spacing_axes_mm=[9.0] * 3), "record knows|another"),
        (lambda one: one["array"].update(blake3="0" * 64), "other voxels"),
    ],
)
def test_a_record_that_was_edited_after_the_plan_gives_no_other_view(
    edit: Callable[[dict[str, object]], None],
    what: str,
    native: Converted,
    recipe: Path,
    out: Path,
) -> None:
    """Voxels and facts are those that were planned, or there is no view."""
    assert plan_view(native, recipe, out).code == ExitCode.DONE
    edit_record(native, 0, edit)
    done = run_here("run", out, "--num_workers", 1)
    while_reading = Volumes(native.out, view=recipe)
    if done.code == ExitCode.SAMPLES_FAILED:
        assert re.search(what, done.text)
    for key, sample in Volumes(out).items():
        if key in while_reading:
            assert np.array_equal(sample.array, while_reading[key].array)


# --- The dataset --------------------------------------------------------------------------------


def test_views_of_another_dataset_do_not_take_the_place_of_these(
    native: Converted, recipe: Path, out: Path, tmp_path: Path
) -> None:
    """It may have volumes of the same names. One that was moved is the same dataset."""
    store(native, recipe, out)
    before = {key: np.asarray(sample.array) for key, sample in Volumes(out).items()}
    made = write_synthetic_ctrate(tmp_path / "other", samples=8, shape=SHAPE, seed=9)
    other = convert_here(made, tmp_path / "elsewhere", samples_per_shard=3)
    refused = plan_view(other, recipe, out)
    assert refused.code == ExitCode.REFUSED
    assert "views of another dataset" in refused.stderr
    moved = tmp_path / "moved"
    native.out.rename(moved)
    again = run_here("plan", "--view", recipe, "--from", moved, "--output_dir", out)
    assert again.code == ExitCode.DONE
    assert "Nothing new to plan." in again.stdout
    for key, sample in Volumes(out).items():
        assert np.array_equal(sample.array, before[key])


def test_a_view_whose_volume_has_none_any_more_is_named(
    native: Converted, recipe: Path, out: Path
) -> None:
    """It stays, for a published shard is not touched; but nobody is left to find out alone."""
    store(native, recipe, out)
    sample = next(one for one in native.record(0).converted if one.array.intensity == "normalised")
    add_one(native, sample.key)  # floats of HU/1000 plus one are in no known unit
    victim = next(one for one in native.record(0).converted if one.key != sample.key)
    flip(native.dataset.shard(0), victim.array.offset + 9)
    assert run_here("verify", native.out, "--full", "--repair").code == ExitCode.DONE
    planned = plan_view(native, recipe, out)
    told = " ".join(planned.text.split())
    assert "1 views were made before and stay" in told and sample.key in told
    status = run_here("status", out, "--json").json()["samples"]
    assert status == {"converted": 7, "failed": 0, "pending": 0, "excluded": 1}


# --- What failed, and what is damaged -----------------------------------------------------------


@pytest.mark.parametrize("how", ["the folder was away", "two shards were exchanged"])
def test_what_a_person_mended_is_planned_again(
    how: str, native: Converted, recipe: Path, out: Path, tmp_path: Path
) -> None:
    assert plan_view(native, recipe, out).code == ExitCode.DONE
    one, other, aside = native.dataset.shard(0), native.dataset.shard(1), tmp_path / "aside"

    def exchange() -> None:
        one.rename(aside)
        other.rename(one)
        aside.rename(other)

    def move(there: Path, to: Path) -> None:
        there.rename(to)

    if how == "the folder was away":
        move(native.out, aside)
    else:
        exchange()
    assert run_here("run", out, "--num_workers", 1).code == ExitCode.SAMPLES_FAILED
    if how == "the folder was away":
        move(aside, native.out)
    else:
        exchange()
    store(native, recipe, out)
    assert set(Volumes(out)) == set(offered(native))


def test_a_damaged_view_is_mended_from_wherever_its_volume_lies_now(
    native: Converted, recipe: Path, out: Path, tmp_path: Path
) -> None:
    """The other dataset's repair has put it into another shard, and the old one was moved away."""
    store(native, recipe, out)
    sample = first_with_a_view(native)
    flip(native.dataset.shard(0), sample.array.offset + 9)
    assert run_here("verify", native.out, "--full", "--repair").code == ExitCode.DONE
    native.dataset.shard(0).rename(tmp_path / "away.tar")
    views = Converted(native.made, Dataset(out), {})
    flip(views.dataset.shard(0), views.record(0).converted[0].array.offset + 200)
    repaired = run_here("verify", out, "--full", "--repair")
    assert repaired.code == ExitCode.DONE, repaired.text
    stored, while_reading = Volumes(out), Volumes(native.out, view=recipe)
    assert set(stored) == set(offered(native))
    for key, one in stored.items():
        assert np.array_equal(one.array, while_reading[key].array)
