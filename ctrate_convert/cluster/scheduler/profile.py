"""A cluster's profile: a TOML file, overridden by options of the same names."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ctrate_convert.errors import SettingsError
from ctrate_convert.store.records.base import Record

Flag = str | int | float | bool


class ClusterProfile(Record):
    """The way to submit jobs on a cluster; the names are submitit's.

    What is None follows from the plan. The descriptions are the help of the options that have the
    fields' names.
    """

    partition: str | None = Field(default=None, description="Slurm's partition.")
    account: str | None = Field(default=None, description="Slurm's account.")
    qos: str | None = Field(default=None, description="Slurm's quality of service.")
    timeout_min: int | None = Field(
        default=None,
        ge=1,
        description="Time limit of an element; without it from the plan and the measured speed.",
    )
    mem_gb: float | None = Field(
        default=None,
        gt=0,
        description="Memory of an element; without it from the plan and measured use.",
    )
    cpus_per_task: int | None = Field(
        default=None,
        ge=1,
        description="Cores, and worker processes, of an element; without it one a shard, "
        "at most 8.",
    )
    array_parallelism: int = Field(
        default=256, ge=1, description="How many elements of an array may run at once."
    )
    setup: tuple[str, ...] = Field(
        default=(),
        description="Line for the job script before srun, after the profile's; may be repeated.",
    )
    additional_parameters: dict[str, Flag] = Field(
        default_factory=dict,
        description="Any other option of sbatch, such as constraint=ssd, with the profile's; "
        "NAME= takes one back; may be repeated.",
    )
    warning_s: int = Field(
        default=120,
        ge=5,
        description="Seconds before the time limit at which an element stops and is requeued.",
    )
    min_free_gb: float = Field(
        default=0.0,
        ge=0,
        description="An element pauses before its next shard while less (GiB) is free at the "
        "output.",
    )
    scratch: str | None = Field(
        default=None,
        description="Folder on the node for scratch files, such as $SLURM_TMPDIR; without it "
        "they lie beside the shards.",
    )
    memory_factor: float = Field(
        default=2.0,
        gt=1,
        description="How much more memory relaunch gives to what ran out of it.",
    )
    time_factor: float = Field(
        default=2.0, gt=1, description="How much more time relaunch gives to what ran out of it."
    )

    def overridden(self, values: Mapping[str, Any]) -> ClusterProfile:
        """Return this profile with every value that is not None (nor empty) taken instead.

        Lines for the job script and other options of sbatch are added to the profile's, which may
        load what every job needs. A value replaces that of the option of the same name.
        """
        given = {name: value for name, value in values.items() if value not in (None, (), {})}
        lines = tuple(given.get("setup", ()))
        # A relaunch that names the lines of the submission again does not double them.
        is_there = self.setup[len(self.setup) - len(lines) :] == lines
        more = {
            "setup": self.setup if is_there else (*self.setup, *lines),
            "additional_parameters": {
                **self.additional_parameters,
                **given.get("additional_parameters", {}),
            },
        }
        return _checked({**self.model_dump(), **given, **more}, "the options")

    @property
    def clusters(self) -> tuple[str, ...]:
        """The clusters that jobs may go to; an empty name for the one that Slurm takes."""
        return cluster_names(self.additional_parameters)


def cluster_names(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the clusters that options of sbatch name; it takes ``cluster`` for ``clusters``."""
    named = options.get("clusters") or options.get("cluster") or options.get("M") or ""
    return tuple(name.strip() for name in str(named).split(","))


def load_profile(path: Path | None) -> ClusterProfile:
    """Return the profile in ``path``, or the defaults if ``path`` is None.

    Raises:
        SettingsError: the file cannot be read, or has a name or value that is not known.
    """
    if path is None:
        return ClusterProfile()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"profile cannot be read: {error.strerror}", where=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"not a TOML file: {error}", where=path) from error
    return _checked({name.replace("-", "_"): value for name, value in values.items()}, path)


def profile_from(values: Mapping[str, Any], where: object) -> ClusterProfile:
    """Return the profile that an earlier submission kept."""
    return _checked(values, where)


def _checked(values: Mapping[str, Any], where: object) -> ClusterProfile:
    known = sorted(ClusterProfile.model_fields)
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            raise SettingsError(
                f"unknown setting {name!r} in the cluster profile",
                where=where,
                expected=f"{near[0]!r}, perhaps" if near else ", ".join(known),
            )
    try:
        return ClusterProfile.model_validate(dict(values), strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{place}: {first['msg']}", where=where, seen=first["input"]) from error
