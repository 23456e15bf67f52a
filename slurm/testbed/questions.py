"""What the testbed asks Slurm before it says that something is done."""

import subprocess
from collections.abc import Set
from typing import Protocol

from slurm.testbed.errors import TestbedError

READY_STATES = {"idle", "mixed", "allocated", "completing"}


class Run(Protocol):
    """`Cluster.run`, as far as it is needed here."""

    def __call__(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command against the cluster."""


def nodes_are_ready(run: Run, wanted: Set[str]) -> bool:
    """Whether jobs can start on these nodes, now or when they have room."""
    told = run("sinfo", "-h", "-N", "-p", "debug", "-o", "%N %T", check=False).stdout
    states = dict(line.split() for line in told.splitlines())
    return all(states.get(node) in READY_STATES for node in wanted)


def has_orders_left(run: Run) -> bool:
    """Whether slurmctld is still about to tell some node something."""
    return diagnosis(run, "Agent count") > 0


def is_accounted(run: Run) -> bool:
    """Whether sacct tells of every started job what squeue tells."""
    if diagnosis(run, "DBD Agent queue size") > 0:
        return False
    seen = run("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%N").stdout
    known = run("sacct", "-n", "-P", "-X", "-D", "-S", "now-1day", "-o", "jobid,state").stdout
    records = [line.partition("|") for line in known.splitlines()]
    states = {job_id: state.partition(" ")[0] for job_id, _, state in records}
    jobs = (line.split("|") for line in seen.splitlines())
    # Cancelled before it had a node, a job never started; sacct calls it 12_[0], not 12_0.
    started = (
        (job_id, state)
        for job_id, state, nodes in jobs
        if state != "PENDING" and not (state == "CANCELLED" and not nodes)
    )
    return all(states.get(job_id) == state for job_id, state in started)


def diagnosis(run: Run, name: str) -> int:
    """One number of `sdiag`."""
    for line in run("sdiag").stdout.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return int(value)
    raise TestbedError(f"sdiag does not tell {name!r}")
