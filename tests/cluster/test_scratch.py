"""Scratch files on the node, where the profile says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slurm.testbed import Cluster
from tests.cluster.site import site

LONG_AGO = 1_000_000_000


@pytest.mark.parametrize("there", [True, False])
def test_scratch_files_lie_where_a_variable_of_the_node_says(
    cluster: Cluster, tmp_path: Path, there: bool
) -> None:
    """Where there is no such folder, the log says so and they lie beside the shards."""
    folder = tmp_path / "on the node"
    if there:
        folder.mkdir()
        os.utime(folder, (LONG_AGO, LONG_AGO))
    with site(cluster, tmp_path, tasks=2, plan=("--encoding", "b2nd")) as one:
        one.submit("--scratch", "$HERE", "--setup", f"export HERE='{folder}'")
        assert {task["state"] for task in one.wait_until_settled()["tasks"]} == {"done"}
        one.ok("verify", one.out, "--full", "--check_precision")
        said = "scratch files lie beside the shards" in one.ok("logs", one.out, 0).stdout
    assert said is not there
    if there:  # a file that comes and goes changes its folder's time
        assert folder.stat().st_mtime > LONG_AGO
        assert not list(folder.iterdir())
