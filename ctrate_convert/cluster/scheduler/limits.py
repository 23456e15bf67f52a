"""The limits of the cluster: how large an array, how many jobs, how long, how much memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctrate_convert.cluster.scheduler.client import SlurmClient, Unavailable
from ctrate_convert.cluster.scheduler.profile import ClusterProfile
from ctrate_convert.cluster.scheduler.query import minutes, number
from ctrate_convert.cluster.scheduler.submit_limits import Unanswered, jobs_left
from ctrate_convert.cluster.submissions import Resources
from ctrate_convert.errors import SettingsError

# Slurm's own default.
_DEFAULT_MAX_ARRAY_SIZE = 1001


@dataclass(frozen=True)
class PartitionLimits:
    """The limits of a partition; None stands for no limit."""

    name: str | None = None
    timeout_min: int | None = None
    mem_mb: int | None = None

    def cap(self, wanted: Resources) -> Resources:
        """Return ``wanted``, reduced to what the partition grants."""
        return wanted.model_copy(
            update={
                "timeout_min": min(wanted.timeout_min, self.timeout_min or wanted.timeout_min),
                "mem_mb": min(wanted.mem_mb, self.mem_mb or wanted.mem_mb),
            }
        )

    def cuts(self, wanted: Resources) -> list[str]:
        """Return a note on each thing of which the partition grants less than ``wanted``."""
        granted = self.cap(wanted)
        pairs = (
            ("time limit", wanted.timeout_min, granted.timeout_min, "min"),
            ("memory", wanted.mem_mb, granted.mem_mb, "MB"),
        )
        return [
            f"{what}: {want} {unit} wanted, partition {self.name} grants {grants} {unit}"
            for what, want, grants, unit in pairs
            if grants < want
        ]


@dataclass(frozen=True)
class ClusterLimits:
    """The limits that a submission keeps to.

    ``elements_per_array`` is MaxArraySize, whose largest index is one less. ``elements_now`` is how
    many more jobs the user may have in the queue; None if nothing limits it. ``notes`` tell what
    could not be asked.
    """

    partition: PartitionLimits
    elements_per_array: int
    elements_now: int | None
    notes: tuple[str, ...]


def cluster_limits(client: SlurmClient, profile: ClusterProfile, user: str) -> ClusterLimits:
    """Ask the controller, and accounting if there is one, for the limits.

    Raises:
        SettingsError: the profile names a partition that does not exist.
    """
    notes: list[str] = []
    config = client.config()
    if isinstance(config, Unavailable):
        notes.append(f"{config}; taking MaxArraySize for {_DEFAULT_MAX_ARRAY_SIZE}")
        config = {}
    size = number(config.get("MaxArraySize", "")) or _DEFAULT_MAX_ARRAY_SIZE
    for word in config.get("SchedulerParameters", "").split(","):
        name, _, value = word.partition("=")
        if name == "max_array_tasks" and number(value):
            size = min(size, int(value))
    rows = _chosen_partitions(client, profile, notes)
    most = None
    # Without them, Slurm knows limits and heeds none.
    enforced = set(config.get("AccountingStorageEnforce", "").split(","))
    if enforced & {"limits", "safe", "all"}:
        qos = {row["PartitionName"]: row.get("QoS", "N/A") for row in rows}
        try:
            most = jobs_left(client, profile, user, config.get("ClusterName", ""), qos)
        except Unanswered as error:
            notes.append(f"{error}; limits on submitted jobs are not known")
    if (every_job := number(config.get("MaxJobCount", ""))) is not None:
        queued = client.jobs_queued(f"--user={user}")
        if isinstance(queued, Unavailable):
            notes.append(f"{queued}; not knowing how many jobs are in the queue")
        else:
            left = every_job - len(queued)
            most = left if most is None else min(most, left)
    # Keep one for the finaliser, which is a job too.
    elements_now = None if most is None else max(0, most - 1)
    return ClusterLimits(_limits_of(client, rows, notes), size, elements_now, tuple(notes))


def _chosen_partitions(
    client: SlurmClient, profile: ClusterProfile, notes: list[str]
) -> list[dict[str, str]]:
    """Return the rows of the partitions that the profile names, or of the default one."""
    # sbatch heeds these too, in this order.
    wanted = (
        profile.partition
        or str(profile.additional_parameters.get("partition", ""))
        or os.environ.get("SBATCH_PARTITION", "")
    )
    names = wanted.split(",") if wanted else []
    rows = client.partitions()
    if isinstance(rows, Unavailable):
        notes.append(f"{rows}; the partition's limits are not known")
        return [{"PartitionName": name} for name in names]
    known = {row["PartitionName"]: row for row in rows}
    missing = [name for name in names if name not in known]
    if missing:
        raise SettingsError(
            f"no partition {missing[0]!r} here",
            where="profile or --partition",
            expected=", ".join(known),
        )
    return [known[name] for name in names] or [r for r in rows if r.get("Default") == "YES"]


def _limits_of(
    client: SlurmClient, rows: Sequence[Mapping[str, str]], notes: list[str]
) -> PartitionLimits:
    """Return the limits that hold on each of these partitions: Slurm may choose any of them."""
    times = [m for row in rows if (m := minutes(row.get("MaxTime", ""))) is not None]
    memory_mb = [m for row in rows if (m := number(row.get("MaxMemPerNode", "")))]
    # A site seldom sets MaxMemPerNode; then the largest node is the limit.
    nodes = client.node_memory_mb() if rows else {}
    if isinstance(nodes, Unavailable):
        notes.append(f"{nodes}; the memory of the nodes is not known")
    else:
        memory_mb += [m for row in rows if (m := nodes.get(row["PartitionName"]))]
    return PartitionLimits(
        name=",".join(row["PartitionName"] for row in rows) or None,
        timeout_min=min(times, default=None),
        mem_mb=min(memory_mb, default=None),
    )
