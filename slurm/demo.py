"""The way through Slurm on a small synthetic data set: plan, submit, watch, verify, history.

The plan proposes to delete the sources, and `submit --yes` allows it: the elements free the disk.

python -m slurm.demo DIR
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from slurm.testbed import Cluster, TestbedError, TestbedUnavailable

SAMPLES = 24
PATIENCE_S = 180
EXIT_FAILED = 1
EXIT_UNAVAILABLE = 3


def main(arguments: list[str] | None = None) -> int:
    """Bring a cluster up, convert on it, take it down; 3 where no Slurm is installed."""
    parser = argparse.ArgumentParser(prog="python -m slurm.demo", description=__doc__)
    parser.add_argument("directory", metavar="DIR", type=Path)
    directory = parser.parse_args(arguments).directory.absolute()
    if directory.exists() and any(directory.iterdir()):
        sys.stderr.write(f"{directory} is not empty; the demo wants a new directory\n")
        return EXIT_FAILED
    made = write_synthetic_ctrate(directory / "ct-rate", samples=SAMPLES, faults=("corrupt",))
    try:
        with Cluster(directory / "cluster") as cluster:
            say(f"A Slurm of its own with the nodes {', '.join(cluster.nodes)} is up.")
            environment = {**os.environ, **cluster.environment()}
            return show(made, directory / "shards", environment)
    except TestbedError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_UNAVAILABLE if isinstance(error, TestbedUnavailable) else EXIT_FAILED


def show(made: SyntheticCtRate, out: Path, environment: dict[str, str]) -> int:
    """The commands, one after the other, as a person gives them on a login node."""
    tables = {
        "--data_folder": made.data_folder,
        "--reports_file": made.reports_file,
        "--meta_file": made.meta_file,
        "--labels_file": made.labels_file,
    }
    named = [str(word) for pair in tables.items() for word in pair]
    plan = ["plan", *named, "--output_dir", str(out), "--samples_per_shard", "2"]
    submit = ["submit", str(out), "--mem_gb", "0.5"]
    for words in ([*plan, "--delete_source_files"], [*submit, "--dry_run"], [*submit, "--yes"]):
        if run(words, environment) != 0:
            return EXIT_FAILED
    report = out / ".run" / "submissions" / "0001" / "report.json"
    deadline = time.monotonic() + PATIENCE_S
    while not report.exists() and time.monotonic() < deadline:
        run(["status", str(out)], environment)
        time.sleep(3)
    last = (["status", str(out)], ["verify", str(out)], ["history", str(out)],
            ["delete", str(out), "--dry_run"])  # fmt: skip
    codes = [run(words, environment) for words in last]
    return EXIT_FAILED if any(codes) or not report.exists() else 0


def run(words: list[str], environment: dict[str, str]) -> int:
    """One command, shown with what it says."""
    say(f"\n$ ctrate-convert {shlex.join(words)}")
    command = [sys.executable, "-m", "ctrate_convert", *words]
    return subprocess.run(command, env=environment, check=False).returncode


def say(text: str) -> None:
    """A line, before what the next command writes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
