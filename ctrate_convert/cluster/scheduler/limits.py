"""The limits of the cluster: how large an array, how many jobs, how long, how much memory."""

from __future__ import annotations

from dataclasses import dataclass

from ctrate_convert.cluster.scheduler.client import SlurmClient, Unavailable
from ctrate_convert.cluster.scheduler.profile import ClusterProfile
from ctrate_convert.cluster.scheduler.query import minutes
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
    size = _number(config.get("MaxArraySize", "")) or _DEFAULT_MAX_ARRAY_SIZE
    for word in config.get("SchedulerParameters", "").split(","):
        name, _, value = word.partition("=")
        if name == "max_array_tasks" and _number(value):
            size = min(size, int(value))
    accounting = config.get("AccountingStorageType", "").endswith("slurmdbd")
    most = _submit_limit(client, profile, user, notes) if accounting else None
    every_job = _number(config.get("MaxJobCount", ""))
    most = min((n for n in (most, every_job) if n), default=None)
    left = None
    if most is not None:
        queued = client.jobs_of(user)
        if isinstance(queued, Unavailable):
            notes.append(f"{queued}; not knowing how many jobs are in the queue")
            queued = 0
        # Keep one for the finaliser, which is a job too.
        left = max(0, most - queued - 1)
    return ClusterLimits(_partition(client, profile, notes), size, left, tuple(notes))


def _submit_limit(
    client: SlurmClient, profile: ClusterProfile, user: str, notes: list[str]
) -> int | None:
    """Return the tightest limit on submitted jobs among those that may apply."""
    limits: list[int] = []
    qos_names = {profile.qos} if profile.qos else set()
    associations = client.submit_limits(user)
    if isinstance(associations, Unavailable):
        notes.append(f"{associations}; limits on submitted jobs are not known")
        return None
    for row in associations:
        if profile.account in (None, row["Account"]) and row["Partition"] in (
            "",
            profile.partition,
        ):
            limits += [n for n in (_number(row["MaxSubmit"]), _number(row["GrpSubmit"])) if n]
            if not profile.qos:
                qos_names |= set(row["QOS"].split(","))
    qualities = client.qos_limits()
    if isinstance(qualities, Unavailable):
        notes.append(f"{qualities}; limits of the qos are not known")
        qualities = []
    for row in qualities:
        if row["Name"] in qos_names:
            cells = (row["MaxSubmitJobsPerUser"], row["GrpSubmitJobs"])
            limits += [n for n in map(_number, cells) if n]
    return min(limits, default=None)


def _partition(client: SlurmClient, profile: ClusterProfile, notes: list[str]) -> PartitionLimits:
    rows = client.partitions()
    if isinstance(rows, Unavailable):
        notes.append(f"{rows}; the partition's limits are not known")
        return PartitionLimits(profile.partition)
    names = profile.partition.split(",") if profile.partition else []
    known = {row["PartitionName"]: row for row in rows}
    missing = [name for name in names if name not in known]
    if missing:
        raise SettingsError(
            f"no partition {missing[0]!r} here",
            where="profile or --partition",
            expected=", ".join(known),
        )
    chosen = [known[name] for name in names] or [r for r in rows if r.get("Default") == "YES"]
    times = [m for row in chosen if (m := minutes(row.get("MaxTime", ""))) is not None]
    memory = [m for row in chosen if (m := _number(row.get("MaxMemPerNode", "")))]
    return PartitionLimits(
        name=",".join(row["PartitionName"] for row in chosen) or None,
        timeout_min=min(times, default=None),
        mem_mb=min(memory, default=None),
    )


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None
