"""Elements delete under the consent that their submission was given, and under nothing else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctrate_convert.deleting.consents import load_consents
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.journals import read_journal
from ctrate_convert.synthetic import write_synthetic_ctrate
from slurm.testbed import Cluster
from tests.cluster.faults import Faults
from tests.cluster.site import SMALL_MEMORY_GB, Site, site
from tests.support import plan_words, read_dataset, sources_left
from tests.unit.deleting.test_consent import QUESTION, at_terminal

SCRIPT = Path(__file__).parents[2] / "slurm" / "convert_array.sbatch"
PROPOSED = ("--delete_source_files", "--probe", 0)


@pytest.fixture
def two(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    """Two tasks of one sample each, whose plan proposes to delete the sources."""
    with site(cluster, tmp_path, tasks=2, plan=PROPOSED) as one:
        yield one


def submit_words(one: Site, *more: object) -> list[object]:
    return ["submit", one.out, "--mem_gb", SMALL_MEMORY_GB, *more]


def wait_until_done(one: Site) -> None:
    """Wait until the queue is empty: a task is done once recorded, and deletes after that."""
    facts = one.wait(lambda _: not one.cluster.run("squeue", "--noheader").stdout.strip())
    assert {task["state"] for task in facts["tasks"]} == {"done"}


def authorities(one: Site, shards: int) -> set[str]:
    """By which words and which consent sources were touched."""
    lines = [line for shard in range(shards) for line in read_journal(one.dataset, shard)]
    return {line.authorised_by for line in lines}


def test_with_yes_elements_delete_and_history_names_the_consent(two: Site) -> None:
    """The elements' journals, `status` and `history` name the one consent of the submission."""
    two.ok(*submit_words(two, "--yes"))
    wait_until_done(two)
    assert not sources_left(two.made)
    assert len(read_dataset(two.out)) == 2
    (consent,) = load_consents(two.dataset)
    assert (consent.files, consent.shards) == (2, ((0, 1),))
    assert authorities(two, 2) == {f"submit --yes (consent {consent.name})"}
    history = two.ok("history", two.out).stdout
    assert f"Consent {consent.name}: {consent.user} on {consent.host}" in history
    assert f"Submission 0001 deletes under consent {consent.name}." in history
    (quoted,) = two.status()["consents"]
    assert quoted["name"] == consent.name


def test_without_a_terminal_submit_refuses(two: Site) -> None:
    """`submit` without a terminal and without --yes submits nothing; --dry_run needs neither."""
    refused = two.cli(*submit_words(two))
    assert refused.code == ExitCode.REFUSED
    assert "there is no terminal to ask at" in refused.stderr
    two.ok(*submit_words(two, "--dry_run"))
    assert not list(two.dataset.submissions.glob("*"))


def test_another_answer_submits_nothing(two: Site) -> None:
    """Only DELETE and keep submit; another answer leaves no submission and no consent."""
    done = at_terminal("\n", *submit_words(two), env=two.env)
    assert done.code == ExitCode.REFUSED
    assert "submits tasks that delete nothing" in done.stderr
    assert not list(two.dataset.submissions.glob("*"))
    assert not load_consents(two.dataset)
    assert set(two.states().values()) == {"pending"}


def test_two_submissions_with_different_answers(two: Site, tmp_path: Path) -> None:
    """Each submission's elements go by its own answer: DELETE here, keep for what came later."""
    deleting = at_terminal("DELETE\n", *submit_words(two), env=two.env)
    assert deleting.code == ExitCode.DONE, deleting.text
    later = write_synthetic_ctrate(
        tmp_path / "later", samples=2, shape=(6, 5, 4), layout="flat", split="valid"
    )
    two.ok(*plan_words(later, two.out, "--samples_per_shard", 1, *PROPOSED))
    keeping = at_terminal("keep\n", *submit_words(two), env=two.env)
    assert keeping.code == ExitCode.DONE, keeping.text
    assert "up to 2 source files" in keeping.stderr  # what is live already is not asked for
    wait_until_done(two)
    assert len(read_dataset(two.out)) == 4
    assert not sources_left(two.made)
    assert sources_left(later) == set(later.keys)
    history = two.ok("history", two.out).stdout
    assert "Submission 0001 deletes under consent" in history
    assert "Submission 0002 deletes nothing." in history
    assert at_terminal("DELETE\n", "delete", two.out, env=two.env).code == ExitCode.DONE
    assert not sources_left(later)


