"""What the testbed needs from the machine, and where it is found."""

import os
import pwd
import shutil
import sys

from slurm.testbed.errors import TestbedUnavailable

SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where daemons live; an ordinary user's PATH often leaves these out."""

PROGRAMS = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "scontrol": "slurm-client",
    "sinfo": "slurm-client",
    "squeue": "slurm-client",
    "srun": "slurm-client",
    "sacct": "slurm-client",
}
ACCOUNTING_PROGRAMS = {
    "slurmdbd": "slurmdbd",
    "sacctmgr": "slurm-client",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
"""Program to Debian package, without and additionally with accounting."""


def search_path() -> str:
    """PATH with the directories of daemons behind it."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_DIRECTORIES])


def program(name: str) -> str:
    """The full path of an installed program; `TestbedUnavailable` if it is not installed."""
    found = shutil.which(name, path=search_path())
    if found is None:
        raise TestbedUnavailable(f"the program {name} is not installed")
    return found


def user_name() -> str:
    """The account this process runs as, which is also the cluster's administrator."""
    return pwd.getpwuid(os.geteuid()).pw_name


def unavailable_reason(*, accounting: bool = True) -> str | None:
    """Why this machine cannot run a testbed, with the command that repairs it; None if it can."""
    if not sys.platform.startswith("linux"):
        return f"a Slurm testbed needs Linux, this is {sys.platform}"
    try:
        user_name()
    except KeyError:
        return f"a Slurm testbed needs a named account, user id {os.geteuid()} has no name"
    wanted = PROGRAMS | (ACCOUNTING_PROGRAMS if accounting else {})
    path = search_path()
    missing = [name for name in wanted if shutil.which(name, path=path) is None]
    if not missing:
        return None
    packages = sorted({wanted[name] for name in missing})
    return (
        f"a Slurm testbed needs {', '.join(missing)}; install with: "
        f"apt-get install --no-install-recommends {' '.join(packages)}"
    )


def require(*, accounting: bool) -> None:
    """Return only if this machine can run a testbed; else raise `TestbedUnavailable`."""
    if reason := unavailable_reason(accounting=accounting):
        raise TestbedUnavailable(reason)
