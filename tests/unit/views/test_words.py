"""What commands say of views is true of views, and names a next step that they take."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ctrate_convert.cli.plan_summary import print_summary
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.plans import load_plans, load_samples
from ctrate_convert.store.records.recipe import SpacingMm, as_toml
from ctrate_convert.synthetic import write_synthetic_ctrate
from ctrate_convert.views.presets import presets
from tests.support import Converted, Finished, command, convert_here, plan_words, run_here
from tests.unit.views.test_stored import (
    digests,
    flip,
    native,
    out,
    plan_view,
    recipe,
    recipe_in,
    store,
)

__all__ = ["native", "out", "recipe"]


# --- Planning


def test_a_plan_without_room_names_nothing_that_views_refuse(
    native: Converted, recipe: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_view(native, recipe, out)
    dataset = Dataset(out)
    (plan,) = load_plans(dataset)
    shards = [one.model_copy(update={"estimated_output_bytes": 2**60}) for one in plan.shards]
    large = plan.model_copy(update={"shards": tuple(shards)})
    print_summary(dataset, large, (), deleting=False, num_workers=1)
    told = capsys.readouterr().out
    assert "NO: " in told
    assert "--delete_source_files" not in told


def test_assume_axes_is_named_only_where_axes_are_the_reason(
    native: Converted, out: Path, tmp_path: Path
) -> None:
    huge = presets()["ctclip"].model_copy(
        update={"name": "huge", "spacing_mm": SpacingMm(x=1000.0, y=1000.0, z=1000.0)}
    )
    path = tmp_path / "huge.toml"
    path.write_text(as_toml(huge), encoding="utf-8")
    done = plan_view(native, path, out)
    assert done.code == ExitCode.USAGE
    assert "nothing is left of this volume" in done.stderr
    assert "--assume_axes" not in done.stderr
    cubes = write_synthetic_ctrate(tmp_path / "cubes", samples=4, shape=(48, 48, 48))
    unknown = convert_here(cubes, tmp_path / "unknown")
    done = plan_view(unknown, recipe_in(tmp_path), out)
    assert done.code == ExitCode.USAGE
    assert "--assume_axes tells the axes" in done.stderr


def test_a_trash_beside_a_view_is_refused_as_what_it_is(
    native: Converted, recipe: Path, out: Path, tmp_path: Path
) -> None:
    config = tmp_path / "plan.toml"
    config.write_text(f'trash = "{tmp_path / "trash"}"\n')
    done = plan_view(native, recipe, out, "--config", config)
    assert done.code == ExitCode.USAGE
    assert "--trash" in done.stderr
    assert "--delete_source_files" not in done.stderr
    assert max(map(len, done.stderr.splitlines())) <= 80


@pytest.mark.parametrize("kind", ["native", "view"])
def test_a_dry_run_leaves_no_folder_above_it(
    native: Converted, recipe: Path, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "there").mkdir()
    deep = tmp_path / "there" / "nope" / "a" / "b"
    done = (
        plan_view(native, recipe, deep, "--dry_run")
        if kind == "view"
        else run_here("plan", *plan_words(native.made, deep)[1:], "--dry_run")
    )
    assert done.code == ExitCode.DONE, done.stderr
    assert list((tmp_path / "there").iterdir()) == []


def test_views_do_not_go_where_the_volumes_are(
    native: Converted, recipe: Path, tmp_path: Path
) -> None:
    data_folder = native.made.data_folder
    before = sorted(data_folder.parent.rglob("*"))
    for place in (data_folder, data_folder.parent, data_folder / "views"):
        done = plan_view(native, recipe, place)
        assert done.code == ExitCode.USAGE, place
        assert "data folder" in done.stderr
    assert sorted(data_folder.parent.rglob("*")) == before
    beside = convert_here(native.made, data_folder / "shards")
    assert plan_view(beside, recipe, data_folder / "views").code == ExitCode.DONE


def test_plan_and_report_promise_the_same(native: Converted, recipe: Path, out: Path) -> None:
    """What a shard holds of the samples that have a view, not the whole shard."""
    store(native, recipe, out)
    dataset = Dataset(out)
    (plan,) = load_plans(dataset)
    before = {}
    for one in Ledger.load(dataset).readable():
        before[one.shard.index] = one.record.source_bytes
        lines = load_samples(dataset, one.plan, one.shard)
        assert one.record.source_bytes == sum(line.source_size_bytes for line in lines)
        assert one.record.source_bytes == one.shard.source_bytes
    assert sum(before.values()) == plan.estimate.source_bytes
    dataset.record(0).unlink()
    assert run_here("verify", out, "--full", "--repair").code == ExitCode.DONE
    after = Ledger.load(dataset).record(0)
    assert after.source_bytes == before[0]


# --- Running


@pytest.fixture
def without_a_shard(native: Converted, recipe: Path, out: Path) -> tuple[Path, Finished]:
    """Views of which those of the first shard failed, and what the run said."""
    plan_view(native, recipe, out)
    native.dataset.shard(0).unlink()
    done = run_here("run", out, "--num_workers", 1)
    assert done.code == ExitCode.SAMPLES_FAILED
    return out, done


def test_a_missing_shard_is_called_a_shard(
    without_a_shard: tuple[Path, Finished], native: Converted
) -> None:
    views, done = without_a_shard
    keys = [one.key for one in Ledger.load(Dataset(views)).record(0).failed]
    assert len(keys) >= 2
    for said in (done.stdout, run_here("report", views).stdout):
        assert "source kept" not in said
        for key in keys:
            why = f"the shard that this view is made from is missing ({native.dataset.shard(0)})"
            assert f"failed: {key}: {why}" in said


def test_the_status_names_each_view_that_failed(without_a_shard: tuple[Path, Finished]) -> None:
    views, _ = without_a_shard
    keys = [one.key for one in Ledger.load(Dataset(views)).record(0).failed]
    said = run_here("status", views).stdout
    assert f"{len(keys)} views failed" in said
    for key in keys:
        assert f"  {key}: the shard" in said


# --- Looking


def test_a_sample_without_a_view_is_no_damage(
    native: Converted, recipe: Path, tmp_path: Path
) -> None:
    key = native.made.without_spacing
    words = ("preview", native.out, "--view", recipe, "--key")
    assert run_here(*words, key).code == ExitCode.SAMPLES_FAILED
    record = native.record(0)
    broken = next(one for one in record.converted if one.key != key)
    flip(native.dataset.shard(0), broken.array.offset + 1)
    done = run_here(*words, key, "--key", broken.key)
    assert done.code == ExitCode.DAMAGE, done.stderr


def test_a_view_of_a_view_is_refused_once(native: Converted, recipe: Path, out: Path) -> None:
    store(native, recipe, out)
    done = run_here("preview", out, "--view", recipe)
    assert done.code == ExitCode.REFUSED
    assert done.stderr.count("a view of a view would be resampled twice") == 1
    assert not done.stdout


# --- Auditing


def test_views_have_no_sources_that_could_go(native: Converted, recipe: Path, out: Path) -> None:
    store(native, recipe, out)
    shutil.rmtree(native.out)
    done = run_here("audit", out)
    assert done.code == ExitCode.DONE, done.text
    verdict = f"no source could go: made from shards of {native.out}, which are never deleted"
    assert verdict in done.stdout
    assert re.search(r"sources gone +0 \(0 bytes\)", done.stdout)
    compared = run_here("audit", out, "--against_sources")
    assert compared.code == ExitCode.USAGE
    assert f"ctrate-convert verify {out} --full" in compared.stderr
    record = Dataset(out).record(0)
    record.chmod(0o600)
    flip(record, 5)
    assert run_here("audit", out).code == ExitCode.DAMAGE


def test_nor_have_views_that_failed(without_a_shard: tuple[Path, Finished]) -> None:
    views, _ = without_a_shard
    done = run_here("audit", views)
    assert done.code == ExitCode.DONE, done.text
    assert "NOT accounted for" not in done.stdout


# --- Deleting


def test_a_dry_run_tells_which_shards_have_no_second_copy(
    native: Converted, recipe: Path, out: Path
) -> None:
    """The views' shards have the same names, and are no copies."""
    store(native, recipe, out)
    words = ("delete", native.out, "--dry_run", "--copies")
    done = run_here(*words, out)
    assert done.code == ExitCode.DONE
    for tar in native.out.glob("*.tar"):
        assert f"no second copy: {tar.name}: {out / tar.name} has" in done.stdout
    assert "The copies were not read" in done.stdout
    assert f"ctrate-convert delete {native.out}" not in done.stdout
    found = run_here(*words, out, "--json").json()["without_copy"]
    assert sorted(found) == sorted(tar.name for tar in native.out.glob("*.tar"))
    assert run_here(*words, native.out).code == ExitCode.USAGE
    copy = out.parent / "copy"
    shutil.copytree(native.out, copy)
    assert "no second copy" not in run_here(*words, copy).stdout
    assert run_here("delete", native.out, "--dry_run", "--json").json()["without_copy"] == {}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("more", [("--dry_run",), ("--yes",)])
