"""The READMEs' way through Slurm runs as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctrate_convert.store.layout import Dataset
from ctrate_convert.synthetic import write_synthetic_ctrate
from slurm.testbed import Cluster
from tests.documents.test_documents import answering, asks

ROOT = Path(__file__).parents[2]
SECTIONS = (
    ("README.md", "## On a Slurm cluster"),
    ("README.zh-CN.md", "## 在 Slurm 集群上"),
)
NOTHING_FAILED = 4


def commands(document: str, heading: str) -> list[str]:
    """What stands after ``$`` in the section's blocks, with its continuations."""
    section = (ROOT / document).read_text().partition(f"{heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [
        command.removeprefix("$ ")
        for block in blocks
        for command in re.split(r"\n(?=\$ )", block.strip())
    ]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder as the documents assume it: config/ and data/ with the training split."""
    made = write_synthetic_ctrate(tmp_path / "data", samples=8, shape=(12, 12, 6), seed=3)
    made.data_folder.rename(tmp_path / "data" / "train_npz")
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def wait_for_the_finaliser(out: Path, timeout_s: float = 120) -> None:
    newest = max(Dataset(out).submissions.iterdir())
    deadline = time.monotonic() + timeout_s
    while not (newest / "report.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_reading_everything_back_runs_in_its_order(cluster: Cluster, home: Path) -> None:
    """What the how-to says of jobs that verify, once they have ended."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **cluster.environment(), "PATH": path}
    plan = "ctrate-convert plan --config config/train.toml --exclude_file data/no_chest_train.txt"
    written = commands("docs/howto.md", "## Read everything back on the cluster")
    assert any(" --submit" in command for command in written)
    for command in (plan, "ctrate-convert run shards/train --keep_source_files", *written):
        if " --result" in command:
            deadline = time.monotonic() + 120
            while cluster.run("squeue", "--noheader").stdout.strip():
                assert time.monotonic() < deadline
                time.sleep(0.5)
        done = subprocess.run(
            command, shell=True, cwd=home, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(("document", "heading"), SECTIONS)
def test_the_readmes_way_through_slurm_runs_in_its_order(
    document: str, heading: str, cluster: Cluster, home: Path
) -> None:
    """Someone who types it, and lets the jobs end, gets from the plan to the freed disk."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **cluster.environment(), "PATH": path}
    written = commands(document, heading)
    assert any(" submit " in command for command in written)
    assert written[-1].startswith("ctrate-convert delete ")
    for command in written:
        with answering("DELETE" if asks(command) else "") as stdin:
            done = subprocess.run(
                command, shell=True, cwd=home, env=environment, stdin=stdin,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        said = f"{command}\n{done.stdout}{done.stderr}"
        if done.returncode == NOTHING_FAILED and " relaunch " in command:
            assert "nothing failed" in done.stderr, said
            continue
        assert done.returncode == 0, said
        if " submit " in command and "--dry_run" not in command:
            wait_for_the_finaliser(home / "shards" / "train")
    assert not list((home / "data" / "train_npz").rglob("*.npz"))
    assert list((home / "shards" / "train").glob("shard-*.tar"))
