"""Submissions on disk: the intent before sbatch, the answer after it; nothing is overwritten.

``.run/submissions/0001/`` holds

- ``intent.json``: the arrays that are going to be submitted, and their unique names. The folder
  appears whole or not at all, under the next free number: if two commands submit at the same time,
  one gets the number and the other looks again.
- ``array-00.json``: the answer for each array: its job id, or that it never came to be.
- ``cancel-0001.json``: the tasks that a person cancelled.
- ``report.json``: the report of the finaliser.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ctrate_convert.cluster.scheduler.profile import cluster_names
from ctrate_convert.store.durable import create_once, make_directories, publish_directory
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.base import Record, read

INTENT_FILE = "intent.json"
REPORT_FILE = "report.json"

FoundBy = Literal["sbatch", "squeue", "sacct", "attempt", "nobody"]


ArrayKind = Literal["convert", "delete", "check", "finalise"]


class Resources(Record):
    """The resources that every element of an array asks for."""

    timeout_min: int
    mem_mb: int
    cpus_per_task: int
    exclude: tuple[str, ...] = ()

    def words(self) -> str:
        """Return the resources in one line, for tables."""
        text = f"{self.timeout_min} min, {self.mem_mb} MB, {self.cpus_per_task} CPU"
        return text + (f", not on {','.join(self.exclude)}" if self.exclude else "")


class ArrayIntent(Record):
    """An array to submit: element *i* converts ``tasks[i]``. The finaliser has no tasks.

    ``parallelism`` is the array's share of what may run at once, since Slurm's own limit is per
    array. ``consent`` names the consent under which the elements delete sources; if empty, they
    delete none. Of other kinds, elements only ``delete``, or do what ``check`` has left of a task.
    """

    job_name: str
    kind: ArrayKind
    tasks: tuple[int, ...]
    resources: Resources
    parallelism: int
    why: str
    consent: str = ""
    check: int = 0


class Submission(Record):
    """``intent.json``: everything that one command was about to submit.

    With ``max_attempts`` the finaliser goes on until all is done: it relaunches what failed for
    want of memory, time or a sound node, until a task was submitted so often.
    """

    schema_number: Literal[1] = 1
    number: int
    created: str
    command: str
    user: str
    host: str
    pid: int
    pid_started: str
    program_version: str
    plans: tuple[str, ...]
    profile: dict[str, Any]
    arrays: tuple[ArrayIntent, ...]
    max_attempts: int = 0

    @property
    def tasks(self) -> tuple[int, ...]:
        """The tasks of all arrays."""
        return tuple(task for array in self.arrays for task in array.tasks)

    @property
    def converts(self) -> bool:
        """True unless it verifies, audits or only deletes."""
        return any(array.kind == "convert" for array in self.arrays) or not self.arrays

    @property
    def clusters(self) -> tuple[str, ...]:
        """The clusters that its jobs went to; an empty name for the one that Slurm took."""
        return cluster_names(self.profile.get("additional_parameters", {}))

    @property
    def created_at(self) -> datetime:
        """The time at which the intent was written."""
        return datetime.fromisoformat(self.created)


class ArrayAnswer(Record):
    """``array-00.json``: the answer of Slurm for one array.

    ``job_id`` is None if the array never came to be; ``words`` say why.
    """

    schema_number: Literal[1] = 1
    job_name: str
    job_id: str | None
    found_by: FoundBy
    time: str
    words: str = ""


class Cancel(Record):
    """``cancel-0001.json``: the tasks of this submission that a person cancelled."""

    schema_number: Literal[1] = 1
    time: str
    user: str
    tasks: tuple[int, ...]
    jobs: tuple[str, ...]


class FinalReport(Record):
    """``report.json``: what the finaliser merged and verified after all arrays had ended.

    ``relaunched`` are the tasks that it submitted again, ``for_a_person`` a line on each that it
    did not; both are empty unless it was asked to go on.
    """

    schema_number: Literal[1] = 1
    time: str
    samples: dict[str, int]
    tasks: dict[str, int]
    not_done: tuple[str, ...]
    shards_checked: int
    samples_checked: int
    damage: tuple[str, ...]
    unavailable: tuple[str, ...]
    relaunched: tuple[int, ...] = ()
    for_a_person: tuple[str, ...] = ()


class SubmissionFiles:
    """The files of one submission."""

    def __init__(self, dataset: Dataset, submission: Submission) -> None:
        self._dataset = dataset
        self.submission = submission
        self.folder = folder_of(dataset, submission.number)

    @property
    def out(self) -> Path:
        """The dataset directory, as the absolute path that the nodes are told."""
        return self._dataset.out.absolute()

    def logs(self, array: int) -> Path:
        """Return the folder in which submitit keeps an array's job script, payloads and logs."""
        return Dataset(self.out).logs / self.folder.name / f"{array:02d}"

    def script(self, array: int) -> Path:
        """Return the path of an array's job script."""
        return self.logs(array) / "submission.sh"

    def log(self, array: int, job_id: str, index: int) -> Path:
        """Return the path of one element's log, which all runs of the element share."""
        return self.logs(array) / f"{job_id}_{index}_0_log.out"

    def answer(self, array: int) -> ArrayAnswer | None:
        """Read the answer for one array; return None while nobody knows it."""
        with contextlib.suppress(FileNotFoundError):
            return read(ArrayAnswer, self._answer_path(array))
        return None

    def make_answer(
        self, array: int, *, job_id: str | None, found_by: FoundBy, words: str = ""
    ) -> ArrayAnswer:
        """Return an answer for one array, as of now, without writing it down."""
        return ArrayAnswer(
            job_name=self.submission.arrays[array].job_name,
            job_id=job_id,
            found_by=found_by,
            time=now_text(),
            words=words,
        )

    def write_answer(
        self, array: int, *, job_id: str | None, found_by: FoundBy, words: str = ""
    ) -> ArrayAnswer:
        """Write down the answer for one array, unless there is one; return the one that holds."""
        mine = self.make_answer(array, job_id=job_id, found_by=found_by, words=words)
        if create_once(self._answer_path(array), mine.to_pretty_json()):
            return mine
        return self.answer(array) or mine

    def _answer_path(self, array: int) -> Path:
        return self.folder / f"array-{array:02d}.json"

    def cancels(self) -> tuple[Cancel, ...]:
        """Read every cancellation of tasks of this submission."""
        return tuple(read(Cancel, path) for path in sorted(self.folder.glob("cancel-*.json")))

    def write_cancel(self, tasks: Sequence[int], jobs: Sequence[str]) -> None:
        """Write down that these tasks are cancelled, before Slurm is told."""
        cancel = Cancel(
            time=now_text(), user=user_name(), tasks=tuple(sorted(tasks)), jobs=tuple(jobs)
        )
        number = 1
        while not create_once(self.folder / f"cancel-{number:04d}.json", cancel.to_pretty_json()):
            number += 1

    def report(self) -> FinalReport | None:
        """Read the finaliser's report; return None if it has not run."""
        with contextlib.suppress(FileNotFoundError):
            return read(FinalReport, self.folder / REPORT_FILE)
        return None

    def write_report(self, report: FinalReport) -> None:
        """Write the finaliser's report; a requeued finaliser's second one is dropped."""
        create_once(self.folder / REPORT_FILE, report.to_pretty_json())


