"""``--config FILE.toml``: options by their names, from a file; the command line wins."""

from __future__ import annotations

import difflib
import importlib
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import click

from ctrate_convert.cli.groups import COMMANDS
from ctrate_convert.errors import SettingsError

F = TypeVar("F", bound=Any)


def config_option(function: F) -> F:
    """Add ``--config``."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=_take,
        # The file sets defaults, so it must be read before the other options.
        is_eager=True,
        expose_value=False,
        help="TOML file with options by their names; options given here win.",
    )(function)


def _take(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    values = _read(path)
    own = {name for parameter in context.command.params if (name := parameter.name)}
    unknown = [name for name in values if name not in own]
    if unknown:
        # Only now, since this imports every command.
        known = own | _names_of_all_commands()
        for name in unknown:
            if name not in known:
                raise _unknown(path, name, known)
    context.default_map = {
        **(context.default_map or {}),
        **{name: value for name, value in values.items() if name in own},
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"settings cannot be read: {error.strerror}", where=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"not a TOML file: {error}", where=path) from error
    normal = {name.replace("-", "_"): value for name, value in values.items()}
    for name, value in normal.items():
        if isinstance(value, dict):
            raise SettingsError("settings have no sections", where=path, seen=f"[{name}]")
    return normal


def _names_of_all_commands() -> set[str]:
    """Return the names of the options of all commands.

    One file may serve several commands, so a name that any of them knows is no mistake.
    """
    return {
        name
        for command in COMMANDS
        for parameter in importlib.import_module(f"ctrate_convert.cli.{command}").command.params
        if (name := parameter.name)
    }


def _unknown(path: Path, name: str, known: set[str]) -> SettingsError:
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.4)
    return SettingsError(
        f"unknown setting {name!r}",
        where=path,
        expected=f"{near[0]!r}, perhaps" if near else "an option's name",
        next_command="ctrate-convert convert --help lists the names",
    )