def test_a_dataset_is_no_trash(
    native: Converted, recipe: Path, out: Path, more: tuple[str, ...], inside: bool
) -> None:
    store(native, recipe, out)
    before = digests(out)
    done = run_here("delete", native.out, "--trash", out / "trash" if inside else out, *more)
    assert done.code == ExitCode.USAGE
    assert "a dataset directory" in done.stderr
    assert str(out) in done.stderr
    assert digests(out) == before
    assert all(path.exists() for path in native.made.sources.values())


# --- Words


def test_refusals_of_views_are_chinese_too(
    native: Converted, recipe: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    done = plan_view(native, recipe, out)
    assert "没有视图" in done.stdout
    assert "no view" not in done.stdout
    other = recipe_in(tmp_path, "hlip")
    refused = [
        run_here("plan", "--view", recipe, "--from", out, "--output_dir", tmp_path / "two"),
        plan_view(native, recipe, native.out / "views"),
        plan_view(native, other, out),
        plan_view(native, recipe, tmp_path / "x", "--data_folder", "/"),
        plan_view(native, recipe, tmp_path / "x", "--layout", "ctclip"),
        plan_view(native, recipe, tmp_path / "x", "--samples_per_shard", 7),
        plan_view(native, recipe, native.made.data_folder),
        run_here("delete", native.out, "--yes", "--trash", out),
    ]
    for done in refused:
        assert done.code in (ExitCode.USAGE, ExitCode.REFUSED)
        for line in done.stderr.splitlines():
            name, _, fact = line.strip().partition("：")
            if name != "位置" and not fact.strip().startswith(("--", "/", "ctrate-convert")):
                assert re.search("[\u3400-\u9fff]", fact), line


def test_the_doctor_keeps_to_eighty_columns(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = command("doctor", tmp_path)
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        said = b""
        while True:
            try:
                said += os.read(ours, 65536)
            except OSError:  # the process has ended
                break
    os.close(ours)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said.decode())
    assert "verdict" in plain
    assert max(len(line.rstrip()) for line in plain.splitlines()) <= 80
