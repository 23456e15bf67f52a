"""Everything that can end a task, in one submission: each is named, and only those run again."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.store.attempts import load_attempts
from slurm.testbed import Cluster
from tests.cluster.faults import Faults
from tests.cluster.site import Site, site
from tests.cluster.test_submit_end_to_end import assert_same_as_local_run
from tests.support import assert_finished, load_originals

MEMORY, ERROR, UNHARMED = 0, 1, 7
HELD = (2, 3, 4, 5, 6)


@dataclass(frozen=True)
class Roles:
    """Which of the held tasks suffers what; the one whose node fails is alone on its node."""

    node: int
    hang: int
    slow: int
    cancelled: int
    requeued: int


@pytest.fixture
def eight(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    with site(cluster, tmp_path, tasks=8) as one:
        yield one


def by_task(facts: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {task["task"]: task for task in facts["tasks"]}


def wait_until_held(one: Site) -> Roles:
    """Return once what is to fail by itself has, and everything else waits in its worker."""

    def ready(facts: dict[str, Any]) -> bool:
        tasks = by_task(facts)
        held = [tasks[number] for number in HELD]
        return (
            all(task["state"] == "running" and task["attempts"] == 1 for task in held)
            and tasks[MEMORY]["state"] == tasks[ERROR]["state"] == "failed"
            and tasks[UNHARMED]["state"] == "done"
        )

    tasks = by_task(one.wait(ready, timeout_s=120))
    used = Counter(tasks[number]["node"] for number in HELD)  # two fit on each of three nodes
    alone = next(number for number in HELD if used[tasks[number]["node"]] == 1)
    return Roles(alone, *(number for number in HELD if number != alone))


def befall(one: Site, faults: Faults, roles: Roles) -> str:
    """Let each of the held tasks suffer its own; returns the node that failed."""
    tasks = by_task(one.status())
    faults.at(roles.slow, "slow")
    one.cluster.expire(tasks[roles.slow]["job"], 60)  # so soon that the warning is due
    one.cluster.expire(tasks[roles.hang]["job"], 5)
    one.cluster.run("scontrol", "requeue", tasks[roles.requeued]["job"])
    assert (
        f"Cancelled 1 task ({roles.cancelled})" in one.ok("cancel", one.out, roles.cancelled).stdout
    )
    # Else Slurm runs it again by itself.
    one.cluster.run("scontrol", "update", f"jobid={tasks[roles.node]['job']}", "requeue=0")
    node: str = tasks[roles.node]["node"]
    one.cluster.fail_node(node)
    return node


def runs_by_task(one: Site) -> dict[int, list[tuple[datetime, datetime]]]:
    """From when to when Slurm ran each task, all submissions and requeues, as it accounts them."""
    task_of = {}
    for folder in sorted(one.dataset.submissions.iterdir()):
        intent = json.loads((folder / "intent.json").read_text())
        for place, array in enumerate(intent["arrays"]):
            answer = json.loads((folder / f"array-{place:02d}.json").read_text())
            for index, task in enumerate(array["tasks"]):
                task_of[f"{answer['job_id']}_{index}"] = task
    one.cluster.wait_until_accounted()
    jobs = ",".join(sorted({job.partition("_")[0] for job in task_of}))
    told = one.cluster.run(
        "sacct", "-n", "-P", "-D", "-X", "-j", jobs, "-o", "jobid,start,end"
    ).stdout
    runs: dict[int, list[tuple[datetime, datetime]]] = {}
    for line in told.splitlines():
        job, start, end = line.split("|")
        if start not in ("Unknown", "None"):
            times = datetime.fromisoformat(start), datetime.fromisoformat(end)
            runs.setdefault(task_of[job], []).append(times)
    return {task: sorted(times) for task, times in runs.items()}


def assert_nothing_ran_twice_at_once(one: Site, twice: set[int]) -> None:
    """No two runs of a task overlap: by Slurm's word, and by that of the attempts themselves.

    Which tasks ran twice is told by the attempts: of a requeued task sacct may forget the first
    run, but what it tells must agree.
    """
    started: Counter[int] = Counter()
    ended: dict[int, list[tuple[datetime, datetime]]] = {}
    for attempt in load_attempts(one.dataset):
        (task,) = attempt.start.tasks
        started[task] += 1
        if attempt.end is not None:
            end = datetime.fromisoformat(attempt.end.finished)
            ended.setdefault(task, []).append((attempt.started_at, end))
    assert {task for task, count in started.items() if count == 2} == twice
    runs = runs_by_task(one)
    assert runs.keys() == started.keys()
    assert all(len(times) <= started[task] for task, times in runs.items()), runs
    for task, times in [*runs.items(), *ended.items()]:
        for (_, before), (after, _) in pairwise(times):
            assert before <= after, f"task {task}"


def test_each_fault_is_named_and_only_what_failed_runs_again(eight: Site, tmp_path: Path) -> None:
    """Eight tasks, seven ways to end: the end state is that of a local run all the same."""
    one = eight
    originals = load_originals(one.made)
    faults = Faults(tmp_path / "faults")
    faults.at(MEMORY, "memory")
    faults.at(ERROR, "error")
    for index in HELD:
        faults.at(index, "hang")
    one.submit(*faults.words())
    roles = wait_until_held(one)
    try:
        node = befall(one, faults, roles)
        failed = {MEMORY, ERROR, roles.hang, roles.slow, roles.node}

        # Status names each, with its evidence; what was requeued is still alive.
        told = one.wait(
            lambda facts: (
                {task for task, of in by_task(facts).items() if of["state"] == "failed"} == failed
                and by_task(facts)[roles.requeued]["state"] == "pending"
                and by_task(facts)[roles.cancelled]["state"] == "cancelled"
            ),
            timeout_s=120,
        )
        one.cluster.wait_until_accounted()
        told = one.status()
        assert told["unavailable"] == []
        assert told["samples"] == {"converted": 1, "failed": 0, "pending": 7, "excluded": 1}
        tasks = by_task(told)
        expected = {
            MEMORY: ("failed", "attempt|sacct", "OUT_OF_MEMORY"),
            ERROR: ("failed", "attempt", "converting shard 1: Input/output error"),
            roles.hang: ("failed", "attempt|sacct", "TIMEOUT"),
            roles.slow: ("failed", "attempt", "TIMEOUT: stopped at the warning"),
            roles.node: ("failed", "sacct", "NODE_FAIL"),
            roles.cancelled: ("cancelled", "sacct|attempt|squeue", "CANCELLED"),
            roles.requeued: ("pending", "squeue", "requeued"),
            UNHARMED: ("done", "record", ""),
        }
        for number, (state, evidence, reason) in expected.items():
            seen = tasks[number]
            assert seen["state"] == state, seen
            assert re.fullmatch(evidence, seen["evidence"]), seen
            assert seen["reason"].startswith(reason), seen
            assert seen["attempts"] == 1, seen
            assert seen["job"].endswith(f"_{number}"), seen
        assert tasks[roles.node]["node"] == node

        # So does its text, a line each, and what to do next.
        text = one.ok("status", one.out).stdout
        for number, (state, _, reason) in expected.items():
            (line,) = re.findall(rf"^ *{number}  .*$", text, re.MULTILINE)
            assert state in line
            assert reason in line
        assert "Tasks: 1 done, 1 pending, 5 failed, 1 cancelled." in text
        assert "Samples: 1 converted + 0 failed + 7 pending + 1 excluded = 9." in text
        only = one.ok("status", one.out, "--json", "--failed").json()["tasks"]
        assert {task["task"] for task in only} == failed

        # The log begins with what went wrong, where, in which lines of the program.
        log = one.ok("logs", one.out, ERROR).stdout
        traceback = log.index("Traceback (most recent call last)")
        assert log.index("Input/output error") < traceback < log.index("_log.out ends with:")
        assert "convert_after_the_fault" in log

        one.cluster.resume_node(node)
    finally:
        for down in one.cluster.nodes:
            if one.cluster.run("sinfo", "-h", "-n", down, "-o", "%t").stdout.startswith("down"):
                one.cluster.resume_node(down)

    # A dry run shows the groups, and submits nothing.
    before = json.loads((one.dataset.submissions / "0001" / "intent.json").read_text())["arrays"][0]
    dry = one.ok("relaunch", one.out, "--dry_run", "--json").json()
    groups = {array["why"]: array for array in dry["arrays"] if array["tasks"]}

    taken = {why: set(_unfold(array["tasks"])) for why, array in groups.items()}
    assert taken == {
        "ran out of memory": {MEMORY},
        "ran out of time": {roles.hang, roles.slow},
        "its node failed": {roles.node},
        "failed": {ERROR, roles.cancelled},
    }
    had = before["resources"]
    for why, array in groups.items():
        now = array["resources"]
        more = {name for name in ("mem_mb", "timeout_min") if now[name] > had[name]}
        wanted = {"ran out of memory": {"mem_mb"}, "ran out of time": {"timeout_min"}}
        assert more == wanted.get(why, set()), array
        assert list(now["exclude"]) == ([node] if why == "its node failed" else [])
        assert (f"#SBATCH --exclude={node}" in array["script"]) == (why == "its node failed")
    assert len(list(one.dataset.submissions.iterdir())) == 1

    # The faults are mended; the relaunch takes those very tasks and leaves the live one alone.
    faults.clear()
    one.ok("relaunch", one.out)
    requeued = by_task(one.status())[roles.requeued]
    assert (requeued["state"], requeued["attempts"]) == ("pending", 1)
    one.cluster.start_now(requeued["job"])
    ended = by_task(one.wait_until_settled(120))
    assert {task["state"] for task in ended.values()} == {"done"}
    assert {number: task["attempts"] for number, task in ended.items()} == {
        number: 1 if number == UNHARMED else 2 for number in range(8)
    }
    assert ended[roles.node]["node"] != node
    assert ended[roles.requeued]["job"] == requeued["job"]
    assert_finished(one.made, originals, one.out)
    assert_same_as_local_run(one, tmp_path / "local")
    assert_nothing_ran_twice_at_once(one, twice=failed | {roles.requeued, roles.cancelled})

    # History tells both submissions, why, with what, and what came of them.
    past = one.ok("history", one.out, "--json").json()["arrays"]
    assert [(array["submission"], array["command"]) for array in past] == [
        (1, "submit"), *[(2, "relaunch")] * 4
    ]  # fmt: skip
    assert past[0]["outcome"] == {"done": 2, "submitted again": 6}
    assert {array["why"]: array["outcome"] for array in past[1:]} == {
        why: {"done": len(numbers)} for why, numbers in taken.items()
    }
    text = one.ok("history", one.out).stdout
    assert len(re.findall(r"^0002 ", text, re.MULTILINE)) == 4
    assert f"not on {node}" in text


def test_a_preempted_task_says_so_and_goes_on_by_itself(cluster: Cluster, tmp_path: Path) -> None:
    """A more urgent job takes its node: it is pending, never failed, and relaunch leaves it be."""
    with site(cluster, tmp_path, tasks=1) as one:
        faults = Faults(tmp_path / "faults")
        faults.at(0, "slow")
        one.submit(*faults.words())

        def task(facts: dict[str, Any]) -> dict[str, Any]:
            return by_task(facts)[0]

        running = task(one.wait(lambda facts: task(facts)["attempts"] == 1))
        urgent = ("--partition=urgent", f"--nodelist={running['node']}", "--exclusive")
        cluster.run("sbatch", *urgent, "--output=/dev/null", "--wrap", "true")
        told = ("pending", "squeue", "requeued after PREEMPTED")  # sacct hears of it a little later
        names = ("state", "evidence", "reason")
        waiting = task(one.wait(lambda facts: tuple(task(facts)[n] for n in names) == told))
        assert waiting["job"] == running["job"]
        assert one.cli("relaunch", one.out).code == 4
        faults.clear()
        cluster.start_now(running["job"])
        ended = task(one.wait_until_settled())
        assert (ended["state"], ended["attempts"], ended["job"]) == ("done", 2, running["job"])
        assert_nothing_ran_twice_at_once(one, twice={0})


def _unfold(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
