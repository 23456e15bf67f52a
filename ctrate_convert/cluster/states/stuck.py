"""Tell which elements wait for something that no waiting brings, and the command that mends it.

The reasons are those that `squeue` prints; see "JOB REASON CODES" in Slurm's manual of squeue. A
limit on one job is never met by waiting; a limit on all jobs of a user or an account is, as other
jobs end, and so is not listed here.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from ctrate_convert.cluster.scheduler.query import QueueRow


@dataclass(frozen=True)
class Stuck:
    """An element in the queue that waits in vain; ``task`` is None for a finaliser."""

    job: str
    task: int | None
    reason: str
    next_command: str


_RELEASE = "scontrol release {job}"
_AGAIN = "ctrate-convert cancel {out} {task}; ctrate-convert relaunch {out} "
_OTHER_TIME = _AGAIN + "--timeout_min MINUTES"
_OTHER_SIZE = _AGAIN + "--mem_gb GIB --cpus_per_task CORES"
_OTHER_PLACE = _AGAIN + "--partition NAME"
_OTHER_RESERVATION = _AGAIN + "--additional_parameters reservation="
_NO_DEPENDENCY = _AGAIN + "--additional_parameters dependency="
_FINALISER = "scancel {job}; ctrate-convert merge {out}"
_ASK = "ask the cluster's administrators; see: scontrol show job {job}"

# The first pattern that matches counts. A limit on the wall clock is one on a job, too.
_MENDED_BY: tuple[tuple[str, str], ...] = (
    (r"JobHeldAdmin", _ASK),
    (r"JobHeldUser|JobHoldMaxRequeue|job_requeued_in_held_state|.*requeued_held", _RELEASE),
    (r"PartitionTimeLimit|(QOS|Assoc)Max\w*WallDuration\w*", _OTHER_TIME),
    (r"MaxMemPerLimit|(QOS|Assoc)Max\w*Per(Job|Node)\w*", _OTHER_SIZE),
    (r"QOSMin\w*|\w*NotSatisfied", _OTHER_SIZE),
    (r"Reservation\w*[Dd]eleted", _OTHER_RESERVATION),
    (r"BadConstraints|PartitionConfig", _OTHER_PLACE),
    (r"InvalidAccount|AccountNotAllowed|AssociationNotFound", _AGAIN + "--account NAME"),
    (r"InvalidQOS|QOSNotAllowed", _AGAIN + "--qos NAME"),
    (r"(QOS|Assoc)Grp(?!\w*Run)\w*Minutes\w*|(QOS|Assoc)GrpWall\w*", _ASK),
    (r"DependencyNeverSatisfied", _NO_DEPENDENCY),
)


def stuck_element(row: QueueRow, task: int | None, out: str) -> Stuck | None:
    """Return what ails the element in ``row`` and what mends it; None if waiting may help.

    ``task`` is the element's task, None for a finaliser, which converts nothing.
    """
    if not row.waiting:
        return None
    # squeue prints some descriptions with blanks, others with underscores for them.
    reason = row.reason.strip("()").replace(" ", "_")
    for pattern, mend in _MENDED_BY:
        if re.fullmatch(pattern, reason):
            job = f"{row.key[0]}_{row.key[1]}"
            mend = mend if task is not None or mend in (_RELEASE, _ASK) else _FINALISER
            words = mend.format(job=job, out=shlex.quote(out), task=task)
            return Stuck(job, task, row.reason, words)
    return None
