"""The command ``ctrate-convert preview``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from ctrate_convert.checking.gallery import Chosen, choose, failed_sources, looks_of
from ctrate_convert.cli import show
from ctrate_convert.cli.terminal import picture_line
from ctrate_convert.errors import CtrateError, ExitCode, SettingsError
from ctrate_convert.looking.look import Look
from ctrate_convert.looking.page import page
from ctrate_convert.looking.picture import picture, png
from ctrate_convert.looking.terminal import as_text
from ctrate_convert.sources.look import look_at_file
from ctrate_convert.store.durable import replace
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.geometry import Axes
from ctrate_convert.views.presets import find_recipe

_COLUMNS = 120


@click.command("preview")
@click.argument("what", metavar="OUT|FILE", type=click.Path(exists=True, path_type=Path))
@click.option("--key", "keys", multiple=True, help="A sample's key; may be repeated.")
@click.option("-n", "number", type=click.IntRange(min=1), default=3, show_default=True,
              help="Samples to show, spread over the dataset.")  # fmt: skip
@click.option("--failed", is_flag=True, help="The sources of failed samples, as far as readable.")
@click.option("--outliers", is_flag=True, help="The samples that are least like the others.")
@click.option("--view", metavar="NAME|FILE.toml",
              help="Show this view of each sample; `recipes` lists them.")  # fmt: skip
@click.option("--assume_axes", type=click.Choice(["xyz", "yxz", "zyx"]),
              help="Of --view: the axes of volumes whose shards tell none.")  # fmt: skip
@click.option("--to", type=click.Path(dir_okay=False, path_type=Path),
              help="Write a picture (.png; several get numbers) or a page (.html).")  # fmt: skip
def command(
    what: Path,
    keys: tuple[str, ...],
    number: int,
    failed: bool,
    outliers: bool,
    view: str | None,
    assume_axes: Axes | None,
    to: Path | None,
) -> int:
    """Look at volumes: three planes in lung and soft-tissue windows, a histogram, the facts.

    OUT is a dataset, FILE an NPZ or NIfTI. Where a sample's source is still there, its planes and
    the difference, a hundred times magnified, are shown too. Without --to the picture appears in
    the terminal, over ssh too.

    \b
    Examples:
      ctrate-convert preview /data/shards
      ctrate-convert preview /data/shards --key train_1_a_1 --to train_1_a_1.png
      ctrate-convert preview /data/shards -n 12 --to preview.html
      ctrate-convert preview /data/shards --view ctclip
      ctrate-convert preview volume.nii.gz
    """
    if to is not None and to.suffix.lower() not in (".png", ".html"):
        raise SettingsError("--to writes .png or .html", seen=to.name)
    if sum((bool(keys), failed, outliers)) > 1:
        raise SettingsError("--key, --failed and --outliers do not go together")
    recipe = None if view is None else find_recipe(view)
    if recipe and (failed or what.is_file()):
        raise SettingsError("--view shows samples of a dataset", seen=what)
    if what.is_file():
        looks: Iterator[Look | CtrateError] = iter([look_at_file(what)])
    elif failed:
        looks = failed_sources(Dataset(what), number)
    else:
        chosen = choose(what, keys, number, Chosen.OUTLIERS if outliers else Chosen.SPREAD)
        looks = looks_of(Dataset(what), chosen, recipe, assume_axes or "")
    shown: list[Look] = []
    errors: list[CtrateError] = []
    for one in looks:
        if isinstance(one, CtrateError):
            errors.append(one)
            show.note("\n".join(one.lines()))
        elif to is None:
            _print(one)
            shown.append(one)
        else:
            shown.append(one)
    if to is not None and shown:
        _write(to, shown)
    if not shown and not errors:
        show.line("Nothing to show.")
    return _code(errors) if errors and not failed else ExitCode.DONE


def _code(errors: Sequence[CtrateError]) -> ExitCode:
    """Return the exit code of the worst: damage, else the storage, else a sample that fails."""
    codes = {one.exit_code for one in errors}
    return ExitCode.DAMAGE if ExitCode.DAMAGE in codes else max(codes)


def _print(look: Look) -> None:
    console = show.console()
    columns = min(console.width, _COLUMNS)
    colour = sys.stdout.isatty() and not console.no_color
    window = look.windows[0]
    for text in as_text(look, columns, window, colour=colour):
        picture_line(text, colour=colour)
    for name, value in look.facts():
        show.line(f"{name:>15}  {value}")
    show.line()


def _write(to: Path, shown: Sequence[Look]) -> None:
    if to.suffix.lower() == ".html":
        replace(to, page(shown).encode())
        show.line(f"Wrote {to}: {show.count(len(shown), 'volume')}.")
        return
    for number, look in enumerate(shown):
        path = to if len(shown) == 1 else to.with_stem(f"{to.stem}-{number:02d}")
        replace(path, png(picture(look)))
        show.line(f"Wrote {path}: {look.known.key}.")
