"""The options that the Slurm commands share: the profile, and its settings by their own names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ctrate_convert.cli.from_model import options_of
from ctrate_convert.cluster.scheduler.profile import ClusterProfile, Flag
from ctrate_convert.errors import SettingsError

F = TypeVar("F", bound=Callable[..., Any])


def profile_options(function: F) -> F:
    """Add ``--profile``, and an option for every setting that a profile has."""
    profile = click.option(
        "--profile",
        type=click.Path(dir_okay=False, path_type=Path),
        help="TOML file that tells how jobs are submitted here; options given here win.",
    )
    with_settings: F = options_of(ClusterProfile, defaults=False)(function)
    return profile(with_settings)


def settings_given(values: dict[str, Any]) -> dict[str, Any]:
    """Return the profile's settings among a command's options, in their own types."""
    given = {name: values[name] for name in ClusterProfile.model_fields if name in values}
    pairs = given.pop("additional_parameters", ())
    given["additional_parameters"] = dict(map(_pair, pairs))
    return given


def _pair(text: str) -> tuple[str, Flag]:
    name, equals, value = text.partition("=")
    if not name:
        raise SettingsError("--additional_parameters wants NAME=VALUE", seen=text)
    # A name alone, such as exclusive, is a flag of sbatch.
    return name.strip("-"), value if equals else True
