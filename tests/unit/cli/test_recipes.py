"""``ctrate-convert recipes`` lists the presets, and shows one as TOML that is a recipe again."""

from __future__ import annotations

from pathlib import Path

from ctrate_convert.errors import ExitCode
from ctrate_convert.store.records.recipe import recipe_in_toml
from ctrate_convert.views.presets import presets
from tests.support import run_here


def test_all_are_listed() -> None:
    done = run_here("recipes")
    assert done.code == ExitCode.DONE
    for name, recipe in presets().items():
        assert name in done.stdout and recipe.about in done.stdout


def test_one_is_shown_and_comes_back(tmp_path: Path) -> None:
    for name, recipe in presets().items():
        done = run_here("recipes", name)
        assert done.code == ExitCode.DONE and recipe.recipe_id in done.stdout
        path = tmp_path / f"{name}.toml"
        path.write_text(done.stdout)
        assert recipe_in_toml(done.stdout, name) == recipe
        assert run_here("recipes", path).stdout == done.stdout
        (told,) = run_here("recipes", name, "--json").json()["recipes"]
        assert told["recipe_id"] == recipe.recipe_id and told["name"] == name


def test_what_is_no_recipe_is_told(tmp_path: Path) -> None:
    refused = run_here("recipes", "ctclpi")
    assert refused.code == ExitCode.USAGE and "'ctclip', perhaps" in refused.text
    path = tmp_path / "own.toml"
    path.write_text(run_here("recipes", "ctclip").stdout.replace("clip =", "clipp ="))
    refused = run_here("recipes", path)
    assert refused.code == ExitCode.USAGE and "clipp" in refused.text
