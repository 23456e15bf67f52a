"""Run Slurm's commands; no other module does.

A question that got no answer is a value, not an exception.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

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
SBATCH_TIMEOUT_S = 180.0
"""sbatch itself tries again for two minutes while the controller takes no more jobs."""

# These variables, set by a person for their own use or by the job around this command, would change
# what the commands print or override what the job script says.
_DROPPED = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SRUN_")
_KEPT = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_CONF_SERVER", "SLURM_JWT"})
_KEPT_FOR_SBATCH = frozenset({"SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS"})

# sbatch prints these if it lost a request that the controller may have accepted all the same.
_UNCLEAR = re.compile(r"timed out|timeout|Zero Bytes|Transport|Connection reset", re.IGNORECASE)
# Slurm's words for too many jobs: of a user, an account or a quality of service, or of all. The
# name of the limit comes first; the sentence after it is the same for limits on time and size.
_NAMED_LIMIT = re.compile(r"\b(?:QOS|Assoc)\w+")
_TOO_MANY = re.compile(r"Submit")
_LIMIT = re.compile(
    r"job submit limit|temporarily unable|Resource temporarily unavailable", re.IGNORECASE
)
_TOO_WIDE = re.compile(r"too wide of a date range", re.IGNORECASE)
_SHORTEST_WINDOW = timedelta(hours=1)
_JOB_ID = re.compile(r"\b(?:job )?(\d+)\b")


@dataclass(frozen=True)
class Unavailable:
    """A question that Slurm did not answer, and why."""

    tool: str
    why: str

    def __str__(self) -> str:
        return f"{self.tool}: {self.why}"


class QueuedJob(NamedTuple):
    """By whom, and under what limits, a job in the queue was submitted."""

    user: str
    account: str
    qos: str
    partition: str


class SubmissionUnclear(EnvironmentProblem):
    """An sbatch without an answer: Slurm may have accepted the job all the same."""


class SubmissionRejected(EnvironmentProblem):
    """A submission that Slurm refused: nothing was submitted."""

    @property
    def names_a_limit(self) -> bool:
        """True if Slurm refused it for the number of jobs: fewer may do."""
        named = _NAMED_LIMIT.findall(self.what)
        if named:
            return any(_TOO_MANY.search(name) for name in named)
        return _LIMIT.search(self.what) is not None


class SlurmClient:
    """A client for squeue, sacct, sbatch, scontrol, sinfo, sacctmgr and scancel.

    Each call has a time limit. ``clusters`` are the clusters to ask; an empty name stands for the
    one that Slurm itself takes. Each is asked on its own: of several at once, squeue leaves out
    without a word one whose controller is down.

    Every question is about hidden partitions, too. Slurm shows them to an ordinary user only with
    ``--all``, and a live task that nobody sees would be run twice.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, clusters: Sequence[str] = ("",)) -> None:
        self._timeout_s = timeout_s
        self.clusters = tuple(clusters) or ("",)
        self._window: timedelta | None = None

    def at(self, clusters: Sequence[str]) -> SlurmClient:
        """Return a client like this one for ``clusters``."""
        same = tuple(clusters) == self.clusters
        return self if same else SlurmClient(self._timeout_s, clusters)

    def squeue(self, names: Iterable[str]) -> list[QueueRow] | Unavailable:
        """Return all elements of the arrays with these names that the controller still knows."""
        wanted = sorted(set(names))
        if not wanted:
            return []
        question = ("squeue", "-a", "-h", "-r", "-t", "all", f"--name={','.join(wanted)}")
        rows: list[QueueRow] = []
        for cluster in self.clusters:
            text = self._ask(*question, "-O", QUEUE_FORMAT, cluster=cluster)
            if isinstance(text, Unavailable):
                return text
            rows += parse_squeue(text)
        return rows

    def sacct(
        self, *, job_ids: Iterable[str] = (), names: Iterable[str] = (), since: datetime
    ) -> list[AccountRow] | Unavailable:
        """Return all runs since then, requeued ones too, of the jobs with these ids or names.

        Where accounting refuses so long a time (MaxQueryTimeRange), it is asked window by window.
        """
        ids, wanted = sorted(set(job_ids)), sorted(set(names))
        which = f"--name={','.join(wanted)}" if wanted else f"--jobs={','.join(ids)}"
        if not (ids or wanted):
            return []
        rows: list[AccountRow] = []
        for cluster in self.clusters:
            found = self._accounts(which, since, cluster)
            if isinstance(found, Unavailable):
                return found
            rows += found
        return rows

    def _accounts(
        self, which: str, since: datetime, cluster: str
    ) -> list[AccountRow] | Unavailable:
        now = datetime.now(UTC)
        while True:
            windows = _windows(since, now, self._window)
            texts: list[str] = []
            for first, last in windows:
                text = self._sacct(which, first, last, cluster)
                if isinstance(text, Unavailable):
                    break
                texts.append(text)
            else:
                if len(texts) == 1:
                    return parse_sacct(texts[0])
                # A run that reaches into two windows is in the answers to both.
                lines = dict.fromkeys(line for text in texts for line in text.splitlines())
                return parse_sacct("\n".join(lines))
            too_wide = _TOO_WIDE.search(text.why)
            if not too_wide or (self._window and self._window < 2 * _SHORTEST_WINDOW):
                return text
            self._window = (self._window or now - since) / 2

    def _sacct(
        self, which: str, since: datetime, until: datetime | None, cluster: str
    ) -> str | Unavailable:
        """Ask for one window; without an end, up to now."""
        end = () if until is None else (f"--endtime={_slurm_time(until)}",)
        return self._ask(
            "sacct",
            "--noheader",
            "--duplicates",
            "--parsable2",
            "--allusers",
            f"--starttime={_slurm_time(since)}",
            *end,
            which,
            f"--format={ACCOUNT_FORMAT}",
            cluster=cluster,
        )

    def config(self) -> dict[str, str] | Unavailable:
        """Return ``scontrol show config`` as a dictionary."""
        text = self._ask("scontrol", "show", "config")
        if isinstance(text, Unavailable):
            return text
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
        return {name.strip(): value.strip() for name, _, value in pairs}

    def partitions(self) -> list[dict[str, str]] | Unavailable:
        """Return ``scontrol show partition`` as one dictionary for each partition."""
        text = self._ask("scontrol", "-a", "-o", "show", "partition")
        if isinstance(text, Unavailable):
            return text
        return [
            dict(word.split("=", 1) for word in line.split() if "=" in word)
            for line in text.splitlines()
            if line.startswith("PartitionName=")
        ]

    def node_memory_mb(self) -> dict[str, int] | Unavailable:
        """Return by partition the memory of its largest node, in MB."""
        text = self._ask("sinfo", "-a", "-h", "-e", "-o", "%R|%m")
        if isinstance(text, Unavailable):
            return text
        largest: dict[str, int] = {}
        for line in text.splitlines():
            name, _, memory = line.partition("|")
            if memory.isdigit():
                largest[name] = max(int(memory), largest.get(name, 0))
        return largest

    def associations(self, user: str, cluster: str) -> list[dict[str, str]] | Unavailable:
        """Return the user's associations with their limits; of ``user`` empty, the accounts'.

        Accounting may know several clusters; only the associations on ``cluster`` count there.
        """
        fields = ("Account", "ParentName", "Partition", "DefaultQOS", "MaxSubmit", "GrpSubmit")
        return self._table(fields, "assoc", "where", f"user={user}", f"cluster={cluster}")

    def default_account(self, user: str) -> str | Unavailable:
        """Return the account that Slurm takes if the user names none."""
        rows = self._table(("DefaultAccount",), "user", "where", f"name={user}")
        if isinstance(rows, Unavailable):
            return rows
        return rows[0]["DefaultAccount"] if rows else ""

    def qos_limits(self) -> list[dict[str, str]] | Unavailable:
        """Return every quality of service with its limits on submitted jobs."""
        fields = ("Name", "Flags", "MaxSubmitJobsPerUser", "MaxSubmitJobsPerAccount",
                  "GrpSubmitJobs")  # fmt: skip
        return self._table(fields, "qos")

    def jobs_queued(self, *filters: str) -> list[QueuedJob] | Unavailable:
        """Return the jobs in the queue that pass squeue's ``filters``, each array element one."""
        text = self._ask("squeue", "-a", "-h", "-r", *filters, "-o", "%u|%a|%q|%P")
        if isinstance(text, Unavailable):
            return text
        rows = (line.split("|") for line in text.splitlines())
        return [QueuedJob(*row) for row in rows if len(row) == 4]

    def _table(self, fields: Sequence[str], *what: str) -> list[dict[str, str]] | Unavailable:
        text = self._ask("sacctmgr", "-nP", "show", *what, f"format={','.join(fields)}")
        if isinstance(text, Unavailable):
            return text
        return [dict(zip(fields, line.split("|"), strict=False)) for line in text.splitlines()]

    def time_left_s(self, job_id: str) -> int | None:
        """Return the seconds until the job's time limit; None if that cannot be told."""
        text = self._ask("squeue", "-a", "-h", "-j", job_id, "-O", "TimeLeft:|")
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
        again = "give `ctrate-convert status` a minute later: it asks what became of it"
        try:
            environment = _sbatch_environment(os.environ, frozenset(keep))
            done = self._run(command, environment, max(self._timeout_s, SBATCH_TIMEOUT_S))
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
        told = "; ".join(filter(None, map(str.strip, words.splitlines())))
        raise SubmissionRejected(f"the scheduler refused the job: {told}", where=script)

    def scancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs, or array elements (``123_4``).

        Raises:
            EnvironmentProblem: the scheduler could not be told.
        """
        # In parts, since the length of a command line is limited.
        parts = [jobs[first : first + 500] for first in range(0, len(jobs), 500)]
        for part, cluster in itertools.product(parts, self.clusters):
            answer = self._ask("scancel", *part, cluster=cluster)
            if isinstance(answer, Unavailable):
                raise EnvironmentProblem(
                    f"the jobs could not be cancelled: {answer}",
                    next_command="give the same command again once Slurm answers",
                )

    def _ask(self, *command: str, cluster: str | None = None) -> str | Unavailable:
        where = self.clusters[0] if cluster is None else cluster
        try:
            done = self._run(command, _asking_environment(os.environ, where), self._timeout_s)
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
        self, command: Sequence[str], environment: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        _log.info("%s", shlex.join(command))
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )


_NEEDS_SLURM = "submit from a login node of the cluster; without Slurm: ctrate-convert run OUT"


def _asking_environment(environment: Mapping[str, str], cluster: str) -> dict[str, str]:
    """Return an environment for questions: times in UTC, the ids of arrays never cut short.

    All commands heed SLURM_CLUSTERS.
    """
    fixed = {"TZ": "UTC", "SLURM_BITSTR_LEN": "0"}
    where = {"SLURM_CLUSTERS": cluster} if cluster else {}
    return _without(environment, _KEPT) | fixed | where


def _sbatch_environment(environment: Mapping[str, str], keep: frozenset[str]) -> dict[str, str]:
    """Return the environment that a job inherits, without traces of a job around this one.

    sbatch would heed SLURM_CLUSTERS before the option of the job script, which is what the intent
    says.
    """
    return _without(environment, (_KEPT - {"SLURM_CLUSTERS"}) | (_KEPT_FOR_SBATCH & keep))


def _without(environment: Mapping[str, str], kept: frozenset[str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name in kept or not name.startswith(_DROPPED)
    }


def _slurm_time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S}"


def _windows(
    since: datetime, now: datetime, width: timedelta | None
) -> list[tuple[datetime, datetime | None]]:
    """Cut the time since then into windows of at most ``width``; the last one has no end."""
    firsts = [since]
    while width is not None and firsts[-1] + width < now:
        firsts.append(firsts[-1] + width)
    return list(zip(firsts, [*firsts[1:], None], strict=True))


def _tidy(lines: Sequence[str]) -> str:
    """Return the last line that a command printed, without the command's own name before it."""
    return re.sub(r"^\w+: (?:error: )?", "", lines[-1]) if lines else ""
