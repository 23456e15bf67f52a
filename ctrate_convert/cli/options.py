"""The options that several commands share, under the names that the original gave them."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from pydantic import ValidationError

from ctrate_convert.cli import show
from ctrate_convert.cli.config import config_option
from ctrate_convert.cli.from_model import options_of
from ctrate_convert.errors import SettingsError
from ctrate_convert.running.each_process import in_processes
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.privacy import keep_private
from ctrate_convert.store.records.plan import PlanSettings
from ctrate_convert.views.presets import find_recipe

T = TypeVar("T")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

_PATH = click.Path(path_type=str)


def trash_folder(text: str | None) -> Path | None:
    """Return the folder that ``--trash`` names, absolute and without links."""
    return Path(text).expanduser().resolve() if text else None


def _no_link(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    if text and Path(text).expanduser().is_symlink():
        raise SettingsError(
            "the trash is a link, which may lead elsewhere tomorrow",
            where=text,
            seen=f"a link to {trash_folder(text)}",
            expected="a folder, or a name that is free",
            next_command="name the folder itself",
        )
    return text


def trash_option(function: F) -> F:
    """Add ``--trash``."""
    return click.option(
        "--trash",
        type=_PATH,
        callback=_no_link,
        metavar="DIR",
        help="Move sources into this folder, on their own file system, instead of deleting them.",
    )(function)


_DELETE = "delete_source_files"
_KEEP = "keep_source_files"


def _delete_source_files(words: str) -> Callable[[F], F]:
    """Add ``--delete_source_files`` and ``--keep_source_files``; a no anywhere wins.

    They are two options, since of one option with two names the last word on the line would win.
    """

    def add(function: F) -> F:
        function = keep_source_files_option(function)
        return click.option(
            f"--{_DELETE}",
            is_flag=True,
            # None means that nobody said anything, which is not a no.
            default=None,
            callback=_unless_kept,
            help=f"{words} --{_KEEP}, and {_DELETE} = false in --config, win over it.",
        )(function)

    return add


def keep_source_files_option(function: F) -> F:
    """Add ``--keep_source_files``.

    It sets ``delete_source_files`` to False, whatever else is said.
    """
    return click.option(
        f"--{_KEEP}",
        is_flag=True,
        expose_value=False,
        callback=_keep,
        help="Delete no source, and do not ask; this always wins.",
    )(function)


def _keep(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """Record the no; click may process the other option before this one or after it."""
    if value:
        context.meta[_KEEP] = True
        if context.params.get(_DELETE):
            _say_kept(f"--{_KEEP} was given")
        if _DELETE in context.params:
            context.params[_DELETE] = False


def _unless_kept(
    context: click.Context, _parameter: click.Parameter, value: bool | None
) -> bool | None:
    """Return the option's value, or False if another option or a settings file says no."""
    if context.meta.get(_KEEP):
        if value:
            _say_kept(f"--{_KEEP} was given")
        return False
    if value and (context.default_map or {}).get(_DELETE) is False:
        _say_kept(f"--config says {_DELETE} = false")
        return False
    return value


def _say_kept(why: str) -> None:
    show.note(f"Note: sources are kept: {why}, and a no always wins.")


def discard_members_option(function: F) -> F:
    """Add ``--discard_members``."""
    return click.option(
        "--discard_members",
        multiple=True,
        callback=split_names,
        metavar="NAME,…",
        help="Entries of a source that its shard does not hold and that may be lost with it.",
    )(function)


def split_names(
    _context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...]:
    """Split values that were given with commas between them."""
    return tuple(name for text in texts for name in text.split(",") if name)


def deletion_options(function: F) -> F:
    """Add the options by which `run` and `submit` are told to delete or to keep the sources."""
    words = "Delete what the plan proposes to delete, which is the default; the command asks first."
    for option in (yes_option, discard_members_option, _delete_source_files(words)):
        function = option(function)
    return function


def plan_options(function: F) -> F:
    """Add all options that a plan is made of: the settings' own fields, and where it goes."""
    own = {
        "delete_source_files": _delete_source_files(
            "Propose to delete each shard's sources once the shard holds them."
        ),
        "discard_members": discard_members_option,
        "trash": trash_option,
        **dict.fromkeys(("view", "assume_axes"), _no_option),
    }
    function = options_of(PlanSettings, defaults=True, instead=own)(function)
    output = click.option(
        "--output_dir", type=_PATH, help="The dataset directory to make or extend."
    )
    return config_option(output(function))


def _no_option(function: F) -> F:
    """Leave out a setting that only a plan of views has."""
    return function


def view_options(function: F) -> F:
    """Add the options by which the views of a dataset are planned."""
    for option in (
        click.option("--assume_axes", type=click.Choice(["xyz", "yxz", "zyx"]),
                     help="Of --view: the axes of volumes whose shards tell none; recorded."),
        click.option("--from", type=_PATH, metavar="OUT",
                     help="Of --view: the dataset that the views are made from."),
        click.option("--view", metavar="NAME|FILE.toml",
                     help="Plan a dataset of views, by a recipe; `recipes` lists them."),
    ):  # fmt: skip
        function = option(function)
    return function


