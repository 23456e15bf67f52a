"""The command ``ctrate-convert recipes``."""

from __future__ import annotations

from collections.abc import Iterable

import click

from ctrate_convert.cli import options, show
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.records.recipe import Recipe, as_toml
from ctrate_convert.views.presets import find_recipe, presets


@click.command("recipes")
@click.argument("name", metavar="[NAME|FILE.toml]", required=False)
@options.json_option
def command(name: str | None, as_json: bool) -> int:
    """List the recipes of views, or show one as TOML.

    A view is what training code makes of a volume: resampled, clipped, cut and padded. Readers take
    one by name, as in open_dataset(OUT, view="ctclip"). What is shown may be kept in a file,
    changed, and given by its path. A file is checked too.

    \b
    Examples:
      ctrate-convert recipes
      ctrate-convert recipes ctclip > own.toml
      ctrate-convert recipes own.toml
    """
    shown = list(presets().values()) if name is None else [find_recipe(name)]
    if as_json:
        show.as_json({"recipes": [_as_json(recipe) for recipe in shown]})
    elif name is None:
        columns = ("name", "mm (x, y, z)", "HU", "clip", "output", "axes", "shape", "what")
        show.table(columns, [_row(recipe) for recipe in shown])
    else:
        show.line(f"# recipe_id: {shown[0].recipe_id}")
        for text in as_toml(shown[0]).rstrip("\n").split("\n"):
            show.line(text)
    return ExitCode.DONE


def _as_json(recipe: Recipe) -> dict[str, object]:
    return {"recipe_id": recipe.recipe_id, **recipe.model_dump(mode="json")}


def _row(recipe: Recipe) -> tuple[str, ...]:
    spacing = recipe.spacing_mm
    return (
        recipe.name,
        _joined((spacing.x, spacing.y, spacing.z)),
        "…".join(f"{one:g}" for one in recipe.window_hu or ()),
        recipe.clip if recipe.window_hu else "",
        recipe.output,
        recipe.axes,
        _shape(recipe),
        recipe.about,
    )


def _shape(recipe: Recipe) -> str:
    """The sizes in the order of the array's axes."""
    if recipe.size is None:
        return "the volume's"
    shape = _joined(getattr(recipe.size, axis) for axis in recipe.axes)
    return f"≥ {shape}" if recipe.size_is == "least" else shape


def _joined(numbers: Iterable[float]) -> str:
    return "×".join(f"{one:g}" for one in numbers)
