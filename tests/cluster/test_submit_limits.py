"""Limits on submitted jobs, wherever Slurm keeps them; and refusals that nobody could foresee."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm.testbed import Cluster
from tests.cluster.faults import Faults
from tests.cluster.site import Site, site


@pytest.fixture(scope="module")
def limited(real_slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(
        tmp_path_factory.mktemp("limited"), max_array_size=6, enforce_associations=True
    ) as running:
        yield running


@pytest.fixture
def ten(limited: Cluster, tmp_path: Path) -> Iterator[Site]:
    with site(limited, tmp_path, tasks=10) as one:
        yield one


def sacctmgr(one: Site, *words: str) -> None:
    one.cluster.run("sacctmgr", "--immediate", *words)


def room(one: Site, *words: object) -> int:
    """How many tasks a submission would take."""
    done: dict[str, Any] = one.ok("submit", one.out, *words, "--dry_run", "--json").json()
    return sum(len(array["tasks"].split(",")) if "-" not in array["tasks"] else
               1 + int(array["tasks"].split("-")[1]) - int(array["tasks"].split("-")[0])
               for array in done["arrays"] if array["tasks"])  # fmt: skip


def takes(one: Site, number: int, *words: str) -> bool:
    """Whether Slurm itself takes so many jobs now: the limit is real."""
    array = f"--array=0-{number - 1}"
    done = one.cluster.run("sbatch", "--hold", array, *words, "--wrap", "true", check=False)
    if done.returncode == 0:
        one.cluster.run("scancel", done.stdout.split()[-1])
    return done.returncode == 0


def test_the_quality_of_service_of_the_partition(ten: Site) -> None:
    ten.cluster.add_qos("of_partition", "MaxSubmitJobsPerUser=4")
    ten.cluster.run("scontrol", "update", "PartitionName=short", "QoS=of_partition")
    assert takes(ten, 4, "-p", "short")
    assert not takes(ten, 5, "-p", "short")
    assert room(ten, "--partition", "short") == 3  # and the finaliser
    assert room(ten) == 10
    held = ten.cluster.run("sbatch", "--hold", "-p", "short", "--array=0-1", "--wrap", "true")
    try:  # jobs there count under it, whatever their own quality of service is
        assert takes(ten, 2, "-p", "short")
        assert not takes(ten, 3, "-p", "short")
        assert room(ten, "--partition", "short") == 1
    finally:
        ten.cluster.run("scancel", held.stdout.split()[-1])


def test_an_account_above(ten: Site) -> None:
    """A sibling account's jobs count there, too."""
    sacctmgr(ten, "add", "account", "above", "GrpSubmitJobs=6")
    for name in ("below", "sibling"):
        sacctmgr(ten, "add", "account", name, "parent=above")
        sacctmgr(ten, "add", "user", "root", f"account={name}")
    held = ten.cluster.run("sbatch", "--hold", "-A", "sibling", "--wrap", "true").stdout.split()[-1]
    try:
        assert takes(ten, 5, "-A", "below")
        assert not takes(ten, 6, "-A", "below")
        assert room(ten, "--account", "below") == 4
    finally:
        ten.cluster.run("scancel", held)


def test_the_default_quality_of_service_and_not_the_least_of_all(ten: Site) -> None:
    ten.cluster.add_qos("least", "MaxSubmitJobsPerUser=2")
    ten.cluster.add_account("several")
    sacctmgr(ten, "modify", "user", "root", "where", "account=several",
             "set", "qos=normal,least", "defaultqos=normal")  # fmt: skip
    assert takes(ten, 5, "-A", "several")
    assert room(ten, "--account", "several") == 10
    sacctmgr(ten, "modify", "user", "root", "where", "account=several", "set", "defaultqos=least")
    assert not takes(ten, 3, "-A", "several")
    assert room(ten, "--account", "several") == 1
    assert room(ten, "--account", "several", "--qos", "normal") == 10


