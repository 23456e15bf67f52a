"""Options that the Slurm commands share: the profile, and its settings under their own names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ctrate_convert.cluster.scheduler.profile import ClusterProfile, Flag
from ctrate_convert.errors import SettingsError

F = TypeVar("F", bound=Callable[..., Any])


def profile_options(function: F) -> F:
    """``--profile`` and everything that stands in one."""
    options = [
        click.option(
            "--profile",
            type=click.Path(dir_okay=False, path_type=Path),
            help="TOML file that tells how jobs are submitted here; options given here win.",
        ),
        click.option("--partition", help="Slurm's partition."),
        click.option("--account", help="Slurm's account."),
        click.option("--qos", help="Slurm's quality of service."),
        click.option(
            "--timeout_min",
            type=click.IntRange(min=1),
            help="Time limit of an element; without it from the plan and the measured speed.",
        ),
        click.option(
            "--mem_gb",
            type=click.FloatRange(min=0, min_open=True),
            help="Memory of an element; without it from the plan and measured use.",
        ),
        click.option(
            "--cpus_per_task",
            type=click.IntRange(min=1),
            help="Cores, and worker processes, of an element; without it one a shard, at most 8.",
        ),
        click.option(
            "--array_parallelism",
            type=click.IntRange(min=1),
            help="How many elements of an array may run at once.",
        ),
        click.option(
            "--setup", multiple=True, help="Line for the job script before srun; may be repeated."
        ),
        click.option(
            "--additional_parameters",
            multiple=True,
            metavar="NAME=VALUE",
            help="Any other option of sbatch, such as constraint=ssd; may be repeated.",
        ),
        click.option(
            "--warning_s",
            type=click.IntRange(min=5),
            help="Seconds before the time limit at which an element stops and is requeued.",
        ),
        click.option(
            "--min_free_gb",
            type=click.FloatRange(min=0),
            help="An element pauses before its next shard while less (GiB) is free at the output.",
        ),
        click.option(
            "--memory_factor",
            type=click.FloatRange(min=1, min_open=True),
            help="How much more memory relaunch gives to what ran out of it.",
        ),
        click.option(
            "--time_factor",
            type=click.FloatRange(min=1, min_open=True),
            help="How much more time relaunch gives to what ran out of it.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def settings_given(values: dict[str, Any]) -> dict[str, Any]:
    """The profile's settings among a command's options, in their own types."""
    given = {name: values[name] for name in ClusterProfile.model_fields if name in values}
    pairs = given.pop("additional_parameters", ())
    given["additional_parameters"] = dict(map(_pair, pairs))
    return given


def _pair(text: str) -> tuple[str, Flag]:
    name, equals, value = text.partition("=")
    if not name:
        raise SettingsError("--additional_parameters wants NAME=VALUE", seen=text)
    return name.strip("-"), value if equals else True
