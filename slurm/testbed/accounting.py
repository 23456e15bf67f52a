"""Accounting for the testbed: a private MariaDB and slurmdbd before it."""

import os
import subprocess

from slurm.testbed import configuration
from slurm.testbed.configuration import Ports
from slurm.testbed.daemons import Daemons
from slurm.testbed.errors import TestbedError
from slurm.testbed.layout import Layout
from slurm.testbed.processes import wait_until
from slurm.testbed.requirements import program, user_name

DATABASE = "mariadbd"
ACCOUNTING = "slurmdbd"
START_TIMEOUT_S = 60.0


def write_configuration(layout: Layout, ports: Ports) -> None:
    """Write what the two daemons read."""
    layout.mariadb_conf.write_text(configuration.mariadb_conf(layout))
    layout.slurmdbd_conf.touch(mode=0o600)
    layout.slurmdbd_conf.write_text(configuration.slurmdbd_conf(layout, ports, user=user_name()))


def create_database(layout: Layout) -> None:
    """Make the system tables; the one account is ours, and only through the socket."""
    command = [
        program("mariadb-install-db"),
        f"--defaults-file={layout.mariadb_conf}",
        f"--user={user_name()}",
        "--auth-root-authentication-method=socket",
        f"--auth-root-socket-user={user_name()}",
        "--skip-test-db",
        "--skip-name-resolve",
    ]
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    layout.log("mariadb-install-db").write_text(result.stdout)
    if result.returncode != 0:
        raise TestbedError(
            f"mariadb-install-db failed with exit code {result.returncode}\n"
            + layout.log_tail("mariadb-install-db")
        )


def start_database(daemons: Daemons, layout: Layout) -> None:
    """Start MariaDB and return once it accepts connections."""
    options = (f"--defaults-file={layout.mariadb_conf}", f"--user={user_name()}")
    daemons.start(DATABASE, "mariadbd", *options)

    def accepts() -> bool:
        daemons.check(DATABASE)
        return layout.mariadb_socket.is_socket()

    wait_until(
        accepts,
        timeout_s=START_TIMEOUT_S,
        what="MariaDB accepts connections",
        explain=lambda: daemons.explain(DATABASE),
    )


def start_slurmdbd(daemons: Daemons, layout: Layout) -> None:
    """Start slurmdbd; of use once `wait_until_it_answers` returns."""
    # Its configuration file has no word for a database socket, its client library does.
    socket = {"MYSQL_UNIX_PORT": os.fspath(layout.mariadb_socket)}
    daemons.start(ACCOUNTING, "slurmdbd", "-D", environment=socket)


def wait_until_it_answers(daemons: Daemons, environment: dict[str, str]) -> None:
    """Return once slurmdbd answers a question about its clusters."""
    complaint = ""

    def answers() -> bool:
        nonlocal complaint
        daemons.check(ACCOUNTING)
        result = subprocess.run(
            [program("sacctmgr"), "--noheader", "list", "cluster"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        complaint = result.stderr
        return result.returncode == 0

    wait_until(
        answers,
        timeout_s=START_TIMEOUT_S,
        interval_s=0.1,  # each look starts a process
        what="slurmdbd answers",
        explain=lambda: f"{complaint}{daemons.explain(ACCOUNTING)}",
    )
