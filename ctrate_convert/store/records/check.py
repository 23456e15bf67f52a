"""The records of a verification or an audit by jobs: what was asked for, and its units."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ctrate_convert.store.records.base import Key, Record, Sha256, sha256_hex

CheckCommand = Literal["verify", "audit"]
Work = Literal["verify", "read", "compare"]

CHECK_FILE = "check.json"
UNITS_FILE = "units.jsonl"


class CheckOptions(Record):
    """The options of the command line; those of the other command have no meaning."""

    num_samples: int = 0
    check_precision: bool = False
    full: bool = False
    share: float = 1.0
    seed: int = 0
    against_sources: bool = False

    def words(self, command: CheckCommand) -> str:
        """Return the command with the options that ask for the same, without a seed."""
        if command == "verify":
            words = ["--full" if self.full else f"--num_samples {self.num_samples}"]
            words += ["--check_precision"] if self.check_precision else []
        else:
            words = [f"--sample {self.share:.6g}"] if self.share < 1 else []
            words += ["--against_sources"] if self.against_sources else []
        return " ".join([command, *words])


class Unit(Record):
    """One shard to look at: ``verify`` it, ``read`` gone sources' members, or ``compare`` sources.

    ``keys`` names the samples; without any, all that count are meant.
    """

    work: Work
    shard: int = Field(ge=0)
    keys: tuple[Key, ...]

    def covers(self, other: Unit) -> bool:
        """Return True if whoever did this unit did all of ``other``."""
        same = (self.work, self.shard) == (other.work, other.shard)
        return same and (not self.keys or (bool(other.keys) and {*other.keys} <= {*self.keys}))

    @property
    def sha256(self) -> str:
        """The hash of the unit, by which a result names it."""
        return sha256_hex(self.to_json())


class Check(Record):
    """``check.json``: one verification or audit; ``units.jsonl`` has its units, a line each."""

    schema_number: Literal[1] = 1
    number: int = Field(ge=1)
    created: str
    command: CheckCommand
    options: CheckOptions
    units: int = Field(ge=0)
    units_sha256: Sha256

    @property
    def words(self) -> str:
        """The command line, without the dataset, that asks for the same."""
        return self.options.words(self.command)
