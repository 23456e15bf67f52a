"""Send two tasks to two nodes, wait for their reports, and leave neither job nor file behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from ctrate_convert.checking.doctor.finding import Finding
from ctrate_convert.cluster.scheduler.client import SlurmClient, SubmissionUnclear, Unavailable
from ctrate_convert.cluster.scheduler.launcher import executor, submit_array
from ctrate_convert.cluster.scheduler.limits import cluster_limits
from ctrate_convert.cluster.scheduler.profile import ClusterProfile
from ctrate_convert.cluster.scheduler.query import QueueRow
from ctrate_convert.cluster.submissions import (
    ArrayIntent,
    Resources,
    job_name,
    new_token,
    user_name,
)
from ctrate_convert.cluster.two_nodes.judge import findings_between, not_tested
from ctrate_convert.cluster.two_nodes.take_part import NodeReport, TwoNodes
from ctrate_convert.errors import CtrateError, EnvironmentProblem, Interrupted
from ctrate_convert.running.pool import StopFlag, stop_on_signals
from ctrate_convert.store.durable import scratch_directory
from ctrate_convert.store.records.base import read

_TIMEOUT_MIN = 10
_MEM_MB = 512
_ASK_EVERY_S = 3.0
_LOOK_EVERY_S = 0.5
_REPORTS_LATE_S = 90.0
"""Time for which an attribute cache may still hide the reports after the job's end."""
_GONE_S = 60.0  # for a cancelled job to write no more
_GRACE_S = 20.0  # for a job that has reported to end by itself
# Options of sbatch that the test sets itself; those of the profile are dropped.
_OURS = {"nodes", "ntasks", "ntasks_per_node", "array", "dependency", "requeue"}


def ask_two_nodes(
    folder: Path,
    profile: ClusterProfile,
    *,
    patience_s: float,
    tell: Callable[[str], None],
    client: SlurmClient | None = None,
) -> tuple[Finding, ...]:
    """Return findings about ``folder`` between two nodes, or one that is "not tested".

    ``tell`` is given the job's id once there is one. The job is cancelled when ``patience_s`` is
    over, and at Ctrl+C.

    Raises:
        SettingsError: the profile names what is not there.
        SubmissionRejected: the scheduler refused the job.
        Interrupted: Ctrl+C or SIGTERM; the job is cancelled.
    """
    client = client or SlurmClient()
    with (
        stop_on_signals(StopFlag()) as stop,
        scratch_directory(folder.resolve() / "doctor-nodes") as scratch,
    ):
        return _ask(scratch, profile, client, patience_s, tell, stop)


def _ask(
    scratch: Path,
    profile: ClusterProfile,
    client: SlurmClient,
    patience_s: float,
    tell: Callable[[str], None],
    stop: StopFlag,
) -> tuple[Finding, ...]:
    name = job_name(new_token(), 0, 0)
    try:
        job = _submit(scratch, profile, client, name)
    # Slurm may have accepted the job all the same: find it by its name and cancel it.
    except SubmissionUnclear:
        _see_it_gone(client, name)
        raise
    why: str | None = "given up"
    try:
        tell(f"Job {job} tries this place on two nodes; Ctrl+C cancels it.")
        why = _wait(scratch, client, name, patience_s, stop)
    finally:
        # A job that has reported ends by itself; any other is cancelled at once.
        _see_it_gone(client, name, grace_s=0.0 if why else _GRACE_S)
    if stop:
        raise Interrupted(f"stopped by {stop.reason}; job {job} was cancelled")
    if why:
        return (not_tested(f"job {job}: {why}"),)
    first, second = (_report(scratch, side) for side in (0, 1))
    return findings_between(first, second)


def _submit(scratch: Path, profile: ClusterProfile, client: SlurmClient, name: str) -> str:
    """Submit submitit's job script, as for conversion, with two nodes and a task on each."""
    more = {
        key: value
        for key, value in profile.additional_parameters.items()
        if key.replace("-", "_") not in _OURS
    }
    # A requeued job would take the messages of its first run for those of the other side.
    more |= {"requeue": False, "no-requeue": True}
    mine = profile.model_copy(update={"additional_parameters": more})
    limits = cluster_limits(client, profile, user_name())
    wanted = Resources(timeout_min=_TIMEOUT_MIN, mem_mb=_MEM_MB, cpus_per_task=1)
    array = ArrayIntent(
        job_name=name,
        kind="convert",
        tasks=(0,),
        resources=limits.partition.cap(wanted),
        parallelism=1,
        why="doctor",
    )
    made = executor(scratch / "job", mine, array, client=client)
    made.update_parameters(nodes=2, ntasks_per_node=1)
    return submit_array(made, TwoNodes(), [(str(scratch),)])


def _wait(
    scratch: Path, client: SlurmClient, name: str, patience_s: float, stop: StopFlag
) -> str | None:
    """Wait until both reports are there and return None; else return why they are not."""
    give_up = time.monotonic() + patience_s
    ask_at, ended_at, last = 0.0, 0.0, "squeue did not say what became of it"
    while not stop:
        # List the folder: an answer about a single name may come from a cache.
        if all(_report_path(scratch, side).name in _names(scratch) for side in (0, 1)):
            return None
        now = time.monotonic()
        if now > give_up:
            return f"{last}; given up after {patience_s:.0f} s and cancelled"
        if ended_at and now > ended_at + _REPORTS_LATE_S:
            return f"{last}, without both reports; {_last_words(scratch)}"
        if now >= ask_at:
            ask_at = now + _ASK_EVERY_S
            rows = client.squeue([name])
            if isinstance(rows, Unavailable):
                last = str(rows)
            elif rows:
                last = _state(rows[0])
            if not isinstance(rows, Unavailable) and not any(row.live for row in rows):
                ended_at = ended_at or now
                if rows and rows[0].state != "COMPLETED":
                    return f"{last}; {_last_words(scratch)}"
        time.sleep(_LOOK_EVERY_S)
    return "interrupted"


def _state(row: QueueRow) -> str:
    where = f" on {row.node}" if row.node else ""
    return f"{row.state}{where}" + (f" ({row.reason})" if row.reason else "")


def _last_words(scratch: Path) -> str:
    """Return the last line of the tasks' logs, which are removed with the folder."""
    for path in sorted((scratch / "job").glob("*.out")):
        with contextlib.suppress(OSError):
            lines = path.read_text(errors="replace").strip().splitlines()
            if lines:
                return f"its log ends: {lines[-1]}"
    return "it left no log"


def _see_it_gone(client: SlurmClient, name: str, *, grace_s: float = 0.0) -> None:
    """Cancel the job unless it ends by itself in ``grace_s``; return once it writes no more.

    If that cannot be asked, return after a minute.
    """
    started = time.monotonic()
    deadline = started + _GONE_S
    cancelled = False
    while time.monotonic() < deadline:
        rows = client.squeue([name])
        live = [] if isinstance(rows, Unavailable) else [row for row in rows if row.live]
        if not isinstance(rows, Unavailable) and not live:
            return
        patient = time.monotonic() < started + grace_s
        if not cancelled and not patient and any(row.state != "COMPLETING" for row in live):
            with contextlib.suppress(EnvironmentProblem):
                client.scancel(sorted({row.key[0] for row in live}))
                cancelled = True
        time.sleep(_LOOK_EVERY_S)


def _report(scratch: Path, side: int) -> NodeReport | None:
    with contextlib.suppress(FileNotFoundError, CtrateError):
        return read(NodeReport, _report_path(scratch, side))
    return None


def _report_path(scratch: Path, side: int) -> Path:
    return scratch / f"report-{side}.json"


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
