"""The Slurm commands' shared parts: the profile's options, and the report on a submission."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ctrate_convert.cli import show
from ctrate_convert.cli.from_model import options_of
from ctrate_convert.cluster.scheduler.profile import ClusterProfile, Flag
from ctrate_convert.cluster.states.status import fold_numbers
from ctrate_convert.cluster.submit import Submitted
from ctrate_convert.errors import ExitCode, SettingsError
from ctrate_convert.store.layout import Dataset

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
    # A name alone, such as exclusive, is a flag of sbatch. NAME= takes one of the profile back.
    return name.strip("-"), (value or False) if equals else True


def print_submitted(dataset: Dataset, done: Submitted, *, as_json: bool) -> None:
    """Print what was submitted, or would be."""
    if as_json:
        show.as_json(_facts(done))
        return
    if done.number is None:
        _print_scripts(done)
    for script, job_id in zip(done.scripts, done.job_ids, strict=False):
        what = show.count(len(script.tasks), "task") if script.tasks else "finaliser"
        job = f"Job {job_id}" if job_id else "REFUSED"
        show.line(f"{job}: {what} ({script.why}), {script.resources.words()}.")
    for note in done.notes:
        show.line(f"Note: {note}")
    for error in done.refused:
        show.line(f"Not submitted: {error.what}")
    if done.number is not None:
        show.line(f"Next: ctrate-convert status {dataset.out} --watch")


def code_of(done: Submitted) -> int:
    """Return the exit code: an array that Slurm refused is a problem of the environment."""
    return ExitCode.ENVIRONMENT if done.refused else ExitCode.DONE


def _print_scripts(done: Submitted) -> None:
    for script in done.scripts:
        show.line(f"--- {script.job_name} ({script.why})")
        show.line(script.text)
        for index, task in enumerate(script.tasks):
            samples = sum(shard.samples for shard in task.shards)
            size = show.size(sum(shard.source_bytes for shard in task.shards))
            names = ", ".join(shard.name for shard in task.shards)
            show.line(f"element {index}: task {task.number}, {samples} samples, {size}: {names}")
        show.line()
    arrays = sum(1 for script in done.scripts if script.tasks)
    tasks = sum(len(script.tasks) for script in done.scripts)
    show.line(
        f"Dry run, nothing submitted: {show.count(arrays, 'array')}, {show.count(tasks, 'task')}, "
        "and a finaliser."
    )


def _facts(done: Submitted) -> dict[str, Any]:
    return {
        "submission": done.number,
        "arrays": [
            {
                "job": done.job_ids[place] if place < len(done.job_ids) else None,
                "name": script.job_name,
                "why": script.why,
                "tasks": fold_numbers([task.number for task in script.tasks]),
                "resources": script.resources,
                "script": script.text,
            }
            for place, script in enumerate(done.scripts)
        ],
        "notes": done.notes,
        "refused": [error.what for error in done.refused],
    }
