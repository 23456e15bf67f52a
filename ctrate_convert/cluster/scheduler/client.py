"""Run Slurm's commands; no other module does.

A question that got no answer is a value, not an exception.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ctrate_convert.cluster.scheduler.query import (
    ACCOUNT_FORMAT,
    QUEUE_FORMAT,
    AccountRow,
    QueueRow,
    parse_sacct,
    parse_squeue,
)
from ctrate_convert.errors import EnvironmentProblem

_log = logging.getLogger(__name__)

TIMEOUT_S = 60.0

# These variables, set by a person for their own use or by the job around this command, would change
# what the commands print or override what the job script says.
_DROPPED = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SRUN_")
_KEPT = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_CONF_SERVER"})
_KEPT_FOR_SBATCH = frozenset({"SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS"})

# sbatch prints these if it lost a request that the controller may have accepted all the same.
_UNCLEAR = re.compile(r"timed out|timeout|Zero Bytes|Transport|Connection reset", re.IGNORECASE)
_JOB_ID = re.compile(r"\b(?:job )?(\d+)\b")


@dataclass(frozen=True)
class Unavailable:
    """A question that Slurm did not answer, and why."""

    tool: str
    why: str

    def __str__(self) -> str:
        return f"{self.tool}: {self.why}"


class SubmissionUnclear(EnvironmentProblem):
    """An sbatch without an answer: Slurm may have accepted the job all the same."""


class SubmissionRejected(EnvironmentProblem):
    """A submission that Slurm refused: nothing was submitted."""


class SlurmClient:
    """A client for squeue, sacct, sbatch, scontrol, sacctmgr and scancel, with a time limit each.

    ``calls`` counts the calls by command: a refresh is one squeue and one sacct.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self.calls: dict[str, int] = {}

    def squeue(self, names: Iterable[str]) -> list[QueueRow] | Unavailable:
        """Return all elements of the arrays with these names that the controller still knows."""
        wanted = sorted(set(names))
        if not wanted:
            return []
        text = self._ask(
            "squeue", "-h", "-r", "-t", "all", f"--name={','.join(wanted)}", "-O", QUEUE_FORMAT
        )
        return text if isinstance(text, Unavailable) else parse_squeue(text)

    def sacct(
        self, *, job_ids: Iterable[str] = (), names: Iterable[str] = (), since: datetime
    ) -> list[AccountRow] | Unavailable:
        """Return all runs since then, requeued ones too, of the jobs with these ids or names."""
        ids, wanted = sorted(set(job_ids)), sorted(set(names))
        which = f"--name={','.join(wanted)}" if wanted else f"--jobs={','.join(ids)}"
        if not (ids or wanted):
            return []
        text = self._ask(
            "sacct",
            "--noheader",
            "--duplicates",
            "--parsable2",
            "--allusers",
            f"--starttime={since.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S}",
            which,
            f"--format={ACCOUNT_FORMAT}",
        )
        return text if isinstance(text, Unavailable) else parse_sacct(text)

    def config(self) -> dict[str, str] | Unavailable:
        """Return ``scontrol show config`` as a dictionary."""
        text = self._ask("scontrol", "show", "config")
        if isinstance(text, Unavailable):
            return text
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
        return {name.strip(): value.strip() for name, _, value in pairs}

    def partitions(self) -> list[dict[str, str]] | Unavailable:
        """Return ``scontrol show partition`` as one dictionary for each partition."""
        text = self._ask("scontrol", "-o", "show", "partition")
        if isinstance(text, Unavailable):
            return text
        return [
            dict(word.split("=", 1) for word in line.split() if "=" in word)
            for line in text.splitlines()
            if line.startswith("PartitionName=")
        ]

    def submit_limits(self, user: str) -> list[dict[str, str]] | Unavailable:
        """Return the user's associations with their limits on submitted jobs."""
        fields = ("Account", "Partition", "QOS", "MaxSubmit", "GrpSubmit")
        text = self._ask(
            "sacctmgr", "-nP", "show", "assoc", "where", f"user={user}",
            f"format={','.join(fields)}",
        )  # fmt: skip
        if isinstance(text, Unavailable):
            return text
        return [dict(zip(fields, line.split("|"), strict=False)) for line in text.splitlines()]

    def qos_limits(self) -> list[dict[str, str]] | Unavailable:
        """Return every quality of service with its limits on submitted jobs."""
        fields = ("Name", "MaxSubmitJobsPerUser", "GrpSubmitJobs")
        text = self._ask("sacctmgr", "-nP", "show", "qos", f"format={','.join(fields)}")
        if isinstance(text, Unavailable):
            return text
        return [dict(zip(fields, line.split("|"), strict=False)) for line in text.splitlines()]

    def jobs_of(self, user: str) -> int | Unavailable:
        """Return how many jobs the user has in the queue, every array element counted."""
        text = self._ask("squeue", "-h", "-r", f"--user={user}", "-o", "%i")
        return text if isinstance(text, Unavailable) else len(text.splitlines())

    def time_left_s(self, job_id: str) -> int | None:
        """Return the seconds until the job's time limit; None if that cannot be told."""
        text = self._ask("squeue", "-h", "-j", job_id, "-O", "TimeLeft:|")
        if isinstance(text, Unavailable):
            return None
        match = re.match(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)\|", text.strip())
        if match is None:
            return None
        days, hours, mins, seconds = (int(part or 0) for part in match.groups())
        return ((days * 24 + hours) * 60 + mins) * 60 + seconds

    def sbatch(self, script: Path, keep: Iterable[str] = ()) -> str:
        """Submit ``script`` and return the job's id; ``keep`` names SBATCH_* variables to heed.

        Raises:
            SubmissionRejected: the scheduler refused it.
            SubmissionUnclear: there was no answer, so it may have accepted it.
        """
        command = ["sbatch", "--parsable", str(script)]
        again = "ctrate-convert status OUT asks the scheduler what became of it"
        try:
            done = self._run(command, _sbatch_environment(os.environ, frozenset(keep)))
        except subprocess.TimeoutExpired as error:
            raise SubmissionUnclear(
                "sbatch gave no answer in time", where=script, next_command=again
            ) from error
        except OSError as error:
            raise SubmissionRejected(
                f"sbatch cannot be run: {error.strerror}", next_command=_NEEDS_SLURM
            ) from error
        words = (done.stderr or done.stdout).strip()
        match = _JOB_ID.match(done.stdout.strip())
        if done.returncode == 0 and match:
            return match[1]
        if done.returncode == 0 or _UNCLEAR.search(words):
            raise SubmissionUnclear(
                f"sbatch gave no clear answer: {words}", where=script, next_command=again
            )
        raise SubmissionRejected(f"the scheduler refused the job: {words}", where=script)

    def scancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs, or array elements (``123_4``).

        Raises:
            EnvironmentProblem: the scheduler could not be told.
        """
        # In parts, since the length of a command line is limited.
        for first in range(0, len(jobs), 500):
            answer = self._ask("scancel", *jobs[first : first + 500])
            if isinstance(answer, Unavailable):
                raise EnvironmentProblem(
                    f"the jobs could not be cancelled: {answer}",
                    next_command="give the same command again once Slurm answers",
                )

    def _ask(self, *command: str) -> str | Unavailable:
        try:
            done = self._run(command, _asking_environment(os.environ))
        except subprocess.TimeoutExpired:
            return Unavailable(command[0], f"no answer in {self._timeout_s:.0f} s")
        except OSError as error:
            return Unavailable(command[0], error.strerror or str(error))
        # Without accounting, sacct may only print this and still exit with 0.
        if done.returncode != 0 or "storage is disabled" in done.stderr:
            said = (done.stderr or done.stdout).strip().splitlines()
            return Unavailable(command[0], _tidy(said) or f"exit code {done.returncode}")
        return done.stdout

    def _run(
        self, command: Sequence[str], environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        self.calls[command[0]] = self.calls.get(command[0], 0) + 1
        _log.info("%s", shlex.join(command))
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=self._timeout_s,
            check=False,
        )


_NEEDS_SLURM = "submit from a login node of the cluster; without Slurm: ctrate-convert run OUT"


def _asking_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for questions: times in UTC, the ids of arrays never cut short."""
    return _without(environment, _KEPT) | {"TZ": "UTC", "SLURM_BITSTR_LEN": "0"}


def _sbatch_environment(environment: Mapping[str, str], keep: frozenset[str]) -> dict[str, str]:
    """Return the environment that a job inherits, without traces of a job around this one."""
    return _without(environment, _KEPT | (_KEPT_FOR_SBATCH & keep))


def _without(environment: Mapping[str, str], kept: frozenset[str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name in kept or not name.startswith(_DROPPED)
    }


def _tidy(lines: Sequence[str]) -> str:
    """Return the last line that a command printed, without the command's own name before it."""
    return re.sub(r"^\w+: (?:error: )?", "", lines[-1]) if lines else ""
