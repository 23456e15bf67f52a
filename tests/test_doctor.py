"""`doctor` tries the mount for real and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import command, input_words, run_cli, run_here
from tests.test_data_loss import needs

Make = Callable[..., SyntheticCtRate]


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
        ("fsync:error=EINVAL:when=1", "fsync of directories", "weaker", "converted again"),
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
