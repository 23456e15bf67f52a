"""Recipes: read, shown, refused, and told apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.errors import SettingsError
from ctrate_convert.store.records.recipe import KERNEL_VERSION, as_toml, recipe_in_toml
from ctrate_convert.views.presets import find_recipe, presets

PLAIN = """
name = "plain"
spacing_mm = { x = 1, y = 1, z = 2.5 }
size_rule = "round(n*c/t)"
coordinates = "half_pixel"
axes = "zyx"
"""


@pytest.mark.parametrize("name", presets())
def test_a_preset_names_its_code_and_comes_back_from_toml(name: str) -> None:
    recipe = presets()[name]
    assert recipe.name == name and recipe.about
    assert recipe.sources
    for source in recipe.sources:
        assert source.repository.startswith(("https://github.com/", "https://huggingface.co/"))
        assert source.file.endswith((".py", ".yaml"))
        if source.commit is None:
            assert source.release and "its commit is not known" in source.release
        else:
            assert re.fullmatch("[0-9a-f]{40}", source.commit)
    again = recipe_in_toml(as_toml(recipe), "shown")
    assert again == recipe and again.recipe_id == recipe.recipe_id


def test_presets_are_different_recipes() -> None:
    assert len({recipe.recipe_id for recipe in presets().values()}) == len(presets())
    assert KERNEL_VERSION == 1


def test_the_id_is_of_what_decides_the_voxels() -> None:
    plain = recipe_in_toml(PLAIN, "plain")
    assert re.fullmatch("[0-9a-f]{64}", plain.recipe_id)
    same = {"name": "other", "about": "words", "sources": presets()["hlip"].sources}
    assert plain.model_copy(update=same).recipe_id == plain.recipe_id
    given = recipe_in_toml(PLAIN + 'odd_voxel = "after"\ninterpolation = "linear"', "plain")
    assert given.recipe_id == plain.recipe_id  # a default is what it says, given or not
    for field, value in {
        "size_rule": "int(n*c/t)", "coordinates": "origin", "orientation": "RAS", "axes": "xyz",
        "window_hu": (-1000.0, 1000.0), "clip": "before", "output": "float16",
        "odd_voxel": "before", "encoding": "npy", "size_is": "least",
    }.items():  # fmt: skip
        assert plain.model_copy(update={field: value}).recipe_id != plain.recipe_id, field


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("spacng = 3", "spacng"),
        ("window_hu = [1000, -1000]", "low < high"),
        ("window_hu = [-40000, 0]", "int16"),
        ('output = "uint8"', "need a window_hu"),
        ("values = [0, 1]", "need a window_hu"),
        ("window_hu = [0, 1]\nvalues = [1, 1]", "different"),
        ("size = { x = 1, y = 1, z = 1 }", "go together"),
        ('size_is = "least"', "needs a size"),
        ("pad_hu = 0", "go together"),
        ("size = { x = 1, y = 1, z = 1 }\npad_hu = 5\nwindow_hu = [0, 1]", "outside"),
        ("size = { x = 1, y = 1 }\npad_hu = 5", "size.z"),
        ("size = { x = 1, y = 1, z = 0 }\npad_hu = 5", "size.z"),
        ('orientation = "XYZ"', "orientation"),
        ('interpolation = "cubic"', "interpolation"),
        ('encoding = "zarr"', "encoding"),
        ("pad_hu = nan", "pad_hu"),
        ("[", "TOML"),
    ],
)
def test_what_is_no_recipe_is_refused(more: str, why: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(why)):
        recipe_in_toml(PLAIN + more, "file.toml")


@pytest.mark.parametrize("name", ["name", "spacing_mm", "size_rule", "coordinates", "axes"])
def test_what_has_no_default_must_be_there(name: str) -> None:
    text = "\n".join(line for line in PLAIN.split("\n") if not line.startswith(f"{name} ="))
    with pytest.raises(SettingsError, match=name):
        recipe_in_toml(text, "file.toml")


def test_a_view_is_a_preset_a_file_or_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(PLAIN)
    own = find_recipe(path)
    assert own.name == "plain" and find_recipe(str(path)) == own == find_recipe(own)
    assert find_recipe("ctclip") is presets()["ctclip"]
    wrong: list[tuple[Any, str]] = [
        ("ctclpi", "'ctclip', perhaps"), ("zzz", "ends in .toml"),
        (tmp_path / "none.toml", "cannot be read"),
    ]  # fmt: skip
    for view, why in wrong:
        with pytest.raises(SettingsError, match=why):
            find_recipe(view)
    path.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="not a TOML file"):
        find_recipe(path)
