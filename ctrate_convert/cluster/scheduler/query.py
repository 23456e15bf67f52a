"""Parse what squeue and sacct print into typed rows; times are in UTC.

The functions are pure: text in, rows out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

QUEUE_FIELDS = (
    "ArrayJobID",
    "ArrayTaskID",
    "JobID",
    "Name",
    "State",
    "Reason",
    "NodeList",
    "SubmitTime",
    "StartTime",
    "RestartCnt",
    "Command",
)
# A suffix without a width keeps squeue from padding or cutting the field.
QUEUE_FORMAT = ",".join(f"{name}:|" for name in QUEUE_FIELDS)

ACCOUNT_FIELDS = (
    "JobID",
    "JobName",
    "State",
    "ExitCode",
    "Submit",
    "Start",
    "End",
    "ElapsedRaw",
    "NodeList",
    "MaxRSS",
    "ReqMem",
    "DBIndex",
    "TotalCPU",
    "AllocCPUS",
)
ACCOUNT_FORMAT = ",".join(ACCOUNT_FIELDS)

# States in which an element has certainly ended. Any other state, made up in a later version of
# Slurm perhaps, is live: taking a live element for ended would run its task twice.
ENDED = frozenset(
    {
        "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
        "PREEMPTED", "TIMEOUT",
    }
)  # fmt: skip
UNSUCCESSFUL = ENDED - {"COMPLETED"}
# States of an element that is going to run, and does not yet.
WAITING = frozenset({"EXPEDITING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD",
                     "RESV_DEL_HOLD", "SPECIAL_EXIT"})  # fmt: skip
REVOKED = "REVOKED"
"""A sibling of the element runs on another cluster of a federation, which is not asked."""
OUT_OF_MEMORY = "OUT_OF_MEMORY"

JobKey = tuple[str, int]
"""An array's job id and the index of an element.

The raw id of an element never stands for it, since the last element of an array keeps the array's
own.
"""

_INDEX_SET = re.compile(r"\[([0-9,:\-]+)(?:%\d+)?\]")
_MEMORY = re.compile(r"([0-9.]+)([KMGTP]?)[nc]?")
_MEMORY_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One array element as the controller knows it now."""

    key: JobKey
    name: str
    state: str
    reason: str
    node: str
    submitted: datetime | None
    started: datetime | None
    restarts: int
    command: str

    @property
    def live(self) -> bool:
        """True unless the element has certainly ended."""
        return self.state not in ENDED

    @property
    def waiting(self) -> bool:
        """True if the element is going to run, and does not yet."""
        return self.state in WAITING


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One run of an array element in accounting: a requeued element has several.

    ``out_of_memory`` follows from the steps, since the job itself often says FAILED.
    ``cancelled_by`` is the number of the user who cancelled it, if sacct tells. ``cpu_s`` is the
    CPU time of all ``cpus``; Slurm tells it when the run has ended, and 0 before.
    """

    key: JobKey
    name: str
    state: str
    exit_code: str
    submitted: datetime | None
    started: datetime | None
    ended: datetime | None
    elapsed_s: int
    node: str
    max_rss_bytes: int
    out_of_memory: bool
    cancelled_by: int | None = None
    requested_bytes: int = 0
    cpu_s: float = 0.0
    cpus: int = 0


def parse_squeue(text: str) -> list[QueueRow]:
    """Parse ``squeue -h -r -O QUEUE_FORMAT``; skip lines of another shape."""
    rows = []
    for line in text.splitlines():
        cells = line.split("|", len(QUEUE_FIELDS) - 1)
        if len(cells) != len(QUEUE_FIELDS):
            continue
        array, index, job, name, state, reason, node, submitted, started, restarts, command = cells
        for number in _indices(index):
            rows.append(
                QueueRow(
                    key=(array if array.isdigit() else job, number),
                    name=name,
                    state=state,
                    reason="" if reason == "None" else reason,
                    node=node,
                    submitted=_time(submitted),
                    started=_time(started),
                    restarts=int(restarts) if restarts.isdigit() else 0,
                    command=command.removesuffix("|"),
                )
            )
    return rows


def parse_sacct(text: str) -> list[AccountRow]:
    """Parse ``sacct -n -D --parsable2 -o ACCOUNT_FORMAT``; fold steps into their job.

    The rows are in the order of submission, so that the newest run of a requeued element comes
    last.
    """
    lines = text.splitlines()
    # Of a step only what counts: with two or three a job, their rows would take most memory.
    steps: dict[tuple[str, str], _Steps] = {}
    for row in _account_cells(lines):
        job, dot, _ = row["JobID"].partition(".")
        if dot:
            key = (job, row["DBIndex"])
            steps[key] = steps.get(key, _NO_STEPS).with_one(row)
    rows = [
        parsed
        for row in _account_cells(lines)
        if "." not in row["JobID"]
        for parsed in _account_rows(row, steps.get((row["JobID"], row["DBIndex"]), _NO_STEPS))
    ]
    long_ago = datetime.min.replace(tzinfo=UTC)
    return sorted(rows, key=lambda row: (row.key, row.submitted or long_ago))


class _Steps(NamedTuple):
    """What counts of a job's steps."""

    max_rss_bytes: int
    out_of_memory: bool

    def with_one(self, row: dict[str, str]) -> _Steps:
        return _Steps(
            max(self.max_rss_bytes, memory_bytes(row["MaxRSS"])),
            self.out_of_memory or row["State"].split(" ")[0] == OUT_OF_MEMORY,
        )


