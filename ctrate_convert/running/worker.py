"""Do one step of one shard in a worker process: convert and publish it, or let its sources go.

Another process than the one that wrote a shard compares it with its sources. A worker that is
killed costs its step and nothing else. A worker stops on SIGTERM and when its parent is gone, and
leaves nothing half done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from ctrate_convert.deleting.gate import Release, release_sources
from ctrate_convert.deleting.outcome import Deletion
from ctrate_convert.errors import CtrateError, Interrupted, environment_problem
from ctrate_convert.running.parent import begin_work, parent_is_gone
from ctrate_convert.shards.readback import FileIdentity
from ctrate_convert.shards.shard import convert_shard
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, Planned, planned_shards
from ctrate_convert.store.locks import Hold, locked
from ctrate_convert.store.merger import merge_when_due
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.plan import Plan, PlannedShard

_REPORT_EVERY_S = 0.2


@dataclass(frozen=True)
class Advanced:
    """The array bytes read and samples finished since the last such message."""

    shard: int
    array_bytes: int
    samples: int


@dataclass(frozen=True)
class Written:
    """All samples of the shard are converted; fsync and re-read, which wait for storage, remain."""

    shard: int


@dataclass(frozen=True)
class ShardDone:
    """A shard is published and recorded; ``busy``: another process holds it and nothing was done.

    ``verified`` is the shard's file if this worker has just read it back from storage.
    """

    shard: int
    converted: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    source_bytes: int = 0
    output_bytes: int = 0
    max_rss_bytes: int = 0
    busy: bool = False
    fresh: bool = False
    verified: FileIdentity | None = None


@dataclass(frozen=True)
class SourcesReleased:
    """The sources of a published shard were let go or kept; ``busy`` as in `ShardDone`."""

    shard: int
    deletion: Deletion = field(default_factory=Deletion)
    max_rss_bytes: int = 0
    busy: bool = False


@dataclass(frozen=True)
class ShardFailed:
    """A shard could not be finished; nothing of it stays behind and no source was harmed."""

    shard: int
    error: CtrateError
    traceback: str


@dataclass(frozen=True)
class Order:
    """A worker's order: convert ``shard``, or with ``releasing`` let its sources go.

    ``consent`` names the consent under which they may go; None if they stay. ``patience_s`` is how
    long to wait for a shard that another process holds: a node that went down may leave its lock
    behind for a while. ``verified`` is the shard's file if this run has just read it. ``scratch``
    is the folder for scratch files; None for the output's. ``planned`` is what the plan says of the
    shard, of a plan that was read and checked; without it the worker reads the plans.
    """

    out: Path
    shard: int
    attempt: str
    consent: str | None = None
    patience_s: float = 0.0
    releasing: bool = False
    verified: FileIdentity | None = None
    scratch: Path | None = None
    planned: Planned | None = None

    def then_release(self, done: ShardDone) -> Order | None:
        """Return the order to let the converted shard's sources go; None if they stay."""
        # Without output, no sample was converted and no source may go.
        if self.releasing or self.consent is None or done.busy or not done.output_bytes:
            return None
        return dataclasses.replace(self, releasing=True, verified=done.verified)


class _Reporter:
    """The worker's link to its parent; it reports progress and raises `Interrupted` to stop."""

    def __init__(self, connection: Connection, shard: int) -> None:
        self._connection = connection
        self._shard = shard
        self._bytes = self._samples = 0
        self._last = 0.0
        self.stop_reason: str | None = None

    def __call__(self, array_bytes: int, samples: int) -> None:
        self.check_stop()
        self._bytes += array_bytes
        self._samples += samples
        if time.monotonic() - self._last >= _REPORT_EVERY_S:
            self.send()

    def send(self) -> None:
        """Send the parent the progress since the last message."""
        self._last = time.monotonic()
        self._send(Advanced(self._shard, self._bytes, self._samples))
        self._bytes = self._samples = 0

    def written(self) -> None:
        """Tell the parent that another shard may begin."""
        self._send(Written(self._shard))

    def _send(self, message: Advanced | Written) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise Interrupted(
                f"the process that started this worker cannot be told: {error.strerror}"
            ) from error

    def check_stop(self) -> None:
        """Raise `Interrupted` if the worker was told to stop; tell how far it came."""
        if self.stop_reason:
            self.send()
            raise Interrupted(self.stop_reason)

    def why_stop(self) -> str:
        """Return why no further source may go, or an empty string.

        This worker was told to stop, or its command is gone.
        """
        if self.stop_reason:
            return self.stop_reason
        gone = parent_is_gone(self._connection)
        return "the command that asked for it is gone" if gone else ""


