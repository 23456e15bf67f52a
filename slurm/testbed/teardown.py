"""Taking a testbed down, whoever started it and however that one ended."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from slurm.testbed import memory
from slurm.testbed.daemons import MARK
from slurm.testbed.layout import TRANSIENT, Layout, Record, remove_short_base
from slurm.testbed.processes import (
    end_all,
    environment_of,
    is_step_daemon,
    process_ids,
    wait_until,
)

TIMEOUT_S = 20.0


def take_down(directory: Path) -> bool:
    """End every process of the testbed in that directory; False if none was up there.

    Daemons, job steps and the processes of jobs are killed at once, memory cgroups and the short
    link are removed, and so are database, state and spool. Configuration and logs stay, to be
    read.
    """
    directory = directory.absolute()
    record = Record.read(directory)
    if record is None:
        return False
    end_all(lambda: testbed_processes(directory, record), timeout_s=TIMEOUT_S)
    for group in map(Path, record.cgroup_directories):
        wait_until(
            partial(memory.remove_cgroup, group),
            timeout_s=TIMEOUT_S,
            what=f"the memory cgroup {group} empty and removed",
        )
    for name in TRANSIENT:
        shutil.rmtree(directory / name, ignore_errors=True)
    remove_short_base(record, directory)
    Record.remove(directory)
    return True


def testbed_processes(directory: Path, record: Record) -> Iterator[int]:
    """The ids of all processes of the testbed that live now: daemons, steps and jobs."""
    nodes = set(record.nodes)
    logs = step_logs(directory, record.base, record.nodes)
    for pid in process_ids():
        environment = environment_of(pid)
        if (
            environment.get(MARK) == record.base
            or is_job_process(environment, record.base, nodes)
            or is_step_daemon(pid, logs)
        ):
            yield pid


def node_processes(directory: Path, record: Record, node: str) -> Iterator[int]:
    """The ids of the step daemons and job processes of one node; its slurmd is not among them."""
    logs = step_logs(directory, record.base, (node,))
    for pid in process_ids():
        if is_job_process(environment_of(pid), record.base, {node}) or is_step_daemon(pid, logs):
            yield pid


def is_job_process(environment: dict[str, str], base: str, nodes: set[str]) -> bool:
    """Whether slurmd started the process, or one of its forefathers, as a job of these nodes."""
    return (
        environment.get("SLURMD_NODENAME") in nodes
        and environment.get("SLURM_CONF") == f"{base}/slurm.conf"
    )


def step_logs(directory: Path, base: str, nodes: tuple[str, ...]) -> set[str]:
    """The logs that step daemons of these nodes hold open, as the kernel may spell them."""
    places = {Layout(directory), Layout(Path(base)), Layout(directory.resolve())}
    return {str(layout.log(node)) for layout in places for node in nodes}
