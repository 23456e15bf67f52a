"""The testbed from a shell.

eval "$(python -m slurm.testbed up DIR)"
sbatch --wrap 'srun hostname'
python -m slurm.testbed down DIR
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import get_args

from slurm.testbed.cluster import Cluster
from slurm.testbed.configuration import MemoryLimits, Settings
from slurm.testbed.errors import TestbedError, TestbedUnavailable
from slurm.testbed.guard import watch
from slurm.testbed.teardown import take_down

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_UNAVAILABLE = 3

NUMBERS = {
    "nodes": ("--nodes", "how many slurmd"),
    "cpus_per_node": ("--cpus-per-node", "may exceed what the machine has"),
    "memory_mb_per_node": ("--memory-mb-per-node", "may exceed what the machine has"),
    "max_array_size": ("--max-array-size", "largest array index, plus one"),
    "min_job_age_s": ("--min-job-age", "seconds for which squeue remembers an ended job"),
}


def parser() -> argparse.ArgumentParser:
    """The command line; options that are not given keep the defaults of `Cluster`."""
    main_parser = argparse.ArgumentParser(
        prog="python -m slurm.testbed", description="A throw-away Slurm cluster in one directory."
    )
    commands = main_parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser(
        "up", help="bring a cluster up in DIR and print what to put into the environment"
    )
    up.add_argument("directory", metavar="DIR", type=Path)
    up.add_argument("--no-accounting", dest="accounting", action="store_false")
    for setting, (option, meaning) in NUMBERS.items():
        up.add_argument(
            option,
            dest=setting,
            metavar="N",
            type=int,
            default=getattr(Settings(), setting),
            help=f"{meaning} (%(default)s)",
        )
    up.add_argument("--memory-limits", choices=get_args(MemoryLimits), default="auto")
    down = commands.add_parser("down", help="take down the cluster in DIR, whoever started it")
    down.add_argument("directory", metavar="DIR", type=Path)
    watcher = commands.add_parser("guard")  # not for people: no help
    watcher.add_argument("directory", metavar="DIR", type=Path)
    return main_parser


def up(options: argparse.Namespace) -> None:
    """Bring a cluster up that outlives this process; print its environment for `eval`."""
    cluster = Cluster(
        options.directory,
        accounting=options.accounting,
        **{setting: getattr(options, setting) for setting in NUMBERS},
        memory_limits=options.memory_limits,
    )
    cluster.start(outlive_starter=True)
    for name, value in cluster.environment().items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


def down(options: argparse.Namespace) -> None:
    """Take the cluster down; a directory without one is fine."""
    if not take_down(options.directory):
        sys.stderr.write(f"no cluster is up in {options.directory}\n")


def guard(options: argparse.Namespace) -> None:
    """Watch over a cluster on behalf of the process that started this one."""
    watch(options.directory)


COMMANDS = {"up": up, "down": down, "guard": guard}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 done, 1 failed, 2 wrong usage, 3 the machine cannot run a cluster."""
    options = parser().parse_args(arguments)
    try:
        COMMANDS[options.command](options)
    except TestbedError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_UNAVAILABLE if isinstance(error, TestbedUnavailable) else EXIT_FAILED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
