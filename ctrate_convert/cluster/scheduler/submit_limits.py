"""How many more jobs the user may have in the queue, by the limits that Slurm will apply.

Slurm looks for a limit in this order and takes the first that is set: the quality of service of the
partition, that of the job, the user's association, the accounts above it ("Hierarchy" in Slurm's
"Resource Limits"). The flag OverPartQOS of the job's quality of service turns the first two round.
A limit on a whole group holds at every account up to the root.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ctrate_convert.cluster.scheduler.client import QueuedJob, SlurmClient, Unavailable
from ctrate_convert.cluster.scheduler.profile import ClusterProfile
from ctrate_convert.cluster.scheduler.query import number

_NORMAL = "normal"
"""The quality of service that Slurm takes if no association names one."""


_T = TypeVar("_T")


class Unanswered(Exception):
    """A question that Slurm did not answer, so that a limit cannot be told."""


def jobs_left(
    client: SlurmClient,
    profile: ClusterProfile,
    user: str,
    cluster: str,
    partition_qos: Mapping[str, str],
) -> int | None:
    """Return how many more jobs the user may submit; None if nothing limits it.

    ``partition_qos`` has the quality of service of each partition that may be chosen, by name.

    Raises:
        Unanswered: Slurm did not answer a question.
    """
    account = (
        profile.account
        or os.environ.get("SBATCH_ACCOUNT")
        or _answered(client.default_account(user))
    )
    mine = [
        row
        for row in _answered(client.associations(user, cluster))
        # Slurm keeps the names of accounts in lower case.
        if row["Account"] == account.lower() and row["Partition"] in ("", *partition_qos)
    ]
    accounts = {row["Account"]: row for row in _answered(client.associations("", cluster))}
    qualities = {row["Name"]: row for row in _answered(client.qos_limits())}
    chosen = profile.qos or os.environ.get("SBATCH_QOS") or _first(mine, "DefaultQOS") or _NORMAL
    left = []
    for partition, its_own in (partition_qos or {"": ""}).items():
        order = [qualities[name] for name in (its_own, chosen) if name in qualities]
        if "OverPartQOS" in qualities.get(chosen, {}).get("Flags", ""):
            order.reverse()
        # Under a partition's own quality of service count the jobs there, whatever theirs is.
        there = partition if its_own in qualities else ""
        left.append(_left(client, user, account.lower(), mine, accounts, order, (its_own, there)))
    return min((one for one in left if one is not None), default=None)


def _left(
    client: SlurmClient,
    user: str,
    account: str,
    mine: Sequence[Mapping[str, str]],
    accounts: Mapping[str, Mapping[str, str]],
    qualities: Sequence[Mapping[str, str]],
    of_partition: tuple[str, str],
) -> int | None:
    """Return what the tightest of all limits leaves under these qualities of service.

    ``of_partition`` is the one of the partition, and the partition.
    """

    def under(quality: str, jobs: Iterable[QueuedJob]) -> int:
        return sum(job.qos == quality or (quality, job.partition) == of_partition for job in jobs)

    left: list[int] = []
    own = _answered(client.jobs_queued(f"--user={user}"))
    quality, limit = _limit(qualities, "MaxSubmitJobsPerUser")
    if limit is not None:
        left.append(limit - under(quality, own))
    elif (limit := number(_first(mine, "MaxSubmit"))) is not None:
        left.append(limit - _count(own, account))
    quality, limit = _limit(qualities, "MaxSubmitJobsPerAccount")
    if limit is not None:
        queued = _answered(client.jobs_queued(f"--account={account}"))
        left.append(limit - under(quality, queued))
    quality, limit = _limit(qualities, "GrpSubmitJobs")
    if limit is not None:
        left.append(limit - under(quality, _answered(client.jobs_queued())))
    else:
        left += _of_groups(client, own, account, mine, accounts)
    return min(left, default=None)


def _of_groups(
    client: SlurmClient,
    own: Sequence[QueuedJob],
    account: str,
    mine: Sequence[Mapping[str, str]],
    accounts: Mapping[str, Mapping[str, str]],
) -> list[int]:
    """Return what the user's own association and every account above it leave."""
    left = []
    if (limit := number(_first(mine, "GrpSubmit"))) is not None:
        left.append(limit - _count(own, account))
    name = account
    while name in accounts:
        if (limit := number(accounts[name]["GrpSubmit"])) is not None:
            below = ",".join(sorted(_below(name, accounts)))
            left.append(limit - len(_answered(client.jobs_queued(f"--account={below}"))))
        parent = accounts[name]["ParentName"]
        name = parent if parent != name else ""
    return left


def _below(account: str, accounts: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Return the account and every account below it."""
    found = {account}
    while more := {n for n, row in accounts.items() if row["ParentName"] in found} - found:
        found |= more
    return found


def _limit(qualities: Iterable[Mapping[str, str]], field: str) -> tuple[str, int | None]:
    """Return the first quality of service that sets this limit, and the limit."""
    for row in qualities:
        if (limit := number(row[field])) is not None:
            return row["Name"], limit
    return "", None


def _count(jobs: Iterable[QueuedJob], account: str) -> int:
    return sum(job.account == account for job in jobs)


def _first(rows: Iterable[Mapping[str, str]], field: str) -> str:
    return next((row[field] for row in rows if row[field]), "")


def _answered(answer: _T | Unavailable) -> _T:
    if isinstance(answer, Unavailable):
        raise Unanswered(str(answer))
    return answer
