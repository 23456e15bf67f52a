"""Preparing the scratch directory and starting the daemons, one function a step."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from slurm.testbed import accounting, configuration, memory
from slurm.testbed.configuration import MemoryLimits, Ports, Settings
from slurm.testbed.daemons import Daemons
from slurm.testbed.errors import TestbedError
from slurm.testbed.layout import TRANSIENT, Layout, Record, short_base
from slurm.testbed.processes import wait_until
from slurm.testbed.requirements import search_path, user_name
from slurm.testbed.teardown import take_down, testbed_processes

CONTROLLER = "slurmctld"
MUNGE = "munged"


@dataclass(frozen=True)
class Parts:
    """What a testbed consists of once its directory is prepared."""

    settings: Settings
    layout: Layout
    ports: Ports
    limits: MemoryLimits
    record: Record
    daemons: Daemons

    @property
    def own_environment(self) -> dict[str, str]:
        """The whole environment of the testbed's own calls of Slurm's commands."""
        return {"PATH": search_path(), "SLURM_CONF": str(self.layout.slurm_conf)}


def claim(directory: Path) -> None:
    """Make the directory, or take over one whose testbed is dead; refuse anything in use."""
    record = Record.read(directory)
    if record is not None:
        if any(True for _ in testbed_processes(directory, record)):
            raise TestbedError(
                f"a testbed is up in {directory}; "
                f"take it down with: python -m slurm.testbed down {directory}"
            )
        take_down(directory)
    for name in TRANSIENT:
        if (directory / name).exists():
            raise TestbedError(f"{directory / name} exists and is no testbed's; choose another")
    directory.mkdir(parents=True, exist_ok=True)


def prepare(directory: Path, settings: Settings) -> Parts:
    """Choose ports, names and memory limits, leave the record, and write the configuration."""
    hierarchy = memory.memory_cgroup()
    limits = memory.decide(settings.memory_limits, hierarchy)
    ports = Ports.free(settings.nodes)
    nodes = ports.node_names()
    groups: tuple[str, ...] = ()
    if limits == "cgroup" and hierarchy is not None:
        groups = memory.cgroup_directories(hierarchy, nodes)
    layout = Layout(short_base(directory))
    record = Record(base=str(layout.base), nodes=nodes, cgroup_directories=groups)
    record.write(directory)
    layout.make_directories()

    text = configuration.slurm_conf(settings, layout, ports, user=user_name(), limits=limits)
    layout.slurm_conf.write_text(text)
    layout.cgroup_conf.unlink(missing_ok=True)
    if limits == "cgroup" and hierarchy is not None:
        layout.cgroup_conf.write_text(memory.cgroup_conf(hierarchy))
    if settings.accounting:
        accounting.write_configuration(layout, ports)
    return Parts(settings, layout, ports, limits, record, Daemons(layout))


def start_everything(parts: Parts) -> None:
    """Start all daemons in the order in which they need each other."""
    start_munge(parts)
    if parts.settings.accounting:
        accounting.create_database(parts.layout)
        accounting.start_database(parts.daemons, parts.layout)
        start_accounting(parts)
    start_controller(parts)
    for node in parts.record.nodes:
        start_node(parts, node)


def start_munge(parts: Parts) -> None:
    """Start the cluster's own munge, with its own key, and return once its socket is there."""
    layout = parts.layout
    key = layout.munge_key
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    parts.daemons.start(
        MUNGE,
        "munged",
        "--foreground",
        "--force",  # the scratch directory may be below one that others can write
        f"--socket={layout.munge_socket}",
        f"--key-file={key}",
        f"--log-file={layout.log(MUNGE)}",
        f"--pid-file={layout.base}/run/munged.pid",
        f"--seed-file={layout.base}/run/munge.seed",
    )

    def listens() -> bool:
        parts.daemons.check(MUNGE)
        return layout.munge_socket.is_socket()

    wait_until(
        listens, timeout_s=10, what="munge listens", explain=lambda: parts.daemons.explain(MUNGE)
    )


def start_accounting(parts: Parts) -> None:
    """Start slurmdbd and return once it answers."""
    accounting.start_slurmdbd(parts.daemons, parts.layout)
    accounting.wait_until_it_answers(parts.daemons, parts.own_environment)


def start_controller(parts: Parts) -> None:
    """Start slurmctld; it takes up the jobs it knew when it was stopped."""
    parts.daemons.start(CONTROLLER, "slurmctld", "-D")


def start_node(parts: Parts, node: str) -> None:
    """Start the slurmd of one node."""
    (parts.layout.base / "spool" / node).mkdir(exist_ok=True)
    parts.daemons.start(node, "slurmd", "-D", "-N", node)
