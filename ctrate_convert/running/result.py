"""Sum up the outcome of a run from its workers' messages."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ctrate_convert.deleting.outcome import Deletion
from ctrate_convert.errors import ExitCode, Interrupted
from ctrate_convert.running.pool import Message
from ctrate_convert.running.worker import (
    Advanced,
    ShardDone,
    ShardFailed,
    SourcesReleased,
    Written,
)
from ctrate_convert.store.attempts import now_text
from ctrate_convert.store.records.attempt import AttemptProgress
from ctrate_convert.store.records.plan import PlannedShard


@dataclass
class RunResult:
    """The outcome of one run, summed up as it goes; a progress display reads it too."""

    samples_total: int
    source_bytes_total: int
    shards_total: int
    started_clock: float = field(default_factory=time.monotonic)
    samples_done: int = 0
    source_bytes_done: int = 0
    array_bytes: int = 0
    output_bytes: int = 0
    shards_done: int = 0
    converted: int = 0
    failed_samples: list[tuple[str, str]] = field(default_factory=list)
    failed_before: int = 0
    failed_shards: dict[int, ShardFailed] = field(default_factory=dict)
    busy_shards: list[int] = field(default_factory=list)
    deletion: Deletion = field(default_factory=Deletion)
    max_rss_bytes: int = 0
    paused: bool = False
    stopped_by: str | None = None
    given_up: dict[int, int] = field(default_factory=dict)
    """The shards that a stop gave up half converted, each with its samples that were done."""

    @property
    def elapsed_s(self) -> float:
        """The seconds since the run began."""
        return time.monotonic() - self.started_clock

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the worst event; a sample that failed in an earlier run still counts."""
        if self.stopped_by:
            return ExitCode.INTERRUPTED
        codes = {failure.error.exit_code for failure in self.failed_shards.values()}
        for code in (ExitCode.DAMAGE, ExitCode.REFUSED, ExitCode.ENVIRONMENT):
            if code in codes:
                return code
        if codes:
            return ExitCode.ENVIRONMENT
        if self.deletion.kept:
            return ExitCode.REFUSED
        failed = self.failed_samples or self.failed_before
        return ExitCode.SAMPLES_FAILED if failed else ExitCode.DONE

    def note(self) -> AttemptProgress:
        """Return the progress note of the attempt."""
        return AttemptProgress(
            time=now_text(),
            samples_done=self.samples_done,
            samples_total=self.samples_total,
            source_bytes_done=self.source_bytes_done,
            source_bytes_total=self.source_bytes_total,
            shards_done=self.shards_done,
            shards_total=self.shards_total,
            freed_bytes=self.deletion.freed_bytes,
            paused=self.paused,
        )


class Tally:
    """The sum of all messages in the result; the counts of a failed shard are taken back."""

    def __init__(
        self, result: RunResult, shards: dict[int, PlannedShard], recorded: frozenset[int]
    ) -> None:
        self._result = result
        self._shards = shards
        self._recorded = recorded
        self._samples_done: dict[int, int] = {}
        """Samples done of each shard under way."""
        self._writing: set[int] = set()

    def begin(self, shard: int) -> None:
        """Note that a worker is about to get this shard."""
        self._samples_done[shard] = 0
        if shard not in self._recorded:
            self._writing.add(shard)

    def claimed_bytes(self) -> int:
        """Return how much the shards under way will still write, as far as the plan can tell."""
        return sum(
            round(_written_bytes(shard) * (1 - self._samples_done[shard.index] / shard.samples))
            for shard in map(self._shards.__getitem__, self._writing)
        )

    def take(self, message: Message) -> None:
        """Count ``message``."""
        result = self._result
        if isinstance(message, SourcesReleased):
            self._take_released(message)
            return
        if isinstance(message, Advanced):
            if message.shard in self._recorded:
                self._samples_done.setdefault(message.shard, 0)
            # The samples of a shard that was converted just now were counted then.
            if message.shard in self._samples_done:
                self._samples_done[message.shard] += message.samples
                result.samples_done += message.samples
            result.array_bytes += message.array_bytes
            return
        # Written, done or failed: from here on the shard takes no more space.
        self._writing.discard(message.shard)
        if isinstance(message, Written):
            return
        # Take the partial count back: `_count_shard` adds all samples of a finished shard.
        under_way = message.shard in self._samples_done
        samples = self._take_back(message.shard)
        if isinstance(message, ShardFailed):
            # A worker that was told to stop has not failed.
            if not isinstance(message.error, Interrupted):
                result.failed_shards[message.shard] = message
            elif under_way and message.shard not in self._recorded:
                result.given_up[message.shard] = samples
            return
        if message.busy:
            result.busy_shards.append(message.shard)
            return
        self._count_shard(message)
        result.source_bytes_done += self._shards[message.shard].source_bytes
        if message.fresh:
            result.converted += message.converted
            result.output_bytes += message.output_bytes
            result.failed_samples.extend(message.failed)

    def _take_back(self, shard: int) -> int:
        """Forget the samples of a shard under way, and return how many they were."""
        samples = self._samples_done.pop(shard, 0)
        self._result.samples_done -= samples
        return samples

    def _take_released(self, message: SourcesReleased) -> None:
        result = self._result
        self._take_back(message.shard)
        if message.busy:
            result.busy_shards.append(message.shard)
            return
        result.deletion.add(message.deletion)
        if message.shard in self._recorded:  # any other was counted when it was converted
            self._count_shard(message)
        result.max_rss_bytes = max(result.max_rss_bytes, message.max_rss_bytes)

    def _count_shard(self, message: ShardDone | SourcesReleased) -> None:
        result = self._result
        result.samples_done += self._shards[message.shard].samples
        result.shards_done += 1
        result.max_rss_bytes = max(result.max_rss_bytes, message.max_rss_bytes)


def _written_bytes(shard: PlannedShard) -> int:
    return shard.estimated_output_bytes + shard.estimated_scratch_bytes
