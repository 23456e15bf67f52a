"""Both sides of `doctor --cluster` as two processes here, and what is made of their reports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ctrate_convert.cluster.two_nodes.judge import findings_between
from ctrate_convert.cluster.two_nodes.take_part import LINK_ROUNDS, Lock, NodeReport
from ctrate_convert.store.records.base import read
from tests.support import run_cli

TESTED = 8


def side(folder: Path, number: int, wait_s: float = 60) -> subprocess.Popen[bytes]:
    words = (
        "-m",
        "ctrate_convert.cluster.two_nodes.take_part",
        str(folder),
        str(number),
        str(wait_s),
    )
    environment = {**os.environ, "SLURMD_NODENAME": f"node{number}"}
    return subprocess.Popen([sys.executable, *words], env=environment)


def reports(folder: Path) -> tuple[NodeReport, NodeReport]:
    for process in [side(folder, 0), side(folder, 1)]:
        assert process.wait(120) == 0
    first, second = (read(NodeReport, folder / f"report-{number}.json") for number in (0, 1))
    return first, second


def on(report: NodeReport, **changes: object) -> NodeReport:
    return report.model_copy(update=changes)


def test_two_processes_of_one_machine_show_nothing_about_nodes(tmp_path: Path) -> None:
    """Everything is tried and seen; that it was one machine is said, and nothing is called good."""
    found = findings_between(*reports(tmp_path))
    assert len(found) == TESTED
    assert {finding.verdict for finding in found} == {"weaker"}
    assert found[0].seen == "node0 and node1 are one machine"
    assert "nothing about nodes" in found[0].consequence


def test_each_thing_that_two_nodes_may_show_has_its_verdict(tmp_path: Path) -> None:
    """The same reports from two machines are good; each fault alone changes its own finding."""
    first, second = reports(tmp_path)
    second = on(second, boot="another")
    good = findings_between(first, second)
    assert {finding.verdict for finding in good} == {"good"}
    let_in = Lock(while_held="let in", after_release_s=0.0)
    never = Lock(while_held="excluded", after_release_s=None)
    rounds = tuple(range(LINK_ROUNDS))
    for what, verdict, one, other in (
        ("flock between nodes", "weaker", {}, {"flock": let_in}),
        ("flock between nodes", "weaker", {}, {"flock": never}),
        ("filelock between nodes", "weaker", {}, {"filelock": let_in}),
        ("seen by the other node", "weaker", {"seen_s": 31.0}, {}),
        ("one link wins between nodes", "bad", {"links_won": rounds}, {"links_won": rounds}),
        ("one link wins between nodes", "bad", {"links_won": ()}, {"links_won": ()}),
        ("one link wins between nodes", "bad", {"finals": (0,) * LINK_ROUNDS}, {}),
        ("renames seen by the other node", "weaker", {}, {"replaced_not_whole": 1}),
        ("clocks of the nodes", "weaker", {"clock_ahead_s": -7.0}, {}),
        ("clocks of the nodes", "weaker", {}, {"storage_ahead_s": 7.0}),
        ("appends from two nodes", "weaker", {"appended": ("torn",)}, {}),
        ("flock between nodes", "not tested", {}, {"flock": None, "stopped": "locks: gone"}),
        ("clocks of the nodes", "not tested", {"clock_ahead_s": None}, {}),
    ):
        found = findings_between(on(first, **one), on(second, **other))
        changed = [new for new, old in zip(found, good, strict=True) if new != old]
        assert [(finding.what, finding.verdict) for finding in changed] == [(what, verdict)]
        assert changed[0].consequence


def test_a_side_that_is_left_alone_ends_and_nothing_counts_as_tested(tmp_path: Path) -> None:
    """Its report says what it waited for; of the node that never came there is none."""
    assert side(tmp_path, 0, wait_s=1).wait(60) == 0
    alone = read(NodeReport, tmp_path / "report-0.json")
    for found in (findings_between(alone, None), findings_between(None, None)):
        assert [finding.verdict for finding in found] == ["not tested"]
    assert "not heard of in 1 s" in findings_between(alone, None)[0].seen


def test_without_slurm_the_command_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain.toml").touch()
    (tmp_path / "out").mkdir()
    nowhere = {**os.environ, "PATH": str(tmp_path)}
    done = run_cli(
        "doctor", tmp_path / "out", "--cluster", tmp_path / "plain.toml", env=nowhere
    )  # fmt: skip
    assert done.code == 1
    assert "no Slurm here" in done.stderr
    assert not list((tmp_path / "out").iterdir())
