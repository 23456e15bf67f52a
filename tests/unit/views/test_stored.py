"""Stored views: planned from a dataset's records, made from its shards, proven like any shard."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from ctrate_convert import Volumes, open_dataset
from ctrate_convert.cluster.failed_samples import plan_failed_samples
from ctrate_convert.errors import ExitCode
from ctrate_convert.formats.members import LABEL_NAMES
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.plans import load_plans, load_samples
from ctrate_convert.store.records.plan import Encoding
from ctrate_convert.store.records.recipe import Size, as_toml
from ctrate_convert.synthetic import write_synthetic_ctrate
from ctrate_convert.views.presets import presets
from tests.support import Converted, Finished, command, convert_here, read_dataset, run_here

SHAPE = (60, 56, 25)
SIZE = Size(x=40, y=42, z=20)


def recipe_in(folder: Path, name: str = "ctclip", **more: Any) -> Path:
    """A preset in a size that takes no time, as a file that the command line takes."""
    recipe = presets()[name].model_copy(update={"size": SIZE, "name": "small", **more})
    path = folder / f"{name}.toml"
    path.write_text(as_toml(recipe), encoding="utf-8")
    return path


@pytest.fixture
def native(tmp_path: Path) -> Converted:
    """Eight samples in three shards; one tells no spacing, so that there is no view of it."""
    made = write_synthetic_ctrate(tmp_path / "ctrate", samples=8, shape=SHAPE)
    return convert_here(made, tmp_path / "out", samples_per_shard=3)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return recipe_in(tmp_path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "views"


def plan_view(native: Converted, recipe: object, out: Path, *more: object) -> Finished:
    return run_here("plan", "--view", recipe, "--from", native.out, "--output_dir", out, *more)


def store(native: Converted, recipe: object, out: Path, *more: object) -> Path:
    assert plan_view(native, recipe, out, *more).code == ExitCode.DONE
    assert run_here("run", out, "--num_workers", 1).code == ExitCode.DONE
    return out


def digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*.tar")}


def offered(native: Converted) -> list[str]:
    return [key for key in native.made.keys if key != native.made.without_spacing]


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte[0] ^ 1]))


# --- The same as on the fly ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ctclip", "ctclip-inference", "ctclip-modern", "hlip", "fvlm"])
def test_a_stored_view_is_that_made_while_reading(
    native: Converted, out: Path, tmp_path: Path, name: str
) -> None:
    """The arrays to the bit, and the facts that put them back into the patient."""
    recipe = recipe_in(tmp_path, name)
    stored = Volumes(store(native, recipe, out))
    on_the_fly = Volumes(native.out, view=recipe)
    assert sorted(stored) == sorted(offered(native))
    for key in stored:
        one, other = np.asarray(stored[key].array), np.asarray(on_the_fly[key].array)
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if presets()[name].size_is == "exact":
            assert one.shape == presets_shape(name)
        else:
            assert all(n >= m for n, m in zip(one.shape, presets_shape(name), strict=True))
        assert one.tobytes() == other.tobytes()
        assert stored[key].axes == on_the_fly[key].axes
        assert stored[key].spacing == pytest.approx(on_the_fly[key].spacing)
        told = stored[key].json["view"]
        made_of = told.pop("native")
        assert told == on_the_fly[key].json["view"]
        assert made_of["shard"] == Path(on_the_fly[key].shard).name
        assert np.array_equal(stored[key].hu(), on_the_fly[key].hu())
        assert stored[key].report == on_the_fly[key].report
        assert np.array_equal(stored[key].labels, on_the_fly[key].labels)


def presets_shape(name: str) -> tuple[int, ...]:
    return tuple(getattr(SIZE, axis) for axis in presets()[name].axes)


@pytest.mark.parametrize("output", ["int16", "uint8", "float16"])
@pytest.mark.parametrize("encoding", get_args(Encoding))
def test_every_encoding_holds_the_same_elements(
    native: Converted, out: Path, tmp_path: Path, encoding: str, output: str
) -> None:
    recipe = recipe_in(tmp_path, output=output)
    stored = store(native, recipe, out, "--encoding", encoding)
    expected = {one["__key__"]: one["array"] for one in open_dataset(
        native.out, view=recipe, keys=offered(native)
    )}  # fmt: skip
    found = {one["__key__"]: one["array"] for one in open_dataset(stored)}
    assert list(found) == list(expected)
    for key, array in found.items():
        assert array.dtype == np.dtype(output)
        assert np.array_equal(array, expected[key])
    assert run_here("verify", stored, "--full").code == ExitCode.DONE


@pytest.mark.parametrize("layout", ["webdataset", "ctclip"])
def test_any_layout_and_encoding_of_the_dataset_will_do(
    tmp_path: Path, recipe: Path, layout: str
) -> None:
    made = write_synthetic_ctrate(tmp_path / "ctrate", samples=4, shape=SHAPE)
    kinds = ("npy",) if layout == "ctclip" else get_args(Encoding)
    for encoding in kinds:
        native = convert_here(made, tmp_path / encoding, layout=layout, encoding=encoding)
        stored = Volumes(store(native, recipe, tmp_path / f"{encoding}-views"))
        on_the_fly = Volumes(native.out, view=recipe)
        for key, sample in stored.items():
            assert np.array_equal(sample.array, on_the_fly[key].array)


def test_the_recipe_tells_the_encoding_unless_an_option_does(
    native: Converted, out: Path, tmp_path: Path, recipe: Path
) -> None:
    plan_view(native, recipe, out)
    assert load_plans(Dataset(out))[0].settings.encoding == "b2nd"
    plan_view(native, recipe, tmp_path / "npy", "--encoding", "npy")
    assert load_plans(Dataset(tmp_path / "npy"))[0].settings.encoding == "npy"


def test_the_original_loader_reads_a_view(native: Converted, out: Path, tmp_path: Path) -> None:
    """`CTReportWebDataset` of the original project: its four members, its four expressions."""
    recipe = recipe_in(tmp_path, "ctclip-modern")
    stored = store(native, recipe, out, "--layout", "ctclip")
    on_the_fly = Volumes(native.out, view=recipe)
    found = read_dataset(stored)
    assert sorted(found) == sorted(offered(native))
    for key, sample in found.items():
        members = sample.members
        assert list(members) == ["bin", "json", "txt", "labels"]
        facts = json.loads(members["json"])
        assert facts["study_id"] == key
        assert facts["volume_shape"] == [SIZE.x, SIZE.y, SIZE.z]
        assert facts["volume_dtype"] == "float16"
        assert sorted(facts["original_shape"]) == sorted(SHAPE)
        volume = np.frombuffer(members["bin"], np.float16).reshape(facts["volume_shape"])
        assert np.array_equal(volume, on_the_fly[key].array)
        assert -1.0 <= volume.min() < volume.max() <= 1.0
        assert members["txt"].decode() == on_the_fly[key].report
        labels = np.frombuffer(members["labels"], np.float32)
        assert np.array_equal(labels, on_the_fly[key].labels)
        assert len(labels) == len(LABEL_NAMES)


def test_what_the_original_loader_cannot_read_is_refused(
    native: Converted, recipe: Path, out: Path
) -> None:
    done = plan_view(native, recipe, out, "--layout", "ctclip")
    assert done.code == ExitCode.USAGE
    assert "--layout ctclip is float16 with the axes xyz" in done.stderr
    assert not out.exists()


# --- The plan -----------------------------------------------------------------------------------


def test_each_shard_comes_from_one_shard(native: Converted, recipe: Path, out: Path) -> None:
    done = plan_view(native, recipe, out)
    assert "7 samples in 3 shards and 3 tasks; left out: 1 no view" in done.stdout
    dataset = Dataset(out)
    (plan,) = load_plans(dataset)
    for shard in plan.shards:
        sources = {one.source for one in load_samples(dataset, plan, shard)}
        assert sources == {shard.name}
    shown = run_here("plan", "--show", out, "--details").stdout
    assert f"{native.made.without_spacing} (it is not known what this volume's spacing is)" in shown


def test_a_dry_run_leaves_nothing(native: Converted, recipe: Path, out: Path) -> None:
    done = plan_view(native, recipe, out, "--dry_run")
    assert done.code == ExitCode.DONE
    assert "7 samples in 3 shards" in done.stdout
    assert not out.exists()


def test_a_limited_plan_goes_on(native: Converted, recipe: Path, out: Path) -> None:
    store(native, recipe, out, "--limit", 2)
    assert len(Volumes(out)) == 2
    store(native, recipe, out)
    assert sorted(Volumes(out)) == sorted(offered(native))


def test_a_later_plan_adds_what_is_new_and_nothing_else(tmp_path: Path, recipe: Path) -> None:
    made = write_synthetic_ctrate(tmp_path / "ctrate", samples=8, shape=SHAPE)
    native = convert_here(made, tmp_path / "out", samples_per_shard=3, limit=3)
    out = store(native, recipe, tmp_path / "views")
    before = digests(out)
    again = plan_view(native, recipe, out)
    assert again.code == ExitCode.DONE
    assert "Nothing new to plan." in again.stdout
    native = convert_here(made, native.out, samples_per_shard=3)
    store(native, recipe, out)
    assert sorted(Volumes(out)) == sorted(offered(native))
    after = digests(out)
    assert {name: after[name] for name in before} == before


def test_a_volume_that_was_converted_again_gets_a_new_view(
    native: Converted, recipe: Path, out: Path
) -> None:
    """Only if its voxels are others: a repair that restored the same ones changes no view."""
    store(native, recipe, out)
    before = {key: np.asarray(sample.array) for key, sample in Volumes(out).items()}
    record = native.record(1)
    changed = next(one for one in record.converted if one.key != native.made.without_spacing)
    path = native.made.sources[changed.key]
    with np.load(path) as entries:
        arrays = dict(entries)
    name = changed.source_header.array_key
    arrays[name] = arrays[name] + arrays[name].dtype.type(1)
    np.savez(path, **arrays)
    flip(native.dataset.shard(1), record.converted[0].array.offset + 9)
    assert run_here("verify", native.out, "--full", "--repair").code == ExitCode.DONE
    done = plan_view(native, recipe, out)
    assert done.code == ExitCode.DONE
    *_, repair = load_plans(Dataset(out))
    assert repair.repairs == {changed.key: 1}
    assert run_here("run", out).code == ExitCode.DONE
    now = Volumes(out)
    assert sorted(now) == sorted(before)
    on_the_fly = Volumes(native.out, view=recipe)
    for key, array in before.items():
        assert np.array_equal(now[key].array, on_the_fly[key].array)
        assert np.array_equal(now[key].array, array) == (key != changed.key)
    assert "Nothing new to plan." in plan_view(native, recipe, out).stdout
    assert run_here("verify", out, "--full").code == ExitCode.DONE


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--delete_source_files",), "--delete_source_files"),
        (("--samples_per_shard", 7), "--samples_per_shard"),
        (("--dtype", "float16"), "--dtype"),
        (("--data_folder", "/"), "--from tells what views are made from"),
        (("--meta_file", "x.csv"), "--meta_file"),
    ],
)
def test_settings_of_a_conversion_are_refused_by_name(
    native: Converted, recipe: Path, out: Path, words: tuple[object, ...], told: str
) -> None:
    done = plan_view(native, recipe, out, *words)
    assert done.code == ExitCode.USAGE
    assert told in done.stderr
    assert not out.exists()


def test_view_and_from_go_together(native: Converted, recipe: Path, out: Path) -> None:
    for words in (("--view", recipe), ("--from", native.out)):
        done = run_here("plan", *words, "--output_dir", out)
        assert done.code == ExitCode.USAGE
        assert "expected: --view NAME --from OUT --output_dir OUT2" in done.stderr


def test_what_cannot_be_a_dataset_of_views_is_refused(
    native: Converted, recipe: Path, out: Path, tmp_path: Path
) -> None:
    for place in (native.out, native.out / "views", native.out.parent):
        assert plan_view(native, recipe, place).code == ExitCode.REFUSED
    store(native, recipe, out)
    of_a_view = run_here("plan", "--view", recipe, "--from", out, "--output_dir", tmp_path / "two")
    assert of_a_view.code == ExitCode.REFUSED
    assert "a view of a view would be resampled twice" in of_a_view.stderr
    other = recipe_in(tmp_path, "hlip")
    assert plan_view(native, other, out).code == ExitCode.REFUSED
    assert plan_view(native, recipe, out, "--encoding", "npy").code == ExitCode.REFUSED
    into_native = plan_view(native, recipe, native.out)
    assert into_native.code == ExitCode.REFUSED


def test_axes_that_nothing_tells_may_be_assumed(tmp_path: Path, recipe: Path, out: Path) -> None:
    """They are recorded, and an assumption that the table contradicts is refused."""
    made = write_synthetic_ctrate(tmp_path / "ctrate", samples=4, shape=(48, 48, 48))
    native = convert_here(made, tmp_path / "out")
    assert plan_view(native, recipe, out).code == ExitCode.USAGE
    store(native, recipe, out, "--assume_axes", "yxz")
    on_the_fly = Volumes(native.out, view=recipe, assume_axes="yxz")
    stored = Volumes(out)
    assert len(stored) == 3
    for key, sample in stored.items():
        assert sample.json["view"]["assumed_axes"] == "yxz"
        assert np.array_equal(sample.array, on_the_fly[key].array)


def test_a_view_is_as_private_as_its_dataset(native: Converted, recipe: Path, out: Path) -> None:
    native.out.chmod(0o700)
    store(native, recipe, out)
    assert stat.S_IMODE((out / ".run").stat().st_mode) == 0o700
    for tar in out.glob("*.tar"):
        assert stat.S_IMODE(tar.stat().st_mode) == 0o600


# --- Damage -------------------------------------------------------------------------------------


def test_no_view_is_made_of_damaged_voxels(native: Converted, recipe: Path, out: Path) -> None:
    """A flipped bit costs that sample alone, and a later plan makes it from the repaired copy."""
    plan_view(native, recipe, out)
    sample = next(
        one for one in native.record(1).converted if one.key != native.made.without_spacing
    )
    flip(native.dataset.shard(1), sample.array.offset + sample.array.size_bytes - 1)
    done = run_here("run", out)
    assert done.code == ExitCode.SAMPLES_FAILED
    assert f"{sample.key}: no view of damaged voxels" in done.stdout
    assert sorted(Volumes(out)) == sorted({*offered(native)} - {sample.key})
    assert run_here("verify", native.out, "--full", "--repair").code == ExitCode.DONE
    store(native, recipe, out)
    assert sorted(Volumes(out)) == sorted(offered(native))
    assert run_here("status", out).code == ExitCode.DONE


def test_failed_samples_are_planned_again_when_asked_for(
    native: Converted, recipe: Path, out: Path
) -> None:
    plan_view(native, recipe, out)
    shard = native.dataset.shard(2)
    hidden = shard.with_suffix(".hidden")
    shard.rename(hidden)
    assert run_here("run", out).code == ExitCode.SAMPLES_FAILED
    hidden.rename(shard)
    assert plan_failed_samples(Dataset(out))
    assert run_here("run", out).code == ExitCode.DONE
    assert sorted(Volumes(out)) == sorted(offered(native))


def test_a_damaged_view_is_made_again(native: Converted, recipe: Path, out: Path) -> None:
    store(native, recipe, out)
    before = {key: np.asarray(sample.array) for key, sample in Volumes(out).items()}
    dataset = Dataset(out)
    record = Ledger.load(dataset).record(0)
    flip(dataset.shard(0), record.converted[0].array.offset + 40)
    assert run_here("verify", out, "--full").code == ExitCode.DAMAGE
    assert run_here("verify", out, "--full", "--repair").code == ExitCode.DONE
    after = Volumes(out)
    assert sorted(after) == sorted(before)
    assert all(np.array_equal(after[key].array, array) for key, array in before.items())


def test_a_lost_record_of_a_view_is_rebuilt(native: Converted, recipe: Path, out: Path) -> None:
    store(native, recipe, out)
    path = Dataset(out).record(1)
    before = json.loads(path.read_bytes())
    path.unlink()
    assert run_here("verify", out, "--full", "--repair").code == ExitCode.DONE
    after = json.loads(path.read_bytes())
    for one, other in zip(before["samples"], after["samples"], strict=True):
        assert one["array"] == other["array"]
        assert one["source_header"] == other["source_header"]


# --- Kills and workers --------------------------------------------------------------------------


def test_kills_and_workers_change_no_bit(
    native: Converted, recipe: Path, out: Path, tmp_path: Path
) -> None:
    """One worker, two workers, and a run that was killed again and again: the same shards."""
    expected = digests(store(native, recipe, tmp_path / "one"))
    plan_view(native, recipe, tmp_path / "two")
    assert run_here("run", tmp_path / "two", "--num_workers", 2).code == ExitCode.DONE
    assert digests(tmp_path / "two") == expected
    plan_view(native, recipe, out)
    for delay_s in (0.2, 0.3, 0.4, 0.5, 0.6):
        with subprocess.Popen(
            command("run", out, "--num_workers", 2), stdout=subprocess.DEVNULL, process_group=0
        ) as process:
            time.sleep(delay_s)
            os.killpg(process.pid, signal.SIGKILL)
    assert run_here("run", out).code == ExitCode.DONE
    assert digests(out) == expected
    assert len(Volumes(out)) == len(offered(native))


# --- Never a reason to delete -------------------------------------------------------------------


def test_no_shard_that_a_view_was_made_from_is_deleted(
    native: Converted, recipe: Path, out: Path, tmp_path: Path
) -> None:
    store(native, recipe, out)
    before = digests(native.out)
    for words in (
        ("delete", out, "--yes"),
        ("delete", out, "--yes", "--trash", tmp_path / "trash"),
        ("run", out, "--delete_source_files", "--yes"),
    ):
        done = run_here(*words)
        assert done.code == ExitCode.REFUSED
        assert "the shards that views were made from are never deleted" in done.stderr
        assert digests(native.out) == before
    assert not list(Dataset(out).consents.iterdir())


def test_a_view_says_nothing_about_its_datasets_sources(
    native: Converted, recipe: Path, out: Path
) -> None:
    """The dataset's own shards decide: with a damaged one, a sound view does not help."""
    store(native, recipe, out)
    sample = native.record(0).converted[0]
    flip(native.dataset.shard(0), sample.array.offset + sample.array.size_bytes - 1)
    run_here("delete", native.out, "--yes")
    for one in native.record(0).converted:
        assert native.made.sources[one.key].exists()
