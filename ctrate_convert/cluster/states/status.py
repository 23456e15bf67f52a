"""Status: every task with its state and evidence, and what all tasks add up to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ctrate_convert.cluster.scheduler.client import SlurmClient
from ctrate_convert.cluster.states.cluster_view import ClusterView, Looker, Task
from ctrate_convert.cluster.states.evidence import Cause, State
from ctrate_convert.deleting.consents import load_consents
from ctrate_convert.store.attempts import PastAttempt
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.manifest import MIB

_STRAGGLER = 2.0  # times the median of the finished tasks


@dataclass(frozen=True, slots=True)
class TaskLine:
    """One task as a row of the table.

    ``requested_bytes`` and ``time_limit_s`` are what its newest element asked for, to be compared
    with ``max_rss_bytes`` and ``elapsed_s``. ``cpu_share`` is CPU time over cores times wall clock.
    """

    task: int
    state: State
    evidence: str
    reason: str
    cause: Cause | None
    attempts: int
    job: str | None
    node: str | None
    elapsed_s: float | None
    max_rss_bytes: int | None
    requested_bytes: int | None
    time_limit_s: int | None
    cpu_share: float | None
    samples_done: int
    samples: int
    is_straggler: bool

    @property
    def memory_share(self) -> float | None:
        """Peak memory over requested memory."""
        if not self.max_rss_bytes or not self.requested_bytes:
            return None
        return self.max_rss_bytes / self.requested_bytes

    @property
    def time_share(self) -> float | None:
        """Elapsed time over the time limit."""
        if self.elapsed_s is None or not self.time_limit_s:
            return None
        return self.elapsed_s / self.time_limit_s


@dataclass(frozen=True)
class Status:
    """The state of everything at one moment. ``samples`` adds up to the plan."""

    lines: tuple[TaskLine, ...]
    samples: dict[str, int]
    freed_bytes: int
    source_bytes_per_s: float
    eta_s: float | None
    straggler_limit_s: float | None
    unavailable: tuple[str, ...]
    consents: tuple[Consent, ...]
    view: ClusterView

    def facts(self) -> dict[str, object]:
        """Return the status as ``--json`` prints it."""
        return {
            "samples": self.samples,
            "source_bytes_per_s": self.source_bytes_per_s,
            "eta_s": self.eta_s,
            "freed_bytes": self.freed_bytes,
            "planned": sum(self.samples.values()),
            "stuck": self.view.stuck,
            "failed_samples": [
                {"key": one.key, "source": one.source, "reason": one.reason}
                for one in self.view.failed_samples.values()
            ],
            "tasks": [
                {
                    "task": line.task,
                    "state": line.state,
                    "reason": line.reason,
                    "evidence": line.evidence,
                    "attempts": line.attempts,
                    "job": line.job,
                    "node": line.node,
                    "cause": line.cause,
                    "elapsed_s": line.elapsed_s,
                    "time_limit_s": line.time_limit_s,
                    "max_rss_bytes": line.max_rss_bytes,
                    "requested_bytes": line.requested_bytes,
                    "cpu_share": line.cpu_share,
                    "is_straggler": line.is_straggler,
                }
                for line in self.lines
            ],
            "unavailable": list(self.unavailable),
            "consents": self.consents,
            # Only where there ever was any: the other keys are those that every dataset has.
            **({"other_work": self.view.other_work} if self.view.other_work else {}),
        }

    @property
    def is_at_rest(self) -> bool:
        """True if it is known that nothing is going to change by itself."""
        view = self.view
        moves = any(task.is_moving for task in view.tasks)
        return view.queue_asked and not moves and not any(one.is_moving for one in view.other_work)


class StatusReader:
    """A reader that takes the status again and again, with one squeue and one sacct each time."""

    def __init__(self, dataset: Dataset, client: SlurmClient | None = None) -> None:
        self._looker = Looker(dataset, client or SlurmClient())

    def read(self) -> Status:
        """Return the status as it is now."""
        return status_of(self._looker.look())


def status_of(view: ClusterView) -> Status:
    """Return what the view adds up to, in numbers."""
    finished = [
        seconds
        for task in view.tasks
        if task.verdict.state == "done" and (seconds := _elapsed_s(task, view.taken_at))
    ]
    limit = _STRAGGLER * statistics.median(finished) if finished else None
    running = [
        task.attempts[-1]
        for task in view.tasks
        if task.verdict.state == "running" and task.attempts and task.attempts[-1].end is None
    ]
    by_attempt = {attempt.start.attempt: attempt for attempt in running}
    speed = sum(_speed(attempt) for attempt in by_attempt.values())
    left = sum(
        shard.source_bytes
        for task in view.tasks
        if task.verdict.state != "done"
        for shard in task.shards
    ) - sum(a.progress.source_bytes_done for a in by_attempt.values() if a.progress)
    return Status(
        lines=tuple(_line(task, view.taken_at, limit) for task in view.tasks),
        samples=view.samples,
        freed_bytes=sum(a.progress.freed_bytes for a in view.attempts if a.progress),
        source_bytes_per_s=speed,
        eta_s=max(0, left) / speed if speed else None,
        straggler_limit_s=limit,
        unavailable=tuple(map(str, view.unavailable)),
        consents=tuple(load_consents(view.dataset)),
        view=view,
    )


def _line(task: Task, now: datetime, limit: float | None) -> TaskLine:
    last = task.attempts[-1] if task.attempts else None
    elapsed_s = _elapsed_s(task, now)
    rss = task.account.max_rss_bytes if task.account else 0
    if last is not None and last.end is not None:
        rss = max(rss, last.end.max_rss_bytes)
    samples = sum(shard.samples for shard in task.shards)
    state = task.verdict.state
    done = samples if state == "done" else task.samples_recorded
    note = last.progress if last is not None and state == "running" else None
    if last is not None and note is not None and len(last.start.tasks) == 1:
        # An attempt counts only the samples that were left when it began.
        done = min(samples, max(done, samples - note.samples_total + note.samples_done))
    resources = task.element.resources if task.element else None
    paused = "; paused: too little space is free at the output" if note and note.paused else ""
    return TaskLine(
        task=task.number,
        state=state,
        evidence=task.verdict.evidence,
        reason=task.verdict.reason + paused,
        cause=task.verdict.cause if state == "failed" else None,
        attempts=len(task.attempts),
        job=task.job,
        node=task.node,
        elapsed_s=elapsed_s,
        max_rss_bytes=rss or None,
        requested_bytes=resources.mem_mb * MIB if resources else None,
        time_limit_s=resources.timeout_min * 60 if resources else None,
        cpu_share=_cpu_share(task),
        samples_done=done,
        samples=samples,
        is_straggler=(
            state == "running" and limit is not None and elapsed_s is not None and elapsed_s > limit
        ),
    )


def _cpu_share(task: Task) -> float | None:
    account = task.account
    if account is None or not (account.cpu_s and account.cpus and account.elapsed_s):
        return None
    return round(account.cpu_s / (account.cpus * account.elapsed_s), 3)


def _elapsed_s(task: Task, now: datetime) -> float | None:
    last = task.attempts[-1] if task.attempts else None
    if task.live is not None:
        started = task.live.started
        return (now - started).total_seconds() if started and not task.live.waiting else None
    if last is not None and last.end is not None:
        return last.end.elapsed_s
    if task.account is not None:
        return float(task.account.elapsed_s)
    if last is not None and task.verdict.state == "running":
        return (now - last.started_at).total_seconds()
    return None


def _speed(attempt: PastAttempt) -> float:
    """Return NPZ bytes a second, from the attempt's own progress note."""
    note = attempt.progress
    if note is None:
        return 0.0
    elapsed_s = (datetime.fromisoformat(note.time) - attempt.started_at).total_seconds()
    # Shards that are not whole yet count by their samples.
    part = note.samples_done / note.samples_total if note.samples_total else 0.0
    return part * note.source_bytes_total / elapsed_s if elapsed_s >= 1 else 0.0


def fold(lines: Sequence[TaskLine]) -> list[tuple[str, TaskLine, int]]:
    """Fold neighbouring tasks in the same state for the same reason into one row, as ``0-12``.

    Each row has the range, its first task, and how many there are. Running tasks stay one by one.
    """
    folded: list[tuple[int, int, TaskLine]] = []
    for line in lines:
        if folded:
            first, last, of = folded[-1]
            same = (line.state, line.evidence, line.reason) == (of.state, of.evidence, of.reason)
            if same and line.task == last + 1 and line.state != "running":
                folded[-1] = (first, line.task, of)
                continue
        folded.append((line.task, line.task, line))
    return [
        (str(first) if first == last else f"{first}-{last}", of, last - first + 1)
        for first, last, of in folded
    ]


def fold_numbers(numbers: Sequence[int]) -> str:
    """Return the numbers with their ranges folded, as ``0-12,15``, for people."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
