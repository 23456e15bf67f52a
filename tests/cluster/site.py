"""A dataset on the test cluster, and the commands a person would give on its login node."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctrate_convert.store.layout import Dataset
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from slurm.testbed import Cluster
from tests.support import Finished, command, plan_words, run_cli

SMALL_MEMORY_GB = 0.25
"""Enough for an element, and little enough that all of the cluster's cores can be used."""


@dataclass
class Site:
    """A plan of ``tasks`` shards of one sample each, and the cluster to convert it on."""

    cluster: Cluster
    made: SyntheticCtRate
    out: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def dataset(self) -> Dataset:
        return Dataset(self.out)

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, **self.cluster.environment(), **self.environment}

    def cli(self, *words: object) -> Finished:
        """A command, however it ends."""
        return run_cli(*words, env=self.env)

    def ok(self, *words: object) -> Finished:
        """A command that must do what it says."""
        done = self.cli(*words)
        assert done.code == 0, done.text
        return done

    def start(self, *words: object) -> subprocess.Popen[str]:
        """A command in the background."""
        return subprocess.Popen(
            command(*words), env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def submit(self, *words: object) -> Finished:
        return self.ok("submit", self.out, "--mem_gb", SMALL_MEMORY_GB, *words)

    def status(self) -> dict[str, Any]:
        facts: dict[str, Any] = self.ok("status", self.out, "--json").json()
        return facts

    def states(self) -> dict[int, str]:
        return {task["task"]: task["state"] for task in self.status()["tasks"]}

    def wait(
        self, until: Callable[[dict[str, Any]], bool], timeout_s: float = 90
    ) -> dict[str, Any]:
        """The first status of which ``until`` is true."""
        deadline = time.monotonic() + timeout_s
        while not until(facts := self.status()):
            assert time.monotonic() < deadline, f"waited in vain: {facts}"
            time.sleep(0.5)
        return facts

    def wait_until_settled(self, timeout_s: float = 90) -> dict[str, Any]:
        """The status once nothing is live any more."""
        ended = ("done", "failed", "cancelled", "unknown")
        return self.wait(
            lambda facts: all(task["state"] in ended for task in facts["tasks"]), timeout_s
        )

    def jobs_named(self) -> list[str]:
        """The ids of all arrays ever submitted for this dataset that the controller knows."""
        names = {
            array["job_name"]
            for path in self.dataset.submissions.glob("*/intent.json")
            for array in _json(path)["arrays"]
        }
        lines = self.cluster.run("squeue", "-h", "-t", "all", "-o", "%F %j").stdout
        return sorted({line.split()[0] for line in lines.splitlines() if line.split()[1] in names})


def _json(path: Path) -> dict[str, Any]:
    import json

    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


@contextmanager
def site(
    cluster: Cluster, folder: Path, *, tasks: int = 6, plan: tuple[object, ...] = (), **more: Any
) -> Iterator[Site]:
    """Write and plan a data set of one tiny sample a shard; at the end no job of it is left."""
    made = write_synthetic_ctrate(
        folder / "ct", samples=tasks, **{"shape": (6, 5, 4), "layout": "flat", **more}
    )
    one = Site(cluster, made, folder / "out")
    one.ok(*plan_words(made, one.out, "--samples_per_shard", 1, *plan))
    try:
        yield one
    finally:
        jobs = one.jobs_named()
        if jobs:
            cluster.run("scancel", *jobs, check=False)