@pytest.fixture
def failing(two: Site, tmp_path: Path) -> Iterator[tuple[Site, Faults]]:
    """One of two tasks, submitted with --yes, met an error of the disk."""
    faults = Faults(tmp_path / "faults")
    faults.at(0, "error")
    two.ok(*submit_words(two, "--yes", *faults.words()))
    facts = two.wait(lambda _: not two.cluster.run("squeue", "--noheader").stdout.strip())
    assert [task["state"] for task in facts["tasks"]] == ["failed", "done"]
    faults.clear()
    yield two, faults


def test_relaunch_goes_on_under_the_same_consent(failing: tuple[Site, Faults]) -> None:
    """Nobody is asked again; what relaunch prints says by whose word sources go."""
    one, _ = failing
    (consent,) = load_consents(one.dataset)
    said = one.ok("relaunch", one.out).stdout
    assert QUESTION not in said
    assert f"sources are let go as allowed by {consent.user} on {consent.host}" in said
    wait_until_done(one)
    assert not sources_left(one.made)
    assert authorities(one, 2) == {f"submit --yes (consent {consent.name})"}
    assert (
        f"Submission 0002 deletes under consent {consent.name}."
        in one.ok("history", one.out).stdout
    )


def test_relaunch_can_keep(failing: tuple[Site, Faults]) -> None:
    """--keep_source_files takes the consent away from what is relaunched."""
    one, _ = failing
    one.ok("relaunch", one.out, "--keep_source_files")
    wait_until_done(one)
    assert sources_left(one.made) == {one.made.keys[0]}


def group_writable(path: Path) -> None:
    path.chmod(0o664)


def of_somebody_else(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(path, 65534, -1)


def for_other_shards(path: Path) -> None:
    facts = json.loads(path.read_text()) | {"shards": [[7, 9]]}
    path.write_text(json.dumps(facts))


@pytest.mark.parametrize(
    "change", [group_writable, of_somebody_else, for_other_shards, Path.unlink]
)
def test_a_consent_that_was_changed_keeps_everything(
    two: Site, change: Callable[[Path], None]
) -> None:
    """Elements whose consent is not as it was given convert, and let no source go."""
    two.ok(*submit_words(two, "--yes", "--setup", "sleep 4"))
    (consent,) = load_consents(two.dataset)
    change(two.dataset.consent(consent.name))
    wait_until_done(two)
    assert len(read_dataset(two.out)) == 2
    assert sources_left(two.made) == set(two.made.keys)
    assert not authorities(two, 2)
    if change is not for_other_shards:
        assert "every source is kept: the consent to delete" in two.ok("logs", two.out, 0).stdout


@pytest.mark.parametrize(
    ("words", "left"), [((), 2), (("0",), 2), (("0", "--yes"), 0), (("--yes",), 0)]
)
def test_the_plain_script_deletes_only_with_yes(
    two: Site, tmp_path: Path, words: tuple[str, ...], left: int
) -> None:
    """Without a terminal its elements keep every source, unless --yes is passed on to them."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    root = str(SCRIPT.parents[1])
    two.environment |= {"PATH": path, "PYTHONPATH": root}
    job = two.cluster.run(
        "env", f"PATH={path}", f"PYTHONPATH={root}", "sbatch", "--parsable", "--array=0-1",
        "--mem=300", "--time=5", f"--output={tmp_path}/plain-%a.log", "--begin=now+3",
        str(SCRIPT), str(two.out), *words,
    ).stdout.strip()  # fmt: skip
    assert {task["job"].partition("_")[0] for task in two.status()["tasks"]} == {job}
    assert two.cli("submit", two.out, "--yes").code == ExitCode.REFUSED  # they are live
    wait_until_done(two)
    assert len(sources_left(two.made)) == left
    assert len(read_dataset(two.out)) == 2
    assert len(load_consents(two.dataset)) == (0 if left else 2)
