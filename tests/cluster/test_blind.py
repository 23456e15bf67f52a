"""Parts of Slurm are down: status tells what is certain, names what it could not ask, and nothing
that rests on a guess is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from slurm.testbed import Cluster
from tests.cluster.faults import Faults
from tests.cluster.site import Site, site
from tests.cluster.test_submit_end_to_end import assert_same_as_local_run, shards
from tests.support import TIMEOUT_S, Finished, assert_finished, load_originals

ERROR, EXIT = 0, 1
"""Fails and says so; ends before it can say anything."""

Told = dict[int, tuple[str, str]]


@contextmanager
def no_accounting(cluster: Cluster) -> Iterator[None]:
    cluster.stop_accounting()
    try:
        yield
    finally:
        cluster.start_accounting()


@contextmanager
def no_controller(cluster: Cluster) -> Iterator[None]:
    cluster.stop_controller()
    try:
        yield
    finally:
        cluster.start_controller()


@pytest.fixture
def shaken(real_slurm: None, tmp_path: Path) -> Iterator[Cluster]:
    """Not the shared cluster: what ended while accounting was down may never be told right."""
    with Cluster(tmp_path / "shaken") as running:
        yield running


@pytest.fixture
def bare(real_slurm: None, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "bare", accounting=False, min_job_age_s=2) as running:
        yield running


def told(facts: dict[str, Any]) -> Told:
    return {task["task"]: (task["state"], task["evidence"]) for task in facts["tasks"]}


def start(one: Site, faults: Faults, *waiting: int) -> None:
    """Submit; return once two tasks have failed and the others wait in their workers."""
    faults.at(ERROR, "error")
    faults.at(EXIT, "exit")
    for index in waiting:
        faults.at(index, "slow")
    one.submit(*faults.words())

    def ready(facts: dict[str, Any]) -> bool:
        tasks = {task["task"]: task for task in facts["tasks"]}
        begun = [tasks[index] for index in waiting]
        return (
            tasks[ERROR]["state"] == "failed"
            and tasks[EXIT]["state"] in ("failed", "unknown")  # a queue may forget soon
            and all((task["state"], task["attempts"]) == ("running", 1) for task in begun)
        )

    one.wait(ready)


def wait_until_published(one: Site, shard: int) -> None:
    """Without asking Slurm."""
    deadline = time.monotonic() + 60
    while not one.dataset.record(shard).exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def at_once(one: Site, *commands: tuple[object, ...]) -> list[Finished]:
    """How these commands end, begun together: each waits 9 s for a controller that is down."""
    processes = [one.start(*words) for words in commands]
    said = [process.communicate(timeout=TIMEOUT_S) for process in processes]
    return [
        Finished(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)
    ]


def status_and_refusals(one: Site, *commands: tuple[object, ...]) -> dict[str, Any]:
    """The status; nothing that could run a task twice is done while nobody knows what is live."""
    submissions = sorted(one.dataset.submissions.iterdir())
    before = shards(one.out)
    status, *refused = at_once(one, ("status", one.out, "--json"), *commands)
    for words, done in zip(commands, refused, strict=True):
        assert done.code == 4, (words, done.text)
        assert "cannot be asked" in done.stderr, words
        assert "squeue: " in done.stderr, words
    assert sorted(one.dataset.submissions.iterdir()) == submissions
    assert shards(one.out) == before
    assert status.code == 0, status.text
    facts: dict[str, Any] = status.json()
    return facts


def test_accounting_stops_in_mid_run_then_the_controller(shaken: Cluster, tmp_path: Path) -> None:
    """Each task keeps the strongest evidence that is left; once all is back, all are done."""
    with site(shaken, tmp_path, tasks=6) as one:
        originals = load_originals(one.made)
        faults = Faults(tmp_path / "faults")
        start(one, faults, 2, 3, 4, 5)
        certain: Told = {ERROR: ("failed", "attempt")}

        with no_accounting(shaken):
            faults.clear(2)
            wait_until_published(one, 2)
            facts = one.status()
            (missing,) = facts["unavailable"]
            assert missing.startswith("sacct: ")
            live = dict.fromkeys((3, 4, 5), ("running", "squeue"))
            certain[2] = ("done", "record")
            assert told(facts) == {**certain, EXIT: ("failed", "squeue"), **live}
            text = one.ok("status", one.out).stdout
            assert f"Could not be asked: {missing}" in text
        shaken.wait_until_accounted()
        assert told(one.status()) == {**certain, EXIT: ("failed", "sacct"), **live}

        with no_controller(shaken):
            faults.clear(3)
            wait_until_published(one, 3)
            facts = status_and_refusals(
                one,
                ("run", one.out),
                ("cancel", one.out),
                ("submit", one.out),
                ("relaunch", one.out),
                ("relaunch", one.out, "--include_unknown", "--dry_run"),
            )
            (missing,) = facts["unavailable"]
            assert missing.startswith("squeue: ")
            certain[3] = ("done", "record")
            seen = told(facts)
            assert {task: seen[task] for task in certain} == certain
            assert seen[EXIT] == ("failed", "sacct")
            assert {seen[4], seen[5]} <= {("running", "attempt"), ("unknown", "none")}
            assert facts["samples"] == {"converted": 2, "failed": 0, "pending": 4, "excluded": 1}

            with no_accounting(shaken):
                facts = status_and_refusals(one, ("run", one.out), ("relaunch", one.out))
                assert [what.partition(":")[0] for what in facts["unavailable"]] == [
                    "squeue", "sacct"
                ]  # fmt: skip
                seen = told(facts)
                assert {task: seen[task] for task in certain} == certain
                assert seen[EXIT] == ("unknown", "none")
                assert {seen[4], seen[5]} <= {("running", "attempt"), ("unknown", "none")}

        faults.clear()
        facts = one.wait_until_settled()
        assert facts["unavailable"] == []
        assert {task for task, (state, _) in told(facts).items() if state != "done"} == {
            ERROR, EXIT
        }  # fmt: skip
        one.ok("relaunch", one.out)
        facts = one.wait_until_settled()
        assert {state for state, _ in told(facts).values()} == {"done"}
        assert [task["attempts"] for task in facts["tasks"]] == [2, 1, 1, 1, 1, 1]
        assert_finished(one.made, originals, one.out)
        assert_same_as_local_run(one, tmp_path / "local")


def test_without_accounting_what_squeue_forgot_is_unknown_unless_a_file_tells(
    bare: Cluster, tmp_path: Path
) -> None:
    """Relaunch takes what is known to have failed; what is unknown only when asked to."""
    with site(bare, tmp_path, tasks=4) as one:
        faults = Faults(tmp_path / "faults")
        cancelled = 3
        start(one, faults, 2, cancelled)
        one.ok("cancel", one.out, cancelled)
        faults.clear(2)
        deadline = time.monotonic() + 120
        while bare.run("squeue", "-h", "-t", "all").stdout:
            assert time.monotonic() < deadline
            time.sleep(0.5)

        facts = one.status()
        seen = told(facts)
        assert seen[ERROR] == ("failed", "attempt")
        assert seen[EXIT] == ("unknown", "none")
        assert seen[2] == ("done", "record")
        assert seen[cancelled][0] == "cancelled"
        (missing,) = facts["unavailable"]
        assert missing.startswith("sacct: ")
        assert "disabled" in missing

        faults.clear()
        done = one.ok("relaunch", one.out)
        assert "1 unknown left alone" in done.stdout
        facts = one.wait_until_settled()
        assert {task: state for task, (state, _) in told(facts).items()} == {
            ERROR: "done", EXIT: "unknown", 2: "done", cancelled: "done"
        }  # fmt: skip
        assert one.cli("relaunch", one.out).code == 4
        one.ok("relaunch", one.out, "--include_unknown")
        assert {state for state, _ in told(one.wait_until_settled()).values()} == {"done"}
