"""What waits in vain is told, with the command that mends it; a watch does not wait for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.testbed import Cluster
from tests.cluster.site import Site, site


@pytest.fixture
def three(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    with site(cluster, tmp_path, tasks=3) as one:
        yield one


def watched(one: Site) -> tuple[int, str]:
    """The exit code and the last picture of a watch, which must end by itself."""
    done = one.cli("status", one.out, "--watch")
    return done.code, done.stdout


def test_a_held_task_is_stuck_until_it_is_released(three: Site) -> None:
    three.submit("--setup", "sleep 3", "--additional_parameters", "hold")
    told = three.wait(lambda facts: {task["state"] for task in facts["tasks"]} == {"stuck"})
    assert {task["reason"] for task in told["tasks"]} == {"JobHeldUser"}
    jobs = {one["task"]: one["next_command"] for one in told["stuck"] if one["task"] is not None}
    assert jobs == {task["task"]: f"scontrol release {task['job']}" for task in told["tasks"]}

    code, text = watched(three)
    assert code == 5
    assert "Tasks: 3 stuck." in text
    assert "Stuck: tasks 0-2, jobs" in text
    assert "Mend each as the first: scontrol release" in text

    assert three.cli("submit", three.out).code == 4  # it lives, and so is not submitted again
    for command in (*jobs.values(), *(one["next_command"] for one in told["stuck"])):
        subprocess.run(command.split(), env=three.env, check=True)
    assert {task["state"] for task in three.wait_until_settled()["tasks"]} == {"done"}


def test_an_option_of_the_profile_can_be_taken_back(three: Site) -> None:
    """Else what was held once would be held again by every relaunch."""
    three.submit("--additional_parameters", "hold")
    three.wait(lambda facts: {task["state"] for task in facts["tasks"]} == {"stuck"})
    three.ok("cancel", three.out)
    three.wait(lambda facts: {task["state"] for task in facts["tasks"]} == {"cancelled"})
    again = three.cli("cancel", three.out)
    assert again.code == 4, again.text  # the finaliser is gone, too, and its job's id is not used
    assert "nothing is live" in again.stderr
    three.ok("relaunch", three.out, "--additional_parameters", "hold=")
    assert {task["state"] for task in three.wait_until_settled()["tasks"]} == {"done"}


def test_a_time_limit_that_no_partition_grants(three: Site) -> None:
    """It was lowered after the submission."""
    three.cluster.run("scontrol", "update", "PartitionName=urgent", "State=DOWN")
    try:
        three.submit("--partition", "urgent", "--timeout_min", 600)
        three.cluster.run("scontrol", "update", "PartitionName=urgent", "MaxTime=60", "State=UP")
        told = three.wait(lambda facts: {task["state"] for task in facts["tasks"]} == {"stuck"})
    finally:
        three.cluster.run("scontrol", "update", "PartitionName=urgent", "MaxTime=1-0", "State=UP")
    assert {task["reason"] for task in told["tasks"]} == {"PartitionTimeLimit"}
    assert all("--timeout_min" in one["next_command"] for one in told["stuck"] if one["task"])


def test_a_held_element_of_a_done_task_keeps_its_finaliser_waiting(three: Site) -> None:
    three.submit("--setup", "sleep 4")
    job = three.wait(lambda facts: facts["tasks"][0]["state"] == "running")["tasks"][0]["job"]
    three.cluster.run("scontrol", "requeuehold", job)
    three.ok("run", three.out, "--num_workers", 1, "--ignore_submissions")
    told = three.wait(
        lambda facts: (
            {task["state"] for task in facts["tasks"]} == {"done"} and len(facts["stuck"]) == 2
        ),
        timeout_s=120,
    )
    element, finaliser = told["stuck"]
    assert (element["task"], element["job"]) == (0, job)
    assert finaliser["task"] is None
    assert element["next_command"] == finaliser["next_command"] == f"scontrol release {job}"
    assert watched(three)[0] == 5


def test_a_watch_ends_with_what_became_of_it(three: Site) -> None:
    three.submit("--setup", "sleep 3")
    assert watched(three)[0] == 0
    assert set(three.states().values()) == {"done"}


def test_a_watch_tells_that_not_all_is_done(three: Site) -> None:
    three.submit("--setup", "sleep 300")
    three.ok("cancel", three.out, 1)
    three.cluster.run("scancel", *three.jobs_named())  # by the user, but past this program
    # squeue does not say by whom; accounting does, a little later.
    three.wait(lambda facts: {task["state"] for task in facts["tasks"]} == {"cancelled"})
    code, text = watched(three)
    assert code == 2
    assert "Tasks: 3 cancelled." in text
    assert f"Next: ctrate-convert relaunch {three.out} --dry_run" in text
    three.ok("relaunch", three.out, "--timeout_min", 5)