def main(order: Order, connection: Connection) -> None:
    """Carry out ``order`` in a worker process and send messages; the last one says how it ended."""
    reporter = _Reporter(connection, order.shard)

    def stop(number: int, _: object) -> None:
        # Only noted here: `check_stop` raises it where nothing is half done.
        reporter.stop_reason = f"stopped by {signal.Signals(number).name}"

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the parent, which sends SIGTERM
    begin_work(Dataset(order.out))
    try:
        # A bug is not caught: its traceback goes to standard error, and the parent sees a worker
        # that died.
        message: ShardDone | SourcesReleased | ShardFailed = _carry_out(order, reporter)
    except CtrateError as error:
        message = ShardFailed(order.shard, error, traceback.format_exc())
    except OSError as error:
        doing = "letting go the sources of" if order.releasing else "converting"
        problem = environment_problem(error, f"{doing} shard {order.shard}")
        message = ShardFailed(order.shard, problem, traceback.format_exc())
    try:
        connection.send(message)
    except BrokenPipeError:
        pass  # nobody listens any more
    except OSError as error:  # sys.exit prints the text and exits with 1
        sys.exit(f"the worker of shard {order.shard} cannot tell how it ended: {error.strerror}")


def _carry_out(order: Order, reporter: _Reporter) -> ShardDone | SourcesReleased:
    dataset = Dataset(order.out)
    plan, shard = order.planned or planned_shards(load_plans(dataset))[order.shard]
    with _held(dataset, shard, order.patience_s, reporter) as mine:
        if order.releasing:
            deletion = _release(dataset, order, reporter) if mine else None
            return SourcesReleased(
                shard.index, deletion or Deletion(), max_rss_bytes=_max_rss_bytes(), busy=not mine
            )
        if not mine:
            return ShardDone(shard.index, busy=True)
        # A lock that excludes nobody does not tell whether another process is at this shard.
        lock_held = mine is Hold.HELD
        return _convert(dataset, plan, shard, order, reporter, lock_held=lock_held)


def _convert(
    dataset: Dataset,
    plan: Plan,
    shard: PlannedShard,
    order: Order,
    reporter: _Reporter,
    *,
    lock_held: bool,
) -> ShardDone:
    published = convert_shard(
        dataset,
        plan,
        shard,
        order.attempt,
        reporter,
        reporter.written,
        decode=order.consent is None,  # with a consent, the gate's process decodes it
        lock_held=lock_held,
        scratch=order.scratch,
    )
    reporter.send()
    record = published.record
    merge_when_due(dataset, record if published.fresh else None)
    return ShardDone(
        shard=shard.index,
        converted=len(record.converted),
        failed=tuple((sample.key, sample.reason) for sample in record.failed),
        source_bytes=record.source_bytes,
        output_bytes=record.tar.size_bytes if record.tar else 0,
        max_rss_bytes=_max_rss_bytes(),
        fresh=published.fresh,
        verified=published.verified,
    )


def _release(
    dataset: Dataset,
    order: Order,
    reporter: _Reporter,
) -> Deletion:
    one = Ledger(dataset, load_plans(dataset)).shard(order.shard)
    release = Release(
        dataset=dataset,
        plan=one.plan,
        shard=one.shard,
        record=one.record,
        consent_name=order.consent or "",
        superseded=one.superseded,
        verified=order.verified,
    )
    return release_sources(release, reporter.check_stop, reporter.why_stop, lambda: reporter(0, 1))


def _max_rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux reports KiB


@contextlib.contextmanager
def _held(
    dataset: Dataset, shard: PlannedShard, patience_s: float, reporter: _Reporter
) -> Iterator[Hold]:
    """Hold the shard's lock; yield `Hold.BUSY` if another process has it after ``patience_s``."""
    path = dataset.lock(f"shard-{shard.index:06d}")
    deadline = time.monotonic() + patience_s
    while True:
        reporter.check_stop()
        # Wait a second at a time, so that a request to stop is obeyed soon.
        with locked(path, timeout_s=min(1.0, patience_s)) as mine:
            if mine or time.monotonic() >= deadline:
                yield mine
                return
