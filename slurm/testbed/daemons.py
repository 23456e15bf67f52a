"""One daemon: started in the foreground in a session of its own, recorded, stopped for certain."""

import contextlib
import json
import os
import signal
from pathlib import Path

from slurm.testbed.errors import TestbedError
from slurm.testbed.layout import Layout
from slurm.testbed.processes import is_running, kill, start_ticks, wait_until
from slurm.testbed.requirements import program, search_path

MARK = "SLURM_TESTBED_BASE"
"""Environment variable by which a daemon can be told even when its record was lost."""

STOP_TIMEOUT_S = 30.0  # slurmctld, while it cannot reach slurmdbd, takes up to 20


class Daemons:
    """The daemons of one testbed by name, as their records in the scratch directory tell.

    The records hold start times, so an id that the system gave to another process meanwhile is
    never taken for a daemon. Any process may stop what another one started.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def start(self, name: str, *command: str, environment: dict[str, str] | None = None) -> None:
        """Start the daemon, its output going to its log; it outlives the process that calls."""
        if self.is_running(name):
            raise TestbedError(f"{name} is running already, process {self.pid(name)}")
        log = os.open(self.output(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # No Popen: that would complain when its owner ends before the daemon does. A daemon
            # that crashes leaves its core where it works, which is not where the caller does.
            pid = os.posix_spawn(
                program("env"),
                ["env", f"--chdir={self._layout.base}", program(command[0]), *command[1:]],
                self._environment() | (environment or {}),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,
            )
        finally:
            os.close(log)
        record = {"pid": pid, "start_ticks": start_ticks(pid), "command": command}
        self._layout.daemon_record(name).write_text(json.dumps(record) + "\n")

    def output(self, name: str) -> Path:
        """What the daemon prints; Slurm's daemons and munge keep a log of their own besides."""
        return self._layout.log(f"{name}.output")

    def is_running(self, name: str) -> bool:
        """Whether the daemon of that name, the very one that was started, still runs."""
        process = self._process(name)
        return process is not None and is_running(*process)

    def pid(self, name: str) -> int | None:
        """The daemon's process id; None while it does not run."""
        process = self._process(name)
        return process[0] if process is not None and is_running(*process) else None

    def stop(self, name: str, signal_number: int = signal.SIGTERM) -> None:
        """Signal the daemon and wait for its end, with SIGKILL after a while; idempotent."""
        process = self._process(name)
        if process is not None and is_running(*process):
            kill(process[0], signal_number)
            with contextlib.suppress(TestbedError):
                self._wait_for_end(name, process)
            if is_running(*process):
                kill(process[0])
                self._wait_for_end(name, process)
        self._layout.daemon_record(name).unlink(missing_ok=True)

    def kill(self, name: str) -> None:
        """End the daemon without a last word."""
        self.stop(name, signal.SIGKILL)

    def check(self, name: str) -> None:
        """Return only if the daemon runs; otherwise raise with the end of its log."""
        if not self.is_running(name):
            raise TestbedError(f"{name} ended unexpectedly\n{self.explain(name)}")

    def explain(self, *names: str) -> str:
        """The ends of these daemons' logs, for an error message."""
        logs = [log for name in names for log in (f"{name}.output", name)]
        return "\n".join(filter(None, map(self._layout.log_tail, logs)))

    def _process(self, name: str) -> tuple[int, int] | None:
        try:
            record = json.loads(self._layout.daemon_record(name).read_text())
        except FileNotFoundError:
            return None
        ticks = record["start_ticks"]
        return None if ticks is None else (int(record["pid"]), int(ticks))

    def _environment(self) -> dict[str, str]:
        """Little of the starter's environment: it may itself be a Slurm job."""
        kept = {name: os.environ[name] for name in ("TZ", "LANG", "LC_ALL") if name in os.environ}
        return {
            **kept,
            "PATH": search_path(),
            "SLURM_CONF": str(self._layout.slurm_conf),
            MARK: str(self._layout.base),
        }

    @staticmethod
    def _wait_for_end(name: str, process: tuple[int, int]) -> None:
        wait_until(
            lambda: not is_running(*process), timeout_s=STOP_TIMEOUT_S, what=f"the end of {name}"
        )
