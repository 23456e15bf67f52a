"""The paths of all files in the dataset directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ctrate_convert.store import privacy
from ctrate_convert.store.durable import fsync_directory, make_directories
from ctrate_convert.store.records.plan import shard_name


@dataclass(frozen=True)
class Dataset:
    """The dataset directory ``OUT``: shards and manifest, and in ``.run`` how they were made.

    ``.run`` is hidden because a plain ``load_dataset(OUT)`` would read JSON below ``run`` as data.
    """

    out: Path

    @property
    def manifest(self) -> Path:
        """The path of the manifest."""
        return self.out / "manifest.json"

    @property
    def card(self) -> Path:
        """The path of the dataset card, which tells some readers that the shards are the data."""
        return self.out / "README.md"

    @cached_property
    def run(self) -> Path:
        """The folder of everything about how the dataset was made."""
        return self.out / ".run"

    @property
    def plans(self) -> Path:
        """The folder of the plans, with one folder for each generation."""
        return self.run / "plans"

    def plan(self, generation: int) -> Path:
        """Return the folder of one generation: plan.json, its copy, samples and excluded."""
        return self.plans / f"{generation:04d}"

    @cached_property
    def records(self) -> Path:
        """The folder of the records, one for each published shard."""
        return self.run / "records"

    def record(self, shard: int) -> Path:
        """Return the path of the record of one shard."""
        return self.records / f"shard-{shard:06d}.json"

    def shard(self, shard: int) -> Path:
        """Return the path of the tar of one shard."""
        return self.out / shard_name(shard)

    @cached_property
    def attempts(self) -> Path:
        """The folder of the attempts, with one folder for each."""
        return self.run / "attempts"

    @property
    def submissions(self) -> Path:
        """The folder of the submissions to a scheduler, with one folder for each."""
        return self.run / "submissions"

    @property
    def checks(self) -> Path:
        """The folder of the verifications and audits that jobs carry out, made by the first."""
        return self.run / "checks"

    def check(self, number: int) -> Path:
        """Return the folder of one verification or audit."""
        return self.checks / f"{number:04d}"

    @property
    def logs(self) -> Path:
        """The folder of the logs, which are never overwritten."""
        return self.run / "logs"

    @property
    def journals(self) -> Path:
        """The folder of the deletion journals."""
        return self.run / "deletions"

    def journal(self, shard: int) -> Path:
        """Return the path of the deletion journal for one shard's sources."""
        return self.journals / f"shard-{shard:06d}.jsonl"

    @property
    def consents(self) -> Path:
        """The folder of the consents to delete sources, one record for each."""
        return self.run / "consents"

    def consent(self, name: str) -> Path:
        """Return the path of one consent."""
        return self.consents / f"{name}.json"

    def lock(self, name: str) -> Path:
        """Return the path of a lock file. Locks save work; nothing depends on them."""
        return self.run / "locks" / f"{name}.lock"

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (
            self.out,
            self.run,
            self.plans,
            self.records,
            self.attempts,
            self.submissions,
            self.logs,
            self.journals,
            self.consents,
            self.run / "locks",
        )

    def prepare(self, allowed: int | None = None) -> None:
        """Create the missing folders and make the names of all folders and plans durable.

        Existing names are synced too, since the process that made them may have been killed first.
        As a side effect, this process makes nothing more open than ``.run`` from here on (see
        `privacy.keep_private`). ``allowed``, which only a planner gives, is the widest mode that
        ``.run`` may have; an existing ``.run`` is narrowed to it.
        """
        if allowed is not None:
            # Before anything is made: a new ``.run`` gets its mode from the umask.
            privacy.forbid(~allowed)
        privacy.keep_private(self)
        make_directories(*self._folders)
        if allowed is not None:  # a new .run too: a default ACL overrides the umask
            privacy.narrow(self, allowed)
        fsync_directory(self.plans)

    def missing_folders(self) -> tuple[Path, ...]:
        """Return those of ``out`` and the folders above it that are not there, ``out`` first."""
        out = self.out.absolute()
        return tuple(folder for folder in (out, *out.parents) if not os.path.lexists(folder))

    def remove_unused(self, made: Sequence[Path]) -> None:
        """Remove the folders that `prepare` made if nothing was planned or written.

        ``made`` are the `missing_folders` of before.
        """
        if not self.plans.is_dir() or any(self.plans.iterdir()):
            return
        for lock in (self.run / "locks").glob("*.lock"):
            lock.unlink(missing_ok=True)
        for folder in (*self._folders[2:], self.run, *made):
            with contextlib.suppress(OSError):  # a folder that is not empty stays
                folder.rmdir()
