"""`doctor` tries the mount for real and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import command, input_words, needs, run_cli, run_here, sources_left

Make = Callable[..., SyntheticCtRate]


@dataclass(frozen=True)
class Planned:
    made: SyntheticCtRate
    out: Path


def test_doctor_finds_an_ordinary_file_system_fit(tmp_path: Path) -> None:
    """Links, renames, folder publication and locks are each tried and found good or weaker."""
    done = run_cli("doctor", tmp_path / "not" / "yet" / "there", "--json")
    assert done.code == 0, done.text
    report = done.json()
    verdicts = {finding["what"]: finding["verdict"] for finding in report["findings"]}
    assert verdicts["publish by link"] == "good"
    assert verdicts["publish a folder"] == "good"
    assert set(verdicts.values()) <= {"good", "weaker"}
    assert report["speeds"]["write_bytes_per_s"] > 0
    assert not list(tmp_path.iterdir())


def test_doctor_says_where_nothing_can_be_written() -> None:
    """A place without room for a single file is an environment problem, with exit code 5."""
    done = run_cli("doctor", "/proc/self")
    assert done.code == 5
    assert "trying the file system" in done.stderr


@pytest.mark.parametrize(
    ("fault", "what", "verdict", "follows"),
    [
        ("linkat:error=EPERM", "publish by link", "bad", "cannot work here"),
        ("rename:error=EXDEV:when=1", "replace atomically", "bad", "cannot work here"),
        ("fsync:error=EINVAL:when=1", "fsync of directories", "weaker", "no source is deleted"),
        ("flock:error=ENOSYS", "flock between processes", "weaker", "nothing is lost"),
    ],
)
def test_doctor_says_what_a_mount_lacks_and_what_follows(
    tmp_path: Path, fault: str, what: str, verdict: str, follows: str
) -> None:
    """Each lack is named, with what the program does about it; only what cannot work is bad."""
    needs("strace", "strace", "-o", "/dev/null", "true")
    strace = ["strace", "-f", "-o", str(tmp_path / "strace.txt"), "-e", f"inject={fault}"]
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [*strace, *command("doctor", tmp_path / "out", "--json")],
        capture_output=True,
        text=True,
        check=False,
    )
    findings = {one["what"]: one for one in json.loads(done.stdout)["findings"]}
    assert findings[what]["verdict"] == verdict
    assert follows in findings[what]["consequence"]
    assert done.returncode == (5 if verdict == "bad" else 0)
    others = {one["verdict"] for name, one in findings.items() if name != what}
    assert others <= {"good", "weaker"}
    assert not list((tmp_path / "out").iterdir())


def test_doctor_looks_at_the_sources_of_a_plan(make_ctrate: Make, tmp_path: Path) -> None:
    """Whether deletion frees this disk, may be done and how fast sources are read is told."""
    made = make_ctrate(2)
    out = tmp_path / "out"
    trash = ("--delete_source_files", "--trash", tmp_path / "trash")
    assert run_here("plan", *input_words(made, out), *trash).code == 0
    before = {path: path.read_bytes() for path in made.data_folder.rglob("*.npz")}
    findings = {one["what"]: one for one in run_cli("doctor", out, "--json").json()["findings"]}
    for what in ("deletion frees the output's disk", "move to the trash", "remove sources"):
        assert findings[what]["verdict"] == "good"
    assert findings["read a source"]["seen"].startswith(f"{len(next(iter(before.values())))} bytes")
    assert {path: path.read_bytes() for path in made.data_folder.rglob("*.npz")} == before

    made.data_folder.rename(tmp_path / "away")
    done = run_cli("doctor", out, "--json")
    assert done.code == 0
    (missing,) = [one for one in done.json()["findings"] if one["what"] == "the data folder"]
    assert missing["verdict"] == "weaker"
    assert "no source is taken for deleted" in missing["consequence"]


# --- What the gate will do --------------------------------------------------------------------


def gate_of(out: Path) -> str:
    """What doctor says of deletion, which stands in its table and in a line of its own."""
    done = run_cli("doctor", out)
    assert done.code == 0, done.text
    (line,) = [one for one in done.stdout.splitlines() if one.startswith("Deletion: ")]
    (found,) = [
        one
        for one in run_cli("doctor", out, "--json").json()["findings"]
        if one["what"] == "deletion"
    ]
    assert line == f"Deletion: {found['seen']}."
    assert (found["verdict"] == "good") == found["seen"].startswith("allowed: ")
    return line.removeprefix("Deletion: ")


@pytest.fixture
def planned(make_ctrate: Make, tmp_path: Path) -> Planned:
    """A plan that proposes to delete four sources."""
    made = make_ctrate(4)
    words = ("--delete_source_files", "--probe", 0)
    assert run_here("plan", *input_words(made, tmp_path / "out"), *words).code == 0
    return Planned(made, tmp_path / "out")


def test_doctor_says_that_deletion_is_allowed_and_who_is_asked(
    planned: Planned, tmp_path: Path
) -> None:
    """With a proposal, without one, and where nothing is planned yet."""
    assert gate_of(planned.out) == (
        "allowed: `run`, `submit`, `convert` and `delete` ask a person first, or need --yes."
    )
    assert run_here("plan", *input_words(planned.made, tmp_path / "other")).code == 0
    assert gate_of(tmp_path / "other") == "allowed: no plan proposes it; `delete` asks first."
    assert gate_of(tmp_path / "new").startswith("allowed: once there is a plan")


def test_doctor_says_that_memory_forbids_deletion() -> None:
    """On a tmpfs conversion works and the gate refuses; doctor says so with exit code 0."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    assert gate_of(Path("/dev/shm")) == "refused: the output lies in memory (tmpfs on /dev/shm)."