_NO_STEPS = _Steps(0, False)


def _account_cells(lines: Sequence[str]) -> Iterator[dict[str, str]]:
    for line in lines:
        cells = line.split("|")
        if len(cells) == len(ACCOUNT_FIELDS):
            yield dict(zip(ACCOUNT_FIELDS, cells, strict=True))


def _account_rows(row: dict[str, str], steps: _Steps) -> Iterator[AccountRow]:
    array, _, index = row["JobID"].partition("_")
    # sacct may add words to a state, as in CANCELLED by 1000.
    state, _, words = row["State"].partition(" ")
    user = words.removeprefix("by ")
    requested = memory_bytes(row["ReqMem"])
    # If Slurm watches memory only by polling, no state says OUT_OF_MEMORY; the numbers do.
    outgrown = state in UNSUCCESSFUL and 0 < requested < steps.max_rss_bytes
    for place in _indices(index):
        yield AccountRow(
            key=(array, place),
            name=row["JobName"],
            state=state,
            exit_code=row["ExitCode"],
            submitted=_time(row["Submit"]),
            started=_time(row["Start"]),
            ended=_time(row["End"]),
            elapsed_s=int(row["ElapsedRaw"]) if row["ElapsedRaw"].isdigit() else 0,
            node="" if row["NodeList"] == "None assigned" else row["NodeList"],
            max_rss_bytes=steps.max_rss_bytes,
            out_of_memory=state == OUT_OF_MEMORY or steps.out_of_memory or outgrown,
            cancelled_by=int(user) if user.isdigit() else None,
            requested_bytes=requested,
            cpu_s=seconds(row["TotalCPU"]),
            cpus=number(row["AllocCPUS"]) or 0,
        )


def _indices(text: str) -> Iterator[int]:
    """Yield the indices in ``7`` or ``[0-2,9-15:2%5]``; none if it is no array element."""
    if text.isdigit():
        yield int(text)
        return
    match = _INDEX_SET.fullmatch(text)
    for part in match[1].split(",") if match else ():
        numbers, _, step = part.partition(":")
        first, _, last = numbers.partition("-")
        yield from range(int(first), int(last or first) + 1, int(step or 1))


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return None  # Unknown, N/A, None


def memory_bytes(text: str) -> int:
    """Return the bytes of ``11964K``, ``200M``, or ``200Mn`` of older versions; else 0."""
    match = _MEMORY.fullmatch(text)
    return int(float(match[1]) * _MEMORY_UNITS[match[2]]) if match else 0


def seconds(text: str) -> float:
    """Return a CPU time (``1-02:03:04``, ``02:03:04``, ``03:04.567``) in seconds; else 0."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)", text)
    if match is None:
        return 0.0
    days, hours, mins = (int(part or 0) for part in match.groups()[:3])
    return ((days * 24 + hours) * 60 + mins) * 60 + float(match[4])


def minutes(text: str) -> int | None:
    """Return a Slurm time limit (``1-00:00:00``) in whole minutes; None for UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, mins, seconds = (int(part or 0) for part in match.groups())
    return days * 1440 + hours * 60 + mins + seconds // 60


def number(text: str) -> int | None:
    """Return a limit that is set; None for UNLIMITED, an empty cell and the like."""
    return int(text) if text.isdigit() else None