def folder_of(dataset: Dataset, number: int) -> Path:
    """Return the folder of one submission."""
    return dataset.submissions / f"{number:04d}"


def load_submissions(dataset: Dataset) -> list[SubmissionFiles]:
    """Return all submissions, oldest first.

    Raises:
        DamageError: an intent cannot be read.
    """
    if not dataset.submissions.is_dir():
        return []
    numbers = sorted(int(p.name) for p in dataset.submissions.iterdir() if p.name.isdigit())
    return [
        SubmissionFiles(dataset, read(Submission, folder_of(dataset, number) / INTENT_FILE))
        for number in numbers
    ]


def clusters_of(submissions: Sequence[SubmissionFiles]) -> tuple[str, ...]:
    """Return all clusters that the submissions went to; an empty name for Slurm's own choice."""
    return tuple(sorted({name for one in submissions for name in one.submission.clusters}))


def publish(dataset: Dataset, submission: Submission) -> SubmissionFiles | None:
    """Write the intent under its number; return None if another submission has taken it."""
    make_directories(dataset.submissions)
    files = {INTENT_FILE: submission.to_pretty_json()}
    if not publish_directory(files, folder_of(dataset, submission.number)):
        return None
    return SubmissionFiles(dataset, submission)


def new_token() -> str:
    """Return a random token that makes job names unique."""
    return secrets.token_hex(4)


def job_name(token: str, number: int, array: int) -> str:
    """Return a name that no other job has, by which a lost answer of sbatch can be found."""
    return f"ctrate-{token}-{number:04d}-{array:02d}"


def now_text() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def user_name() -> str:
    """Return the user's name, or the user's number if there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def process_start(pid: int) -> str:
    """Return when process ``pid`` was started, in a form that no other process ever has.

    It is empty if there is no such process.
    """
    try:
        # Field 22 is the start in ticks since the boot; only field 2, the name, may contain blanks.
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return f"{boot}:{ticks}"


def is_being_submitted(files: SubmissionFiles, array: int) -> bool | None:
    """Return True if the intent's writer or its sbatch still lives; None if that is unknown."""
    submission = files.submission
    if submission.host != socket.gethostname():
        return None
    if process_start(submission.pid) == submission.pid_started != "":
        return True
    # A killed command may have left behind an sbatch that is about to submit.
    script = os.fsencode(files.script(array))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if script in (entry / "cmdline").read_bytes().split(b"\0"):
                    return True
    return False
