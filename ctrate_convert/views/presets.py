"""The recipes that come with the program, by name, and those of users, in files."""

from __future__ import annotations

import difflib
import functools
import os
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from ctrate_convert.errors import SettingsError
from ctrate_convert.store.records.recipe import Recipe, recipe_in_toml, recipe_of

_SUFFIX = ".toml"


@functools.cache
def presets() -> Mapping[str, Recipe]:
    """Return the recipes that come with the program, by their names."""
    text = files(__package__).joinpath("presets.toml").read_text(encoding="utf-8")
    return {
        name: recipe_of({"name": name, **fields}, "presets.toml")
        for name, fields in tomllib.loads(text).items()
    }


def find_recipe(view: str | os.PathLike[str] | Recipe) -> Recipe:
    """Return the recipe itself, the preset of that name, or the one in the file ``NAME.toml``.

    Raises:
        SettingsError: there is no such preset, or the file holds no recipe.
    """
    if isinstance(view, Recipe):
        return view
    name = os.fspath(view)
    if name in presets():
        return presets()[name]
    if not name.endswith(_SUFFIX):
        near = difflib.get_close_matches(name, presets(), n=1)
        raise SettingsError(
            "no such view", seen=name,
            expected=f"{near[0]!r}, perhaps" if near
            else f"{', '.join(presets())}, or a file whose name ends in {_SUFFIX}",
            next_command="ctrate-convert recipes",
        )  # fmt: skip
    try:
        text = Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"recipe cannot be read: {error.strerror}", where=name) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"not a TOML file: {error}", where=name) from error
    return recipe_in_toml(text, name)