def test_limits_that_slurm_does_not_enforce(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add_account("unenforced", "MaxSubmitJobs=2")
    with site(cluster, tmp_path, tasks=4) as one:
        assert takes(one, 4, "-A", "unenforced")
        assert room(one, "--account", "unenforced") == 4


def test_the_partition_of_the_environment(ten: Site) -> None:
    """sbatch heeds SBATCH_PARTITION where the profile names none; so do the limits."""
    ten.environment["SBATCH_PARTITION"] = "short"
    done = ten.ok("submit", ten.out, "--timeout_min", 60, "--dry_run")
    assert "#SBATCH --time=5\n" in done.stdout
    assert "partition short grants 5 min" in done.stdout


@pytest.fixture
def blind(ten: Site, tmp_path: Path) -> Site:
    """A site whose limits nobody can ask for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sacctmgr", "sinfo"):
        (folder / name).write_text("#!/bin/sh\necho 'not for you' >&2\nexit 1\n")
        (folder / name).chmod(0o755)
    ten.environment["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return ten


def test_after_a_refusal_for_a_limit_less_is_tried_and_all_of_it_told(blind: Site) -> None:
    """Arrays of six: the first is accepted, the others shrink until Slurm takes them."""
    blind.cluster.add_account("unseen", "MaxSubmitJobs=9")
    done = blind.cli("submit", blind.out, "--account", "unseen", "--setup", "sleep 5",
                     "--mem_gb", 0.25)  # fmt: skip
    assert done.code == 5, done.text
    assert "limits on submitted jobs are not known" in done.stdout
    assert "tasks were not accepted; they stay free" in done.stdout
    assert "Not submitted: " in done.stdout
    lives = sum(task["evidence"] != "plan" for task in blind.status()["tasks"])
    assert 6 <= lives <= 8
    # Each array that was accepted has its finaliser, and is told.
    told = done.stdout.count("finaliser (")
    assert told >= 1
    jobs = [line for line in done.stdout.splitlines() if line.startswith("Job ")]
    assert len(jobs) == len(blind.jobs_named())

    blind.wait(lambda facts: sum(task["state"] == "done" for task in facts["tasks"]) == lives)
    blind.wait(lambda facts: not blind.cluster.run("squeue", "-h").stdout)
    again = blind.cli("submit", blind.out, "--account", "unseen", "--mem_gb", 0.25)
    assert again.code == 0, again.text
    assert {task["state"] for task in blind.wait_until_settled()["tasks"]} == {"done"}


def test_one_array_that_is_refused_does_not_stop_the_others(blind: Site, tmp_path: Path) -> None:
    """Nobody knows how large the nodes are: twice the memory is too much, the rest is submitted."""
    faults = Faults(tmp_path / "faults")
    faults.at(4, "error")  # the second array has no such element
    faults.at(5, "memory")
    blind.ok("submit", blind.out, "--mem_gb", 2.5, "--account", "testbed", *faults.words())
    blind.wait(
        lambda facts: [task["state"] for task in facts["tasks"][4:6]] == ["failed"] * 2,
        timeout_s=180,
    )
    faults.clear()
    done = blind.cli("relaunch", blind.out)
    assert done.code == 5, done.text
    assert "REFUSED: 1 task (ran out of memory)" in done.stdout
    assert "1 of 2 tasks were not accepted" in done.stdout
    assert "finaliser" in done.stdout
    blind.wait(lambda facts: facts["tasks"][4]["state"] == "done")
    assert blind.states()[5] == "failed"
    del blind.environment["PATH"]  # now the nodes' memory is known, and is the limit
    more = blind.ok("relaunch", blind.out)
    assert "partition debug grants 4000 MB" in more.stdout
    assert {task["state"] for task in blind.wait_until_settled()["tasks"]} == {"done"}


def test_the_relaunch_of_many_that_ran_out_of_memory_is_one_array(
    ten: Site, tmp_path: Path
) -> None:
    faults = Faults(tmp_path / "faults")
    for index in (3, 4, 5):
        faults.at(index, "memory")
    ten.submit(*faults.words(), "--account", "testbed")
    ten.wait(
        lambda facts: {facts["tasks"][task]["state"] for task in (3, 4, 5, 9)} == {"failed"},
        timeout_s=120,
    )
    arrays = ten.ok("relaunch", ten.out, "--dry_run", "--json").json()["arrays"]
    (group,) = [array for array in arrays if array["why"] == "ran out of memory"]
    assert group["tasks"] == "3-5,9"
    assert group["resources"]["mem_mb"] % 256 == 0


def test_a_verification_that_is_refused_for_a_limit_submits_no_task_twice(blind: Site) -> None:
    """What the first round got stays; the next one tries less of the rest, and says how much."""
    blind.ok("run", blind.out, "--keep_source_files")
    blind.cluster.add_account("checks", "MaxSubmitJobs=9")
    profile = blind.out.with_name("profile.toml")
    profile.write_text(
        'account = "checks"\nmem_gb = 0.25\n[additional_parameters]\nbegin = "now+1hour"\n'
    )
    done = blind.cli("verify", blind.out, "--full", "--submit", "--profile", profile)
    (work,) = blind.status()["other_work"]
    assert len(work["tasks"]) == len(set(work["tasks"]))
    assert 6 <= len(work["tasks"]) <= 9
    left = 10 - len(work["tasks"])
    assert f"{left} of 10 tasks were not accepted" in done.stdout
    assert done.code == (5 if "Not submitted" in done.stdout else 0), done.text
    blind.ok("cancel", blind.out)
    blind.wait(lambda facts: not blind.cluster.run("squeue", "-h").stdout)
    profile.write_text('account = "checks"\nmem_gb = 0.25\n')
    while blind.cli("verify", blind.out, "--result").code != 0:
        assert blind.cli("verify", blind.out, "--full", "--submit", "--profile", profile).code in (
            0,
            5,
        )
        blind.wait(lambda facts: not blind.cluster.run("squeue", "-h").stdout)
