"""How Slurm is asked: on which cluster, with which right, and over how long a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from slurm.testbed import Cluster
from tests.cluster.site import Site, site
from tests.cluster.user import open_folder, require_two_users, users_site

COMMANDS = ("squeue", "sacct", "scontrol", "sinfo", "scancel")


@pytest.fixture
def two(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    with site(cluster, tmp_path, tasks=2) as one:
        yield one


def note_questions(one: Site, folder: Path) -> Path:
    """Put commands on PATH that note what they are asked, and ask; returns the notes."""
    folder.mkdir()
    notes = folder / "notes"
    for name in COMMANDS:
        shim = folder / name
        shim.write_text(
            "#!/bin/sh\n"
            f'echo "{name} $* clusters=$SLURM_CLUSTERS jwt=$SLURM_JWT" >> {notes}\n'
            f'exec {shutil.which(name)} "$@"\n'
        )
        shim.chmod(0o755)
    one.environment["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return notes


def test_a_cluster_named_in_the_profile_is_asked_by_every_command(
    two: Site, tmp_path: Path
) -> None:
    """Else its tasks would seem to be gone."""
    notes = note_questions(two, tmp_path / "bin")
    two.submit("--additional_parameters", "clusters=testbed", "--setup", "sleep 60")
    assert {task["evidence"] for task in two.status()["tasks"]} == {"squeue"}
    two.ok("cancel", two.out)
    asked = notes.read_text().splitlines()
    assert {line.split()[0] for line in asked} == set(COMMANDS)
    first = asked.index(next(line for line in asked if line.startswith("scontrol")))
    assert {line.split()[-2] for line in asked[first:]} == {"clusters=testbed"}


def test_another_cluster_hides_no_task_of_the_first(two: Site) -> None:
    """Each cluster that a submission went to is asked, the default one too."""
    two.submit("--setup", "sleep 30")
    two.ok("cancel", two.out, 1)
    two.wait(lambda facts: facts["tasks"][1]["state"] == "cancelled")
    two.ok("relaunch", two.out, "--additional_parameters", "clusters=testbed")
    told = two.status()["tasks"]
    assert {task["evidence"] for task in told} == {"squeue"}
    assert "2 tasks left to Slurm" in two.ok("run", two.out, "--num_workers", 1).stderr
    two.ok("cancel", two.out)
    two.wait(lambda facts: {task["state"] for task in facts["tasks"]} == {"cancelled"})


def test_the_callers_own_cluster_is_kept_for_whoever_looks_later(two: Site) -> None:
    two.environment["SLURM_CLUSTERS"] = "testbed"
    two.submit("--setup", "sleep 5")
    (intent,) = two.dataset.submissions.glob("*/intent.json")
    assert json.loads(intent.read_text())["profile"]["additional_parameters"] == {
        "clusters": "testbed"
    }
    del two.environment["SLURM_CLUSTERS"]
    assert {task["state"] for task in two.wait_until_settled()["tasks"]} == {"done"}


def test_an_array_that_was_given_up_does_nothing(two: Site) -> None:
    """A stalled controller may accept it long after its tasks were submitted again."""
    two.submit("--setup", "sleep 6")
    answer = two.dataset.submissions / "0001" / "array-00.json"
    facts = json.loads(answer.read_text())
    answer.write_text(json.dumps({**facts, "job_id": None, "found_by": "nobody"}))
    assert {task["state"] for task in two.status()["tasks"]} == {"pending"}
    two.submit()
    told = two.wait_until_settled()["tasks"]
    assert {task["state"] for task in told} == {"done"}
    two.wait(lambda _: not two.cluster.run("squeue", "-h").stdout)
    assert [task["attempts"] for task in two.status()["tasks"]] == [1, 1]
    logs = two.dataset.logs / "0001" / "00"
    said = "".join(path.read_text() for path in logs.glob("*_log.out"))
    assert "was given up before the scheduler accepted it" in said


def test_a_token_reaches_the_commands(two: Site, tmp_path: Path) -> None:
    """Some clusters tell users apart by it alone."""
    notes = note_questions(two, tmp_path / "bin")
    two.environment["SLURM_JWT"] = "a-token"
    two.status()
    assert notes.read_text().splitlines()[-1].endswith("jwt=a-token")


def test_accounting_that_answers_for_a_week_at_most_is_asked_week_by_week(
    real_slurm: None,
) -> None:
    """A submission of two months ago is told all the same, with its failure.

    Slurm limits only ordinary users so.
    """
    require_two_users()
    with open_folder() as folder, Cluster(folder, min_job_age_s=2) as weekly:
        weekly.admit_users()
        weekly.stop_accounting()
        configuration = folder / "slurmdbd.conf"
        configuration.write_text(configuration.read_text() + "MaxQueryTimeRange=7-0\n")
        weekly.start_accounting()
        with users_site(weekly, tasks=2) as one:
            one.submit("--setup", "exit 3")
            one.wait(lambda facts: {task["state"] for task in facts["tasks"]} == {"failed"})
            one.wait(lambda _: not weekly.run("squeue", "-h", "-t", "all").stdout, timeout_s=120)
            intent = one.dataset.submissions / "0001" / "intent.json"
            facts = json.loads(intent.read_text())
            long_ago = datetime.now(UTC) - timedelta(days=60)
            facts["created"] = long_ago.isoformat(timespec="seconds")
            intent.write_text(json.dumps(facts))
            (intent.parent / "array-00.json").unlink()  # so it can only be asked for by its name
            name = f"--name={facts['arrays'][0]['job_name']}"
            with pytest.raises(subprocess.CalledProcessError) as error:
                one.slurm("sacct", "-S", facts["created"][:10], "-X", "-n", name)
            assert "Too wide of a date range" in error.value.stderr

            told = one.status()
            assert told["unavailable"] == []
            assert [(task["state"], task["evidence"]) for task in told["tasks"]] == [
                ("failed", "sacct")
            ] * 2
            assert all(task["reason"].startswith("FAILED") for task in told["tasks"])
