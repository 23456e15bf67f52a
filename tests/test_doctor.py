"""`doctor` tries the mount for real and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

from tests.support import run_cli


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
