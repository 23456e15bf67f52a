"""A verification or an audit that jobs carry out, as files: its units, and their results.

``.run/checks/0001/`` holds

- ``check.json`` and ``units.jsonl``: what was asked for, and the units of work. The folder appears
  whole or not at all.
- ``verify-shard-000007.json``: the result of a unit, as soon as an element has it.

Whatever has no result that is valid now counts as not checked. No deletion rests on these files.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from ctrate_convert.checking.shard_check import ShardCheck
from ctrate_convert.checking.verify_shard import ShardFindings
from ctrate_convert.errors import DamageError
from ctrate_convert.store.durable import make_directories, publish_directory, read_regular, replace
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, Recorded
from ctrate_convert.store.records.audit import ComparedSource
from ctrate_convert.store.records.base import Key, Record, Sha256, parse, read, sha256_hex
from ctrate_convert.store.records.check import (
    CHECK_FILE,
    UNITS_FILE,
    Check,
    CheckCommand,
    CheckOptions,
    Unit,
    Work,
)


class UnitResult(Record):
    """What an element found out about one unit of a check.

    ``check``, ``created`` and ``unit_sha256`` say which unit of which check. ``record_sha256`` and
    ``superseded`` are of the shard's record and its repaired samples, as the element found them
    when it ``began``.
    """

    schema_number: Literal[1] = 1
    check: int
    created: str
    work: Work
    shard: int
    unit_sha256: Sha256
    record_sha256: Sha256
    superseded: tuple[Key, ...]
    began: str
    verified: ShardFindings | None = None
    read: ShardCheck | None = None
    compared: tuple[ComparedSource, ...] | None = None

    @property
    def is_whole(self) -> bool:
        """True if it has what its kind of work finds out."""
        found = {"verify": self.verified, "read": self.read, "compare": self.compared}
        return found[self.work] is not None


class CheckFiles:
    """The files of one check. An element is given its units, and does not read them all."""

    def __init__(self, dataset: Dataset, check: Check) -> None:
        self.check = check
        self.folder = dataset.check(check.number)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """All units of work.

        Raises:
            DamageError: the file is not the one that was published.
        """
        path = self.folder / UNITS_FILE
        with _advising(self.folder):
            data = read_regular(path)
            if sha256_hex(data) != self.check.units_sha256:
                raise DamageError("the list of units was changed after it was written", where=path)
            return tuple(parse(Unit, line, path) for line in data.splitlines())

    def result(self, unit: Unit, ledger: Ledger) -> UnitResult | None:
        """Return the result of a unit; None unless there is one that is valid now.

        It is valid if it is of this unit and check, the shard has the record and the repairs that
        the element went by, and neither the shard nor a source that was compared was changed since.
        """
        try:
            result = read(UnitResult, self._path(unit))
            recorded = ledger.shard(unit.shard)
        except (FileNotFoundError, DamageError, KeyError):
            return None
        if (
            self.new_result(unit, recorded, result.began).model_copy(
                update={
                    "verified": result.verified,
                    "read": result.read,
                    "compared": result.compared,
                }
            )
            != result
        ):
            return None
        began_ns = datetime.fromisoformat(result.began).timestamp() * 1e9
        looked_at = [ledger.dataset.shard(unit.shard)]
        folder = Path(recorded.plan.settings.data_folder)
        looked_at += [folder / one.source for one in result.compared or ()]
        changed = any(_changed_ns(path) > began_ns for path in looked_at)
        return result if result.is_whole and not changed else None

    def new_result(self, unit: Unit, recorded: Recorded, began: str) -> UnitResult:
        """Return a result of the unit with nothing found yet."""
        return UnitResult(
            check=self.check.number,
            created=self.check.created,
            work=unit.work,
            shard=unit.shard,
            unit_sha256=unit.sha256,
            record_sha256=recorded.record.stored_sha256(),
            superseded=tuple(sorted(recorded.superseded)),
            began=began,
        )

    def write(self, unit: Unit, result: UnitResult) -> None:
        """Write the result of a unit durably; one that is not valid any more is replaced."""
        replace(self._path(unit), result.to_json())

    def missing(self, ledger: Ledger) -> list[Unit]:
        """Return the units without a valid result."""
        return [unit for unit in self.units if self.result(unit, ledger) is None]

    def _path(self, unit: Unit) -> Path:
        return self.folder / f"{unit.work}-shard-{unit.shard:06d}.json"


def _changed_ns(path: Path) -> int:
    """Return when the file was last changed; 0 if it is not there, which others look for."""
    try:
        return os.stat(path, follow_symlinks=False).st_ctime_ns
    except OSError:
        return 0


def publish_check(
    dataset: Dataset, command: CheckCommand, options: CheckOptions, units: Sequence[Unit]
) -> CheckFiles:
    """Write a new check under the next free number."""
    make_directories(dataset.checks)
    names = [path.name for path in dataset.checks.iterdir()]
    number = max((int(name) for name in names if re.fullmatch("[0-9]{4,9}", name)), default=0)
    lines = b"".join(unit.to_json() + b"\n" for unit in units)
    while True:
        number += 1
        check = Check(
            number=number,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            options=options,
            units=len(units),
            units_sha256=sha256_hex(lines),
        )
        files = CheckFiles(dataset, check)
        if publish_directory({CHECK_FILE: check.to_json(), UNITS_FILE: lines}, files.folder):
            return files


def load_check(dataset: Dataset, number: int) -> CheckFiles:
    """Read one check.

    Raises:
        DamageError: it is not there, was changed, or a later version wrote it.
    """
    folder = dataset.check(number)
    with _advising(folder):
        return CheckFiles(dataset, read(Check, folder / CHECK_FILE))


@contextlib.contextmanager
def _advising(folder: Path) -> Iterator[None]:
    """Turn what is wrong with a file of a check into an error that says how to go on."""
    try:
        yield
    except (DamageError, FileNotFoundError) as error:
        what = error.what if isinstance(error, DamageError) else "a file of it is missing"
        raise DamageError(
            f"this verification or audit cannot be gone on with: {what}",
            where=folder,
            next_command=f"mv {folder} {folder}.bad; then the same command with --submit",
        ) from error