def files_from_option(function: F) -> F:
    """Add ``--files_from``."""
    return click.option(
        "--files_from",
        type=click.Path(path_type=Path),
        metavar="LIST",
        help="Look at the files in this list, one path a line, below --data_folder or absolute, as "
        "`find` and `lfs find` print them, instead of looking through --data_folder.",
    )(function)


def _as_private_as(_context: click.Context, _parameter: click.Parameter, out: Path) -> Path:
    keep_private(Dataset(out))
    return out


def out_argument(function: F) -> F:
    """Add the dataset directory and ``--config``.

    Whatever the command makes from here on is as private as the dataset.
    """
    argument = click.argument(
        "out",
        metavar="OUT",
        type=click.Path(file_okay=False, path_type=Path),
        callback=_as_private_as,
    )
    return argument(config_option(function))


def usable_cores() -> int:
    """Return the number of this machine's cores that this process may use."""
    return len(os.sched_getaffinity(0))


_MOST_PLANNERS = 8
"""Processes that read headers: more of them burden a login node and its storage."""


def spread_over_cores(
    function: Callable[[T], R], values: Iterable[T], /
) -> Generator[R, None, None]:
    """Run a step of planning in worker processes; a small set is done in this one."""
    return in_processes(function, values, min(usable_cores(), _MOST_PLANNERS))


def num_workers_option(function: F) -> F:
    """Add ``--num_workers``."""
    return click.option(
        "--num_workers",
        type=click.IntRange(min=1),
        default=usable_cores,
        show_default="the cores this process may use",
        help="Worker processes.",
    )(function)


def on_the_cluster(function: F) -> F:
    """Add the options by which Slurm jobs do the work of a command."""
    for option in (
        click.option("--timeout_min", type=click.IntRange(min=1), metavar="N",
                     help="Of --submit: time limit of an element, in minutes."),
        click.option("--mem_gb", type=click.FloatRange(min=0, min_open=True), metavar="N",
                     help="Of --submit: memory of an element."),
        click.option("--profile", type=click.Path(dir_okay=False, path_type=Path),
                     help="Of --submit: TOML file that tells how jobs are submitted here; without "
                     "it as the conversion was."),
        click.option("--submit", is_flag=True,
                     help="Have Slurm jobs do it; `status` tells how far they are."),
    ):  # fmt: skip
        function = option(function)
    return function


def result_option(function: F) -> F:
    """Add ``--result``."""
    return click.option(
        "--result", is_flag=True, help="Report what the jobs of the newest --submit have found."
    )(function)


def given(*names: str) -> list[str]:
    """Return those of the options that the command line itself names."""
    context = click.get_current_context()
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]


def min_free_option(function: F) -> F:
    """Add ``--min_free_gb``."""
    return click.option(
        "--min_free_gb",
        type=click.FloatRange(min=0),
        default=0.0,
        help="Pause before the next shard while less than this (GiB) is free at the output.",
    )(function)


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")(
        function
    )


def yes_option(function: F) -> F:
    """Add ``--yes``."""
    return click.option("--yes", is_flag=True, help="Do not ask before deleting.")(function)


def view_settings(values: dict[str, Any]) -> tuple[Dataset, PlanSettings]:
    """Return the dataset of views to plan, and its settings, from the values of all options.

    Raises:
        SettingsError: an option is missing or does not go with another.
    """
    values = dict(values)
    missing = [f"--{name}" for name in ("view", "from", "output_dir") if not values.get(name)]
    if missing:
        raise SettingsError(
            f"missing {', '.join(missing)}",
            expected="--view NAME --from OUT --output_dir OUT2",
            next_command="ctrate-convert recipes",
        )
    given_as = click.get_current_context().get_parameter_source
    values["view"] = recipe = find_recipe(values["view"])
    if given_as("encoding") is ParameterSource.DEFAULT and values["layout"] != "ctclip":
        values["encoding"] = recipe.encoding
    native = Path(values.pop("from")).expanduser().resolve()
    if values.get("data_folder"):
        raise SettingsError("--from tells what views are made from", seen="--data_folder too")
    tables = {name: values[name] or "" for name in ("reports_file", "meta_file", "labels_file")}
    values |= {"data_folder": str(native), **tables, _DELETE: bool(values[_DELETE])}
    values["assume_axes"] = values["assume_axes"] or ""
    return _settings(values)


def plan_settings(values: dict[str, Any]) -> tuple[Dataset, PlanSettings]:
    """Return the plan's dataset and its settings from the options' values.

    Raises:
        SettingsError: an option is missing or does not go with another.
    """
    values = dict(values)
    if values[_DELETE] is False:
        values["trash"] = None  # nothing is going to be moved there
    values[_DELETE] = bool(values[_DELETE])
    needed = ("data_folder", "reports_file", "meta_file", "labels_file", "output_dir")
    missing = [f"--{name}" for name in needed if not values.get(name)]
    if missing:
        raise SettingsError(
            f"missing {', '.join(missing)}",
            expected="on the command line or in --config",
            next_command="ctrate-convert convert --help",
        )
    return _settings(values)


def _settings(values: dict[str, Any]) -> tuple[Dataset, PlanSettings]:
    out = Path(values.pop("output_dir"))
    try:
        return Dataset(out), PlanSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"--{first['loc'][0]}: {first['msg']}", seen=first["input"]) from error
