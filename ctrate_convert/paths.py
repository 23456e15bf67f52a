"""Where everything stands in the dataset directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.durable import fsync_directory, make_directories
from ctrate_convert.schemas.plan import shard_name


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
        """The folder of one plan generation: plan.json and its copy, samples and excluded."""
        return self.plans / f"{generation:04d}"

    @property
    def records(self) -> Path:
        """One record a published shard."""
        return self.run / "records"

    def record(self, shard: int) -> Path:
        """The record of one shard."""
        return self.records / f"shard-{shard:06d}.json"

    def shard(self, shard: int) -> Path:
        """The tar of one shard."""
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

    def journal(self, shard: int) -> Path:
        """The deletion journal of one shard's sources."""
        return self.run / "deletions" / f"shard-{shard:06d}.jsonl"

    def lock(self, name: str) -> Path:
        """A lock file; locks only save work."""
        return self.run / "locks" / f"{name}.lock"

    def prepare(self) -> None:
        """Create the folders that are missing; what stands in them so far has durable names.

        A killed process may have had no time for that.
        """
        make_directories(
            self.out,
            self.run,
            self.plans,
            self.records,
            self.attempts,
            self.submissions,
            self.logs,
            self.run / "deletions",
            self.run / "locks",
        )
        fsync_directory(self.plans)
