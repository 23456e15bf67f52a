"""What a testbed can be asked to be, and the configuration files that make it so."""

import random
import socket
from dataclasses import dataclass
from typing import Literal

from slurm.testbed.errors import TestbedError
from slurm.testbed.layout import Layout

MemoryLimits = Literal["auto", "cgroup", "polling", "none"]

LOOPBACK = "127.0.0.1"
PORT_RANGE = range(20_000, 32_000)  # below the range that systems hand out by themselves
MAX_NODES = 99  # two digits in `layout.LONGEST_SOCKET`


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of a testbed, checked when made.

    CPUs and memory are what Slurm is told, not what the machine has: overcommitting them tests
    scheduling at no cost. `memory_limits` is explained in `slurm.testbed.memory`.
    """

    accounting: bool = True
    nodes: int = 3
    cpus_per_node: int = 2
    memory_mb_per_node: int = 4000
    max_array_size: int = 1001
    min_job_age_s: int = 300
    memory_limits: MemoryLimits = "auto"
    enforce_associations: bool = False

    def __post_init__(self) -> None:
        minima = {
            "nodes": 1,
            "cpus_per_node": 1,
            "memory_mb_per_node": 64,
            "max_array_size": 2,
            "min_job_age_s": 2,
        }
        for name, least in minima.items():
            if getattr(self, name) < least:
                raise TestbedError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.nodes > MAX_NODES:
            raise TestbedError(f"nodes must be at most {MAX_NODES}, not {self.nodes}")
        if self.memory_limits not in ("auto", "cgroup", "polling", "none"):
            raise TestbedError(
                f"memory_limits must be auto, cgroup, polling or none, not {self.memory_limits!r}"
            )
        if self.enforce_associations and not self.accounting:
            raise TestbedError("enforce_associations needs accounting")


@dataclass(frozen=True)
class Ports:
    """The loopback ports of one testbed."""

    controller: int
    accounting: int
    nodes: tuple[int, ...]

    @classmethod
    def free(cls, nodes: int) -> "Ports":
        """Ports nobody listens on now, drawn at random so that two testbeds rarely meet."""
        found: list[int] = []
        for port in random.sample(PORT_RANGE, len(PORT_RANGE)):
            with socket.socket() as probe:
                try:
                    probe.bind((LOOPBACK, port))
                except OSError:
                    continue
            found.append(port)
            if len(found) == nodes + 2:
                return cls(found[0], found[1], tuple(found[2:]))
        raise TestbedError(f"fewer than {nodes + 2} free ports on {LOOPBACK} in {PORT_RANGE}")

    @staticmethod
    def is_open(port: int) -> bool:
        """Whether a daemon listens on that loopback port."""
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, port)) == 0

    def node_names(self) -> tuple[str, ...]:
        """Names no other testbed of this machine has: memory cgroups are called after nodes."""
        return tuple(f"c{self.controller}n{i + 1}" for i in range(len(self.nodes)))


def slurm_conf(
    settings: Settings, layout: Layout, ports: Ports, *, user: str, limits: MemoryLimits
) -> str:
    """Text of slurm.conf: everything below the scratch directory, and little waiting.

    Partitions: `debug` (the default, a day), `short` (5 minutes), and `urgent` over the same
    nodes, whose jobs push jobs of the other two back into the queue.
    """
    host = socket.gethostname().split(".")[0]
    default_memory_mb = max(1, settings.memory_mb_per_node // settings.cpus_per_node)
    lines = [
        "ClusterName=testbed",
        f"SlurmctldHost={host}({LOOPBACK})",
        f"SlurmctldPort={ports.controller}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={layout.munge_socket}",
        "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny",  # listen on loopback only
        f"StateSaveLocation={layout.base}/state",
        f"SlurmdSpoolDir={layout.base}/spool/%n",
        f"SlurmctldPidFile={layout.base}/run/slurmctld.pid",
        f"SlurmdPidFile={layout.base}/run/%n.pid",
        f"SlurmctldLogFile={layout.log('slurmctld')}",
        f"SlurmdLogFile={layout.base}/log/%n.log",
        "SwitchType=switch/none",
        "MpiDefault=none",
        "MailProg=/bin/true",
        "ProctrackType=proctrack/linuxproc",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        "SlurmdParameters=config_overrides",  # believe the CPUs and memory written here
        "ReturnToService=1",  # a node that was set down stays down; with 2 it is back in a second
        # Scheduling at once instead of once a minute, and over the whole queue.
        "SchedulerType=sched/backfill",
        "SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,"
        "bf_interval=1,default_queue_depth=1000",
        "PriorityType=priority/basic",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "JobRequeue=1",
        "OverTimeLimit=0",
        "KillWait=2",
        f"MinJobAge={settings.min_job_age_s}",
        f"MaxArraySize={settings.max_array_size}",
        *accounting_lines(settings, layout, ports),
        *memory_lines(limits),
    ]
    names = ports.node_names()
    for name, port in zip(names, ports.nodes, strict=True):
        lines.append(
            f"NodeName={name} NodeHostname={host} NodeAddr={LOOPBACK} Port={port} "
            f"CPUs={settings.cpus_per_node} RealMemory={settings.memory_mb_per_node}"
        )
    for partition in (
        "debug Default=YES MaxTime=1-0 PriorityTier=1",
        "short MaxTime=5 PriorityTier=1",
        "urgent MaxTime=1-0 PriorityTier=10",
    ):
        lines.append(
            f"PartitionName={partition} Nodes={','.join(names)} DefMemPerCPU={default_memory_mb}"
        )
    return "\n".join(lines) + "\n"


def accounting_lines(settings: Settings, layout: Layout, ports: Ports) -> list[str]:
    """The part of slurm.conf that names the accounting daemon, or says there is none."""
    if not settings.accounting:
        return ["AccountingStorageType=accounting_storage/none"]
    lines = [
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={LOOPBACK}",
        f"AccountingStoragePort={ports.accounting}",
        # Without it every client asks munge's default socket.
        f"AccountingStoragePass={layout.munge_socket}",
    ]
    if settings.enforce_associations:
        lines.append("AccountingStorageEnforce=limits,qos")
    return lines


def memory_lines(limits: MemoryLimits) -> list[str]:
    """The part of slurm.conf that measures memory each second and, if asked, limits it."""
    lines = ["JobAcctGatherType=jobacct_gather/linux", "JobAcctGatherFrequency=1"]
    if limits == "cgroup":
        return [*lines, "TaskPlugin=task/cgroup"]
    if limits == "polling":
        return [*lines, "TaskPlugin=task/none", "JobAcctGatherParams=OverMemoryKill"]
    return [*lines, "TaskPlugin=task/none"]


def slurmdbd_conf(layout: Layout, ports: Ports, *, user: str) -> str:
    """Text of slurmdbd.conf; the database's socket comes in through the environment."""
    lines = [
        "AuthType=auth/munge",
        f"AuthInfo=socket={layout.munge_socket}",
        f"DbdHost={socket.gethostname().split('.')[0]}",
        f"DbdAddr={LOOPBACK}",
        f"DbdPort={ports.accounting}",
        "CommunicationParameters=NoInAddrAny",
        f"SlurmUser={user}",
        f"LogFile={layout.log('slurmdbd')}",
        f"PidFile={layout.base}/run/slurmdbd.pid",
        "StorageType=accounting_storage/mysql",
        "StorageHost=localhost",
        f"StorageUser={user}",
        "StorageLoc=slurm_accounting",
    ]
    return "\n".join(lines) + "\n"


def mariadb_conf(layout: Layout) -> str:
    """Text of the database's configuration: no port, little memory, no care for power cuts."""
    lines = [
        "[mysqld]",
        f"datadir={layout.base}/database",
        f"tmpdir={layout.base}/tmp",  # two testbeds that start at once would share /tmp
        f"socket={layout.mariadb_socket}",
        f"pid-file={layout.base}/run/mariadb.pid",
        "skip-networking",
        "skip-log-bin",
        "performance_schema=off",
        "innodb_buffer_pool_size=32M",
        "innodb_log_file_size=8M",
        "debug-no-sync",  # hundreds of syncs while the tables are made, seconds on a busy disk
        "innodb_flush_log_at_trx_commit=0",
        "innodb_doublewrite=0",
        "innodb_lock_wait_timeout=900",  # slurmdbd asks for it
    ]
    return "\n".join(lines) + "\n"
