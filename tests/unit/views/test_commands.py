"""Every command that shows or writes something of a dataset knows what to do with views."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ctrate_convert import Volumes
from ctrate_convert.checking.gallery import choose
from ctrate_convert.errors import ExitCode
from ctrate_convert.reading.look import look_at
from ctrate_convert.store.records.recipe import as_toml, recipe_in_toml
from ctrate_convert.views.presets import find_recipe
from tests.support import Converted, Finished, run_here
from tests.unit.views.test_stored import native, out, recipe, store

__all__ = ["native", "out", "recipe"]


@pytest.fixture
def views(native: Converted, recipe: Path, out: Path) -> Path:
    return store(native, recipe, out)


def given(command: str, *words: object) -> Finished:
    done = run_here(command, *words)
    assert done.code == ExitCode.DONE, done.stderr
    return done


def test_the_card_holds_the_recipe(views: Path, recipe: Path) -> None:
    """Who gets the shards alone can tell what they are."""
    card = (views / "README.md").read_text()
    inside = card.partition("```toml\n")[2].partition("```")[0]
    wanted = recipe_in_toml(recipe.read_text(), recipe)
    assert recipe_in_toml(inside, "the card").recipe_id == wanted.recipe_id
    assert inside == as_toml(wanted)
    assert wanted.title in card


def test_reports_say_which_views_of_what(
    views: Path, native: Converted, recipe: Path, tmp_path: Path
) -> None:
    title = f"{recipe_in_toml(recipe.read_text(), recipe).title} of {native.out}"
    assert f"views {title}" in given("report", views).stdout.replace("\n", " ")
    assert given("report", views, "--json").json()["view"] == f"views {title}"
    assert given("report", native.out, "--json").json()["view"] == ""
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.html"
    given("report", views, "--html", page)
    assert f"views {title}" in page.read_text()


def test_the_doctor_says_that_nothing_deletes_what_views_were_made_from(
    views: Path, native: Converted
) -> None:
    told = {one["what"]: one for one in given("doctor", views, "--json").json()["findings"]}
    assert told["deletion"]["seen"].startswith("never")
    assert not {"remove sources", "deletion frees the output's disk"} & told.keys()
    assert (native.out / "shard-000000.tar").exists()


def test_preview_shows_a_stored_view_alone(views: Path, native: Converted) -> None:
    """Its volume has another grid: there is nothing to lay beside it."""
    shown = given("preview", views, "-n", 1)
    assert not shown.stderr
    assert "from the source" not in shown.stdout
    assert "a view" not in shown.stderr
    assert "small (" in shown.stdout
    del native


def test_preview_shows_a_view_while_reading(
    native: Converted, recipe: Path, out: Path, tmp_path: Path
) -> None:
    """The stored view, and the one that is made for the preview, are the same picture."""
    stored = store(native, recipe, out)
    key = next(iter(Volumes(stored)))
    picture = tmp_path / "one.png"
    given("preview", native.out, "--key", key, "--view", recipe, "--to", picture)
    assert picture.stat().st_size
    (there,) = choose(stored, [key], 1)
    (here,) = choose(native.out, [key], 1)
    one, other = look_at(there), look_at(here, find_recipe(recipe))
    for a, b in zip(one.cuts.planes, other.cuts.planes, strict=True):
        assert np.array_equal(a, b)
    assert one.known.view == other.known.view != ""
    assert one.known.to_hu == other.known.to_hu
    assert one.known.spacing_mm == other.known.spacing_mm
    shown = run_here("preview", native.out, "--key", native.made.without_spacing, "--view", recipe)
    assert shown.code == ExitCode.SAMPLES_FAILED
    assert "spacing is" in shown.stderr
    assert run_here("preview", native.out, "--failed", "--view", recipe).code == ExitCode.USAGE


def test_there_is_no_source_file_to_export(views: Path, tmp_path: Path) -> None:
    refused = run_here("export", views, tmp_path / "again", "--all")
    assert refused.code == ExitCode.USAGE
    assert "--as nifti" in refused.stderr
    assert not (tmp_path / "again").exists()


def test_views_are_exported_as_npz(views: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    given("export", views, folder, "--all", "--as", "npz")
    for key, sample in Volumes(views).items():
        with np.load(folder / f"{key}.npz") as archive:
            assert np.array_equal(archive["data"], sample.array)


def test_a_view_that_failed_is_named_with_its_volume(
    native: Converted, recipe: Path, out: Path
) -> None:
    """The shard was cut short after the plan was made."""
    planned = run_here("plan", "--view", recipe, "--from", native.out, "--output_dir", out)
    assert planned.code == ExitCode.DONE
    last = sorted(native.out.glob("*.tar"))[-1]
    kept = last.with_suffix(".kept")
    shutil.copyfile(last, kept)
    with last.open("r+b") as stream:
        stream.truncate(kept.stat().st_size // 2)
    assert run_here("run", out, "--num_workers", 1).code == ExitCode.SAMPLES_FAILED
    shown = run_here("preview", out, "--failed")
    assert f"ctrate-convert preview {native.out} --key" in shown.stderr
