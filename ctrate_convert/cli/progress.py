"""Show the progress of a run: samples, MB/s, freed space, time left."""

from __future__ import annotations

from ctrate_convert.cli import show
from ctrate_convert.cli.bar import Bar
from ctrate_convert.cli.folding import same_error
from ctrate_convert.errors import Interrupted
from ctrate_convert.running.pool import Message
from ctrate_convert.running.result import RunResult
from ctrate_convert.running.worker import ShardFailed


class RunProgress(Bar):
    """The bar of a run; it is called with every message of a worker."""

    def __init__(self, name: str = "convert") -> None:
        super().__init__(name)
        self._said: set[object] = set()

    def __call__(self, result: RunResult, message: Message) -> None:
        """Show ``message``; ``result`` is the sum so far."""
        if isinstance(message, ShardFailed) and not isinstance(message.error, Interrupted):
            # The report at the end counts those with the same error.
            if same_error(message.error) not in self._said:
                self.say(f"shard {message.shard}: {message.error.one_line()}")
            self._said.add(same_error(message.error))
        self.update(result.samples_done, result.samples_total, _facts(result))

    def paused(self, paused: bool, free_bytes: int) -> None:
        """Say that no shard is begun for want of space, or that the run goes on."""
        free = f"{show.size(max(0, free_bytes))} stay free at the output"
        self.say(f"paused: {free}" if paused else f"going on: {free}")

    def warn(self, text: str) -> None:
        """Say what a person should know before the first shard."""
        self.say(f"WARNING: {text}")


def _facts(result: RunResult) -> str:
    text = f"{result.samples_done:,}/{result.samples_total:,} samples"
    if result.array_bytes:  # none are read where sources are only let go
        text += f", {show.speed(result.array_bytes / max(result.elapsed_s, 1e-6))}"
    if result.deletion.freed_bytes:
        text += f", {show.size(result.deletion.freed_bytes)} freed"
    return text
