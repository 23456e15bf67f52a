"""A dataset of an ordinary user, who is neither root nor Slurm's administrator."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ctrate_convert.synthetic import write_synthetic_ctrate
from slurm.testbed import Cluster
from tests.cluster.site import Site
from tests.support import Finished, plan_words, run_cli

_USER = 65534  # nobody
# Python may lie where only root may look; on a node the user's jobs have no such right.
_AS_USER = (
    "setpriv",
    f"--reuid={_USER}",
    f"--regid={_USER}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)


@dataclass
class UsersSite(Site):
    """A site whose commands an ordinary user gives."""

    def cli(self, *words: object) -> Finished:
        return run_cli(*words, env=self.env, before=_AS_USER)

    def slurm(self, *command: str) -> str:
        """What a command of Slurm prints to the user."""
        return subprocess.run(
            [*_AS_USER, *command], env=self.env, capture_output=True, text=True, check=True
        ).stdout


def require_two_users() -> None:
    """Skip where this process cannot become another user."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can run commands as another user")
    if subprocess.run([*_AS_USER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right can be left to another user here")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, as those of pytest are not."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ctrate-user-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@contextmanager
def users_site(cluster: Cluster, *, tasks: int) -> Iterator[UsersSite]:
    """Write and plan a data set of the user; at the end no job of it is left."""
    with open_folder() as folder:
        made = write_synthetic_ctrate(folder / "ct", samples=tasks, shape=(6, 5, 4), layout="flat")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, _USER, _USER)
        one = UsersSite(cluster, made, folder / "out")
        one.ok(*plan_words(made, one.out, "--samples_per_shard", 1))
        try:
            yield one
        finally:
            jobs = one.jobs_named()
            if jobs:
                cluster.run("scancel", *jobs, check=False)
