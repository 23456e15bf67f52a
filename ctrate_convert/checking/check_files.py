"""A verification or an audit that jobs carry out, as files: its units, and their results.

``.run/checks/0001/`` holds

- ``check.json`` and ``units.jsonl``: what was asked for, and the units of work. The folder appears
  whole or not at all.
- ``verify-shard-000007.json``: the result of a unit, as soon as an element has it.

Whatever has no result yet counts as not checked. No deletion rests on these files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from ctrate_convert.checking.shard_check import ShardCheck
from ctrate_convert.checking.verify_shard import ShardFindings
from ctrate_convert.errors import DamageError
from ctrate_convert.store.durable import make_directories, publish_directory, read_regular, replace
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.audit import ComparedSource
from ctrate_convert.store.records.base import Key, Record, Sha256, parse, read

CheckCommand = Literal["verify", "audit"]
Work = Literal["verify", "read", "compare"]

_CHECK_FILE = "check.json"
_UNITS_FILE = "units.jsonl"


class CheckOptions(Record):
    """The options of the command line; those of the other command have no meaning."""

    num_samples: int = 0
    check_precision: bool = False
    full: bool = False
    share: float = 1.0
    seed: int = 0
    against_sources: bool = False


class Unit(Record):
    """One shard to look at: ``verify`` it, ``read`` gone sources' members, or ``compare`` sources.

    ``keys`` names the samples; without any, all that count are meant.
    """

    work: Work
    shard: int = Field(ge=0)
    keys: tuple[Key, ...]


class Check(Record):
    """``check.json``: one verification or audit."""

    schema_number: Literal[1] = 1
    number: int = Field(ge=1)
    created: str
    command: CheckCommand
    options: CheckOptions


class UnitResult(Record):
    """What an element found out about one unit; ``record_sha256`` is of the record it went by."""

    schema_number: Literal[1] = 1
    work: Work
    shard: int
    record_sha256: Sha256
    time: str
    verified: ShardFindings | None = None
    read: ShardCheck | None = None
    compared: tuple[ComparedSource, ...] | None = None


class CheckFiles:
    """The files of one check. An element is given its units, and does not read them all."""

    def __init__(self, dataset: Dataset, check: Check) -> None:
        self.check = check
        self.folder = dataset.check(check.number)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """All units of work.

        Raises:
            DamageError: the file was changed.
        """
        path = self.folder / _UNITS_FILE
        return tuple(parse(Unit, line, path) for line in read_regular(path).splitlines())

    def result(self, unit: Unit) -> UnitResult | None:
        """Read the result of a unit; return None if there is none that can be read."""
        with contextlib.suppress(FileNotFoundError, DamageError):
            result = read(UnitResult, self._path(unit.work, unit.shard))
            if (result.work, result.shard) == (unit.work, unit.shard):
                return result
        return None

    def write(self, result: UnitResult) -> None:
        """Write the result of a unit durably; one of an earlier record is replaced."""
        replace(self._path(result.work, result.shard), result.to_json())

    def has(self, unit: Unit) -> bool:
        """Return True if there is a result of the unit, unread."""
        return self._path(unit.work, unit.shard).is_file()

    def missing(self) -> list[Unit]:
        """Return the units without a result."""
        return [unit for unit in self.units if not self.has(unit)]

    def _path(self, work: Work, shard: int) -> Path:
        return self.folder / f"{work}-shard-{shard:06d}.json"


def publish_check(
    dataset: Dataset, command: CheckCommand, options: CheckOptions, units: Sequence[Unit]
) -> CheckFiles:
    """Write a new check under the next free number."""
    make_directories(dataset.checks)
    number = max(_numbers(dataset), default=0)
    while True:
        number += 1
        check = Check(
            number=number,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            options=options,
        )
        files = CheckFiles(dataset, check)
        lines = b"".join(unit.to_json() + b"\n" for unit in units)
        if publish_directory({_CHECK_FILE: check.to_json(), _UNITS_FILE: lines}, files.folder):
            return files


def load_check(dataset: Dataset, number: int) -> CheckFiles:
    """Read one check.

    Raises:
        FileNotFoundError: there is no such check.
        DamageError: the file was changed.
    """
    return CheckFiles(dataset, read(Check, dataset.check(number) / _CHECK_FILE))


def newest_check(dataset: Dataset, command: CheckCommand) -> CheckFiles | None:
    """Return the newest check that ``command`` asked for; None if there is none."""
    for number in sorted(_numbers(dataset), reverse=True):
        files = load_check(dataset, number)
        if files.check.command == command:
            return files
    return None


def _numbers(dataset: Dataset) -> list[int]:
    if not dataset.checks.is_dir():
        return []
    return [int(path.name) for path in dataset.checks.iterdir() if path.name.isdigit()]
