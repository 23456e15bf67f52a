"""A cluster that wants a partition, an account and a qos, and a profile that names them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.testbed import Cluster
from tests.cluster.site import Site, site

EXAMPLE = Path(__file__).parents[2] / "config" / "clusters" / "example.toml"


@pytest.fixture(scope="module")
def strict(real_slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("strict"), enforce_associations=True) as running:
        running.add_account("p_radiology")
        running.add_qos("patient")
        yield running


@pytest.fixture
def two(strict: Cluster, tmp_path: Path) -> Iterator[Site]:
    with site(strict, tmp_path, tasks=2) as one:
        yield one


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """The example in the repository, with a partition and a qos of this cluster."""
    text = EXAMPLE.read_text()
    for name, example, here in (
        ("partition", "cpu", "debug"), ("qos", "normal", "patient"),
    ):  # fmt: skip
        assert f'{name} = "{example}"' in text
        text = text.replace(f'{name} = "{example}"', f'{name} = "{here}"')
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    return path


def keep_scripts(one: Site, folder: Path) -> None:
    """An sbatch on PATH that keeps a copy of every script it is given."""
    folder.mkdir()
    sbatch = folder / "sbatch"
    sbatch.write_text(
        "#!/bin/sh\n"
        "for script; do :; done\n"
        f'cp "$script" "$(mktemp "{folder}/$(date +%s%N)-XXXX.sh")"\n'
        f'exec "{shutil.which("sbatch")}" "$@"\n'
    )
    sbatch.chmod(0o755)
    one.environment["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def without_what_only_sbatch_knows(script: str) -> str:
    """Job names are drawn anew each time, and the finaliser waits for a job that has no id yet."""
    script = re.sub(r"ctrate-[0-9a-f]{8}-", "ctrate-DRAWN-", script)
    return re.sub(r"afterany:(\d+|JOBS)", "afterany:JOBS", script).strip()


def test_the_profile_reaches_slurm_and_the_dry_run_shows_the_very_scripts(
    two: Site, profile: Path, tmp_path: Path
) -> None:
    """What sbatch gets is what the dry run printed; Slurm books it as the profile says."""
    words = ("submit", two.out, "--profile", profile)
    dry = two.ok(*words, "--dry_run", "--json").json()
    printed = two.ok(*words, "--dry_run").stdout
    keep_scripts(two, tmp_path / "sbatch")
    two.ok(*words)
    got = [path.read_text() for path in sorted((tmp_path / "sbatch").glob("*.sh"))]
    assert [without_what_only_sbatch_knows(script) for script in got] == [
        without_what_only_sbatch_knows(array["script"]) for array in dry["arrays"]
    ]
    for script in got:
        assert without_what_only_sbatch_knows(script) in without_what_only_sbatch_knows(printed)

    assert {task["state"] for task in two.wait_until_settled()["tasks"]} == {"done"}
    two.cluster.wait_until_accounted()
    told = two.cluster.run(
        "sacct", "-n", "-P", "-X", "-j", two.jobs_named()[0],
        "-o", "partition,account,qos,alloccpus",
    ).stdout  # fmt: skip
    assert set(told.splitlines()) == {"debug|p_radiology|patient|1"}
    for line in ("umask 027", "#SBATCH --mail-type=END", "#SBATCH --nice=100"):
        assert line in got[0].splitlines()


def test_an_option_wins_over_the_profile(two: Site, profile: Path) -> None:
    words = ("submit", two.out, "--profile", profile, "--partition", "short", "--dry_run")
    text = two.ok(*words).stdout
    assert "#SBATCH --partition=short" in text
    assert "#SBATCH --account=p_radiology" in text


def test_an_account_that_slurm_refuses_costs_nothing(two: Site, profile: Path) -> None:
    """The scheduler's own words are shown, the tasks stay free, and the right account works."""
    refused = two.cli("submit", two.out, "--profile", profile, "--account", "nobody")
    assert refused.code == 5
    assert "Invalid account" in refused.stderr
    assert set(two.states().values()) == {"pending"}
    two.ok("submit", two.out, "--profile", profile)
    assert {task["state"] for task in two.wait_until_settled()["tasks"]} == {"done"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("array_paralelism = 4", "'array_parallelism', perhaps"),
        ("acount = 'x'", "'account', perhaps"),
        ("timeout_min = 0", "timeout_min"),
        ("partition = 'gpu'", "debug, short, urgent"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(
    two: Site, tmp_path: Path, line: str, said: str
) -> None:
    """An unknown name is refused with the nearest one, a partition with those there are."""
    path = tmp_path / "wrong.toml"
    path.write_text(line + "\n")
    refused = two.cli("submit", two.out, "--profile", path)
    assert refused.code == 1
    assert said in refused.stderr
    assert set(two.states().values()) == {"pending"}
