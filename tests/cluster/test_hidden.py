"""A partition that Slurm hides from ordinary users: their live jobs are seen all the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slurm.testbed import Cluster
from tests.cluster.user import UsersSite, open_folder, require_two_users, users_site


@pytest.fixture(scope="module")
def hidden(real_slurm: None) -> Iterator[Cluster]:
    """No accounting, which would tell of hidden jobs too; `short` is hidden."""
    require_two_users()
    with open_folder() as folder, Cluster(folder, accounting=False) as running:
        running.admit_users()
        running.run("scontrol", "update", "PartitionName=short", "Hidden=YES")
        yield running


@pytest.fixture
def two(hidden: Cluster) -> Iterator[UsersSite]:
    with users_site(hidden, tasks=2) as one:
        yield one


def test_what_lives_in_it_is_neither_lost_nor_run_twice(two: UsersSite) -> None:
    two.submit("--partition", "short", "--setup", "sleep 300")
    assert "ctrate" not in two.slurm("squeue", "-h", "-o", "%j")  # Slurm does hide it
    seen = two.status()["tasks"]
    assert {task["state"] for task in seen} <= {"pending", "running"}
    assert {task["evidence"] for task in seen} == {"squeue"}

    for words in (
        ("submit", two.out),
        ("relaunch", two.out, "--include_unknown"),
    ):
        refused = two.cli(*words)
        assert refused.code == 4, refused.text
    assert "2 tasks left to Slurm" in two.ok("run", two.out, "--num_workers", 1).stderr
    assert len(two.jobs_named()) == 2  # one array and its finaliser

    assert "Cancelled 2 tasks" in two.ok("cancel", two.out).stdout
    two.wait(lambda facts: {task["state"] for task in facts["tasks"]} == {"cancelled"})


def test_its_limits_are_kept(two: UsersSite) -> None:
    """Its time limit is five minutes; the profile asks for more, which is said."""
    done = two.ok(
        "submit", two.out, "--partition", "short", "--timeout_min", 60, "--dry_run", "--json"
    ).json()
    assert done["arrays"][0]["resources"]["timeout_min"] == 5
    assert any("60 min" in note and "5 min" in note for note in done["notes"]), done["notes"]
