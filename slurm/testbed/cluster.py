"""The testbed as one object: up, down, and faults as verbs."""

import os
import subprocess
from pathlib import Path
from types import TracebackType

from slurm.testbed import accounting as accounting_daemons
from slurm.testbed import bringup, questions
from slurm.testbed.bringup import CONTROLLER, Parts
from slurm.testbed.configuration import MemoryLimits, Settings
from slurm.testbed.errors import TestbedError
from slurm.testbed.guard import Guard
from slurm.testbed.processes import end_all, wait_until
from slurm.testbed.requirements import program, require, user_name
from slurm.testbed.teardown import node_processes, take_down

SLURM_PREFIXES = ("SLURM", "SBATCH_", "SALLOC_", "SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_")
POLL_INTERVAL_S = 0.1  # each look starts a process


class Cluster:
    """A real Slurm for the length of a `with` block, or from `start()` to `stop()`.

    The directory is made if absent; configuration and logs stay in it afterwards. A cluster whose
    starter was killed takes itself down. Who starts it is its administrator, and unless that is
    root the only user whose jobs it runs.

    Nodes are called after the controller's port, see `nodes`. Partitions are `debug` (default, at
    most a day), `short` (at most 5 minutes), and `urgent`, whose jobs requeue jobs of the others.
    """

    def __init__(
        self,
        directory: Path,
        *,
        accounting: bool = True,
        nodes: int = 3,
        cpus_per_node: int = 2,
        memory_mb_per_node: int = 4000,
        max_array_size: int = 1001,
        min_job_age_s: int = 300,
        memory_limits: MemoryLimits = "auto",
        enforce_associations: bool = False,
    ) -> None:
        self.directory = directory.absolute()
        self.settings = Settings(
            accounting=accounting,
            nodes=nodes,
            cpus_per_node=cpus_per_node,
            memory_mb_per_node=memory_mb_per_node,
            max_array_size=max_array_size,
            min_job_age_s=min_job_age_s,
            memory_limits=memory_limits,
            enforce_associations=enforce_associations,
        )
        self._running: Parts | None = None
        self._guard: Guard | None = None
        self._failed_nodes: set[str] = set()

    # Up and down

    def __enter__(self) -> "Cluster":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, *, outlive_starter: bool = False, timeout_s: float = 60) -> None:
        """Bring everything up and return when all nodes are idle; a failure leaves nothing up.

        With `outlive_starter` only `take_down(directory)` ends it once this process is gone.
        """
        require(accounting=self.settings.accounting)
        bringup.claim(self.directory)
        try:
            self._running = parts = bringup.prepare(self.directory, self.settings)
            if not outlive_starter:
                self._guard = Guard(self.directory, parts.daemons.output("guard"))
            bringup.start_everything(parts)
            self.wait_until_ready(timeout_s)
            if self.settings.enforce_associations:
                self.add_account("testbed")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill all of it, running jobs too, and remove its state; fine to call twice."""
        try:
            take_down(self.directory)
        finally:
            if self._guard is not None:
                self._guard.dismiss()
            self._guard = self._running = None
            self._failed_nodes.clear()

    def wait_until_ready(self, timeout_s: float = 60) -> None:
        """Return once jobs can start on every node that was not failed on purpose."""
        parts = self._parts
        wait_until(
            self._is_ready,
            timeout_s=timeout_s,
            interval_s=POLL_INTERVAL_S,
            what="the cluster is ready",
            explain=lambda: parts.daemons.explain(CONTROLLER, *parts.record.nodes),
        )

    def wait_until_accounted(self, timeout_s: float = 60) -> None:
        """Return once sacct tells of every started job what squeue tells.

        It takes up to 5 s: slurmctld reports starts in bulk, ends at once. A task of an array
        that ends between is one record without index, of the name `allocation`, until then.
        """
        wait_until(
            lambda: questions.is_accounted(self.run),
            timeout_s=timeout_s,
            interval_s=POLL_INTERVAL_S,
            what="sacct tells what squeue tells",
        )

    # Use

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes, what SLURMD_NODENAME tells a job."""
        return self._parts.record.nodes

    @property
    def memory_limits(self) -> MemoryLimits:
        """How memory is limited here: `auto` resolved to what the machine permits."""
        return self._parts.limits

    def environment(self) -> dict[str, str]:
        """What to set in the environment so that Slurm's commands, and submitit, come here."""
        return {"SLURM_CONF": str(self._parts.layout.slurm_conf)}

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command against this cluster, free of the caller's other Slurm variables.

        With `check`, failure raises `TestbedError` with what the command printed.
        """
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(SLURM_PREFIXES)
        }
        result = subprocess.run(
            [program(command[0]), *command[1:]],
            env=inherited | self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and result.returncode != 0:
            raise TestbedError(
                f"{' '.join(command)} failed with exit code {result.returncode}\n"
                f"{result.stdout}{result.stderr}"
            )
        return result

    def add_account(self, name: str, *limits: str) -> None:
        """Make an account that the present user may charge; limits like `MaxSubmitJobs=5`."""
        self.run("sacctmgr", "--immediate", "add", "account", name)
        user = user_name()
        self.run("sacctmgr", "--immediate", "add", "user", user, f"account={name}", *limits)

    def add_qos(self, name: str, *limits: str) -> None:
        """Make a quality of service that every account may use."""
        self.run("sacctmgr", "--immediate", "add", "qos", name, *limits)
        self.run("sacctmgr", "--immediate", "modify", "cluster", "set", f"qos+={name}")

    def admit_users(self) -> None:
        """Let every user of this machine submit jobs; only root can run those of others."""
        base = self._parts.layout.base
        for folder in (base / "run", base / "spool", *(base / "spool").iterdir()):
            folder.chmod(0o711)  # munge's socket, and the copies of the job scripts

    # Faults

    def stop_accounting(self) -> None:
        """Stop slurmdbd: sacct fails, slurmctld keeps what it has to tell for later."""
        self._parts.daemons.stop(accounting_daemons.ACCOUNTING)

    def start_accounting(self) -> None:
        """Start slurmdbd again and return when sacct works.

        What happened meanwhile arrives bit by bit, jobs first and their steps up to 20 s later:
        slurmctld pauses after a failure. `wait_until_accounted` waits for all of it.
        """
        bringup.start_accounting(self._parts)

    def stop_controller(self) -> None:
        """Stop slurmctld properly: running jobs go on, every command but sacct fails."""
        self._parts.daemons.stop(CONTROLLER)

    def start_controller(self) -> None:
        """Start slurmctld again, with the jobs it knew, and return when the nodes are back."""
        bringup.start_controller(self._parts)
        self.wait_until_ready()

    def fail_node(self, node: str) -> None:
        """Cut the node's power: nothing on it gets a last word, and Slurm is told it is down."""
        parts = self._parts
        if node not in self.nodes:
            raise TestbedError(f"no node {node!r}; there are {', '.join(self.nodes)}")
        self._failed_nodes.add(node)
        parts.daemons.kill(node)
        end_all(lambda: node_processes(self.directory, parts.record, node), timeout_s=10)
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=testbed")

    def resume_node(self, node: str) -> None:
        """Bring a failed node back and return when it can run jobs, the requeued ones too."""
        bringup.start_node(self._parts, node)
        self.run("scontrol", "update", f"nodename={node}", "state=resume")
        self._failed_nodes.discard(node)
        self.wait_until_ready()
        # Until the node was reached, slurmctld repeats the order to kill what ran there. A
        # requeued job has the same id and would be killed by an order that comes late.
        wait_until(
            lambda: not questions.has_orders_left(self.run),
            timeout_s=60,
            interval_s=POLL_INTERVAL_S,
            what=f"slurmctld has no more orders for {node}",
        )

    def expire(self, job_id: str, after_s: int = 5) -> None:
        """Let a running job's time limit end in `after_s` seconds; acts within 30 s of that.

        Time limits are whole minutes, an end time is not. slurmctld looks at limits, and at the
        signals that warn of them, each 30 s only: leave 35 s for a warning to come first. Past
        its end a job can start no step, so one that has not reached its `srun` fails instead. A
        job that is requeued keeps the shortened limit.
        """
        self.run("scontrol", "update", f"jobid={job_id}", f"endtime=now+{after_s}")

    def start_now(self, job_id: str) -> None:
        """Spare a requeued job the two minutes for which Slurm holds it back."""
        # Not at once: within the second of its end slurmd takes the job's permit for revoked.
        self.run("scontrol", "update", f"jobid={job_id}", "starttime=now+2")

    # Inside

    @property
    def _parts(self) -> Parts:
        if self._running is None:
            raise TestbedError(f"no cluster is up in {self.directory}; call start() first")
        return self._running

    def _is_ready(self) -> bool:
        parts = self._parts
        parts.daemons.check(CONTROLLER)
        if not parts.ports.is_open(parts.ports.controller):
            return False  # a command would now wait two seconds before it asks again
        wanted = set(parts.record.nodes) - self._failed_nodes
        for node in wanted:
            parts.daemons.check(node)
        return questions.nodes_are_ready(self.run, wanted)
