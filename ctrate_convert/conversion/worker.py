"""One shard in a process of its own: convert, publish, record, merge, delete behind the gate.

A worker that is killed costs its shard and nothing else. It stops, leaving nothing half done,
on SIGTERM and when its parent is gone.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from ctrate_convert.conversion.deletion import Deletion, delete_sources
from ctrate_convert.conversion.manifest import merge, planned_shards
from ctrate_convert.conversion.plans import load_plans
from ctrate_convert.conversion.readback import ReadShard, read_shard
from ctrate_convert.conversion.shard import PublishedShard, convert_shard
from ctrate_convert.errors import CtrateError, DamageError, Interrupted, environment_problem
from ctrate_convert.locks import Hold, locked
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.plan import Plan, PlannedShard

_REPORT_EVERY_S = 0.2


@dataclass(frozen=True)
class Advanced:
    """Array bytes read and samples finished since the last such message."""

    shard: int
    array_bytes: int
    samples: int


@dataclass(frozen=True)
class Written:
    """All samples of the shard are converted; what is left is storage's: fsync and re-read."""

    shard: int


@dataclass(frozen=True)
class ShardDone:
    """A shard is published and recorded; ``busy``: another process is at it, nothing was done."""

    shard: int
    converted: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    source_bytes: int = 0
    output_bytes: int = 0
    deletion: Deletion = field(default_factory=Deletion)
    max_rss_bytes: int = 0
    busy: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class ShardFailed:
    """A shard could not be finished; nothing of it stays behind and no source was harmed."""

    shard: int
    error: CtrateError
    traceback: str


@dataclass(frozen=True)
class Order:
    """What a worker is to do.

    ``authorised_by`` is None where no source may be deleted; ``trash`` is where sources are moved
    instead. ``patience_s`` is how long to wait for a shard that another process holds: a node that
    went down may leave its lock behind for a while.
    """

    out: Path
    shard: int
    attempt: str
    authorised_by: str | None
    patience_s: float = 0.0
    trash: Path | None = None


class _Reporter:
    """Tells the parent how far it is; raises `Interrupted` when it is time to stop."""

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
        """Tell the parent what it does not know yet."""
        self._last = time.monotonic()
        self._send(Advanced(self._shard, self._bytes, self._samples))
        self._bytes = self._samples = 0

    def written(self) -> None:
        """Tell the parent that another shard may be begun."""
        self._send(Written(self._shard))

    def _send(self, message: Advanced | Written) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise Interrupted(
                f"the process that started this worker cannot be told: {error.strerror}"
            ) from error

    def check_stop(self) -> None:
        if self.stop_reason:
            raise Interrupted(self.stop_reason)


def main(order: Order, connection: Connection) -> None:
    """The worker process: carries out ``order`` and sends messages, the last one how it ended."""
    reporter = _Reporter(connection, order.shard)

    def stop(number: int, _: object) -> None:
        reporter.stop_reason = f"stopped by {signal.Signals(number).name}"

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the parent, which tells us
    try:
        message: ShardDone | ShardFailed = _carry_out(order, reporter)
    except CtrateError as error:
        message = ShardFailed(order.shard, error, traceback.format_exc())
    except OSError as error:
        problem = environment_problem(error, f"converting shard {order.shard}")
        message = ShardFailed(order.shard, problem, traceback.format_exc())
    try:
        connection.send(message)
    except BrokenPipeError:
        pass  # nobody listens any more
    except OSError as error:  # a process that ends with a text prints it and has exit code 1
        sys.exit(f"the worker of shard {order.shard} cannot tell how it ended: {error.strerror}")


def _carry_out(order: Order, reporter: _Reporter) -> ShardDone:
    dataset = Dataset(order.out)
    plans = load_plans(dataset)
    plan, shard = planned_shards(plans)[order.shard]
    with _held(dataset, shard, order.patience_s, reporter) as mine:
        if not mine:
            return ShardDone(shard.index, busy=True)
        published = convert_shard(
            dataset,
            plan,
            shard,
            order.attempt,
            reporter,
            reporter.written,
            lock_held=mine is Hold.HELD,
        )
        reporter.send()
        record = published.record
        manifest = merge(dataset, plans, anew=[record] if published.fresh else [])
        deletion = Deletion()
        if order.authorised_by and record.tar:
            read_back = published.read_back or _read_again(dataset, plan, shard, published)
            deletion = delete_sources(
                dataset,
                plan,
                shard,
                record,
                read_back,
                manifest,
                order.authorised_by,
                reporter.check_stop,
                trash=order.trash,
            )
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return ShardDone(
        shard=shard.index,
        converted=len(record.converted),
        failed=tuple((sample.key, sample.reason) for sample in record.failed),
        source_bytes=record.source_bytes,
        output_bytes=record.tar.size_bytes if record.tar else 0,
        deletion=deletion,
        max_rss_bytes=usage.ru_maxrss * 1024,
        fresh=published.fresh,
    )


@contextlib.contextmanager
def _held(
    dataset: Dataset, shard: PlannedShard, patience_s: float, reporter: _Reporter
) -> Iterator[Hold]:
    """Hold the shard's lock; yields `Hold.BUSY` where another has it after ``patience_s``."""
    path = dataset.lock(f"shard-{shard.index:06d}")
    deadline = time.monotonic() + patience_s
    while True:
        reporter.check_stop()
        with locked(path, timeout_s=min(1.0, patience_s)) as mine:
            if mine or time.monotonic() >= deadline:
                yield mine
                return


def _read_again(
    dataset: Dataset, plan: Plan, shard: PlannedShard, published: PublishedShard
) -> ReadShard:
    """Read a shard of an earlier attempt from storage, to prove it anew."""
    path = dataset.shard(shard.index)
    try:
        read_back = read_shard(path, published.record.converted, plan.settings.layout)
    except OSError as error:
        raise DamageError(f"a recorded shard cannot be read: {error}", where=path) from error
    read_back.require_sound()
    recorded = published.record.tar
    if recorded is None or read_back.sha256 != recorded.sha256:
        raise DamageError(
            "a recorded shard has changed outside every member",
            where=path,
            seen=f"SHA-256 {read_back.sha256[:16]}…",
            expected=f"{recorded.sha256[:16]}…" if recorded else "no shard",
        )
    return read_back
