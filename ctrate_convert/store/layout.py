"""Where everything stands in the dataset directory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.store import privacy
from ctrate_convert.store.durable import fsync_directory, make_directories
from ctrate_convert.store.records.plan import shard_name


@dataclass(frozen=True)
class Dataset:
    """The dataset directory ``OUT``: shards and manifest, and under ``.run`` how they were made.

    ``.run`` is hidden because a bare ``load_dataset(OUT)`` reads JSON below ``run`` as data.
    """

    out: Path

    @property
    def manifest(self) -> Path:
        """The manifest."""
        return self.out / "manifest.json"

    @property
    def card(self) -> Path:
        """The dataset card, which tells some readers that the shards are the data."""
        return self.out / "README.md"

    @property
    def run(self) -> Path:
        """Everything about how the dataset was made."""
        return self.out / ".run"

    @property
    def plans(self) -> Path:
        """One folder a plan generation."""
        return self.run / "plans"

    def plan(self, generation: int) -> Path:
        """Return the folder of one plan generation: plan.json, its copy, samples and excluded."""
        return self.plans / f"{generation:04d}"

    @property
    def records(self) -> Path:
        """One record a published shard."""
        return self.run / "records"

    def record(self, shard: int) -> Path:
        """Return the record of one shard."""
        return self.records / f"shard-{shard:06d}.json"

    def shard(self, shard: int) -> Path:
        """Return the tar of one shard."""
        return self.out / shard_name(shard)

    @property
    def attempts(self) -> Path:
        """One folder an attempt."""
        return self.run / "attempts"

    @property
    def submissions(self) -> Path:
        """One folder a submission to a scheduler."""
        return self.run / "submissions"

    @property
    def logs(self) -> Path:
        """Logs, never overwritten."""
        return self.run / "logs"

    @property
    def journals(self) -> Path:
        """The folder of the deletion journals."""
        return self.run / "deletions"

    def journal(self, shard: int) -> Path:
        """Return the deletion journal of one shard's sources."""
        return self.journals / f"shard-{shard:06d}.jsonl"

    @property
    def consents(self) -> Path:
        """One record a consent to delete sources."""
        return self.run / "consents"

    def consent(self, name: str) -> Path:
        """Return the path of one consent."""
        return self.consents / f"{name}.json"

    def lock(self, name: str) -> Path:
        """Return a lock file; locks only save work."""
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
        """Create the folders that are missing; what stands in them so far has durable names.

        A killed process may have had no time for that. Side effect: from here on this process
        makes nothing that is more open than ``.run`` (see `privacy.keep_private`). A planner
        says by ``allowed`` which mode ``.run`` may have at most; one that exists is narrowed.
        """
        if allowed is not None:
            privacy.forbid(~allowed)
        privacy.keep_private(self)
        make_directories(*self._folders)
        if allowed is not None:  # a new one too: under an ACL the umask does not count
            privacy.narrow(self, allowed)
        fsync_directory(self.plans)

    def remove_unused(self, *, keep_out: bool) -> None:
        """Remove the folders that `prepare` made, if nothing at all was planned or written."""
        if not self.plans.is_dir() or any(self.plans.iterdir()):
            return
        for lock in (self.run / "locks").glob("*.lock"):
            lock.unlink(missing_ok=True)
        mine = (*self._folders[2:], self.run, *(() if keep_out else (self.out,)))
        for folder in mine:
            with contextlib.suppress(OSError):  # what is not empty is somebody's
                folder.rmdir()