def test_doctor_says_what_the_gate_refuses(planned: Planned, tmp_path: Path) -> None:
    """A `.run` that others may write, a missing data folder: what `run` says, doctor said."""
    run = planned.out / ".run"
    run.chmod(0o770)
    said = gate_of(planned.out)
    assert said == f"refused: {run} is writable by others than its owner (mode 0770)."
    refused = run_cli("run", planned.out, "--yes")
    assert refused.code == 4
    assert said.removeprefix("refused: ").rstrip(".") in refused.stderr
    run.chmod(0o700)
    planned.made.data_folder.rename(tmp_path / "away")
    said = gate_of(planned.out)
    assert said == f"refused: the data folder {planned.made.data_folder} cannot be seen now."


def test_doctor_counts_sources_that_stay_for_their_names(planned: Planned, tmp_path: Path) -> None:
    """Hard links and links are counted: the gate keeps these, and lets the others go."""
    first, second, *_ = planned.made.sources.values()
    os.link(first, tmp_path / "second name.npz")
    second.rename(tmp_path / "moved.npz")
    second.symlink_to(tmp_path / "moved.npz")
    findings = {f["what"]: f for f in run_cli("doctor", planned.out, "--json").json()["findings"]}
    names = findings["names of the sources"]
    assert names["verdict"] == "weaker"
    assert names["seen"].startswith("2 of 4 looked at")
    assert gate_of(planned.out).startswith("allowed: ")
    assert run_cli("run", planned.out, "--yes").code == 4
    assert sources_left(planned.made) == {first.stem, second.stem}


def test_doctor_names_a_consent_that_is_not_believed(planned: Planned) -> None:
    """A consent that others could have written deletes nothing, and doctor says so."""
    assert run_cli("run", planned.out, "--yes").code == 0
    (path,) = (planned.out / ".run" / "consents").iterdir()
    path.chmod(0o664)
    findings = {f["what"]: f for f in run_cli("doctor", planned.out, "--json").json()["findings"]}
    assert str(path) in findings["consent"]["seen"]
    assert "others can write to it" in findings["consent"]["seen"]
    assert findings["consent"]["consequence"].startswith("nothing is deleted under it")
