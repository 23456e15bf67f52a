"""`doctor --cluster` through a real scheduler: two nodes are asked, and nothing is left."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slurm.testbed import Cluster
from tests.support import Finished, command, run_cli

ROOT = Path(__file__).parents[2]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "shards" / "train"
    folder.mkdir(parents=True)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return folder


def environment(cluster: Cluster) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **cluster.environment(), "PATH": path}


def profile(out: Path, text: str) -> Path:
    path = out.parent / "cluster.toml"
    path.write_text(text)
    return path


def ask(cluster: Cluster, out: Path, text: str, *words: object) -> Finished:
    return run_cli(
        "doctor", out, "--cluster", profile(out, text), *words, env=environment(cluster)
    )  # fmt: skip


def job_of(said: str) -> str:
    found = re.search(r"Job (\d+) tries", said)
    assert found, said
    return found[1]


def assert_nothing_is_left(cluster: Cluster, out: Path, job: str) -> None:
    assert not list(out.iterdir())
    assert not cluster.run("squeue", "-h", "-j", job, "-t", "PD,R,CG", check=False).stdout


def test_two_nodes_are_asked_and_nothing_is_left(cluster: Cluster, out: Path) -> None:
    """Two different nodes try everything; that all nodes here are one machine is told."""
    done = ask(cluster, out, "partition = 'debug'\n", "--json")
    assert done.code == 0, done.text
    found = {finding["what"]: finding for finding in done.json()["findings"]}
    assert found["publish by link"]["verdict"] == "good"
    first, second = re.findall(r"c\d+n\d", found["two nodes"]["seen"])
    assert {first, second} <= set(cluster.nodes)
    assert first != second
    assert "one machine" in found["two nodes"]["seen"]
    for what, seen in (
        ("flock between nodes", "excluded while held, let in"),
        ("filelock between nodes", "excluded while held, let in"),
        ("seen by the other node", "a new name, and the answer to it, within"),
        ("one link wins between nodes", "50 rounds: "),
        ("clocks of the nodes", "s apart"),
        ("appends from two nodes", "lines"),
    ):
        assert found[what]["verdict"] == "weaker"
        assert seen in found[what]["seen"]
    job = job_of(done.stderr)
    assert_nothing_is_left(cluster, out, job)
    cluster.wait_until_accounted()
    told = cluster.run("sacct", "-n", "-P", "-X", "-j", job, "-o", "state,nnodes,partition").stdout
    assert told.split() == ["COMPLETED|2|debug"]


def test_the_command_in_the_documents_runs_as_it_stands_there(cluster: Cluster, out: Path) -> None:
    """The table shows both nodes."""
    text = (ROOT / "docs" / "howto.md").read_text()
    written = re.findall(r"^\$ (ctrate-convert doctor .*--cluster .*)$", text, re.MULTILINE)
    assert written
    done = subprocess.run(
        written[0], shell=True, cwd=out.parents[1], env=environment(cluster),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(set(re.findall(r"c\d+n\d", done.stdout))) == 2
    assert_nothing_is_left(cluster, out, job_of(done.stderr))


def test_a_job_that_never_starts_is_cancelled_and_counts_as_not_tested(
    cluster: Cluster, out: Path
) -> None:
    """Why it did not start is in the finding; the exit code is not that of success."""
    held = "[additional_parameters]\nhold = true\n"
    done = ask(cluster, out, held, "--patience_min", 0.1, "--json")
    assert done.code == 5, done.text
    last = done.json()["findings"][-1]
    assert (last["what"], last["verdict"]) == ("two nodes", "not tested")
    assert "PENDING (JobHeldUser)" in last["seen"]
    assert_nothing_is_left(cluster, out, job_of(done.stderr))


def test_a_job_that_dies_counts_as_not_tested(cluster: Cluster, out: Path) -> None:
    done = ask(cluster, out, "setup = ['exit 7']\n")
    assert done.code == 5, done.text
    assert "not tested" in done.stdout
    assert "FAILED" in done.stdout
    assert_nothing_is_left(cluster, out, job_of(done.stderr))


def test_ctrl_c_cancels_the_job(cluster: Cluster, out: Path) -> None:
    """Nothing of it goes on behind the back of who gave it up."""
    words = command(
        "doctor", out, "--cluster", profile(out, "[additional_parameters]\nhold = true\n")
    )
    with subprocess.Popen(
        words, env=environment(cluster), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        job = job_of(process.stderr.readline())
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"job {job} was cancelled" in said
    assert_nothing_is_left(cluster, out, job)
