"""Programs read reports and errors as JSON, each with the number of its schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import Converted, run_cli, run_here


@pytest.mark.parametrize(
    "words", [["report"], ["status"], ["history"], ["merge"], ["verify"], ["delete", "--dry_run"]]
)
def test_every_report_names_its_schema(converted: Converted, words: list[str]) -> None:
    command, *more = words
    assert run_here(command, converted.out, *more, "--json").json()["schema_number"] == 1


def test_an_error_is_json_too(tmp_path: Path) -> None:
    """On standard output, with all its facts; standard error has the words for people."""
    done = run_cli("status", tmp_path / "nothing", "--json")
    error = done.json()["error"]
    assert done.code == error["exit_code"] == 1
    assert (error["kind"], error["what"]) == ("SettingsError", "no plan here")
    assert error["where"] == str(tmp_path / "nothing")
    assert "error: no plan here" in done.stderr
    assert run_cli("status", tmp_path / "nothing").stdout == ""


def test_so_is_a_wrong_option(tmp_path: Path) -> None:
    done = run_cli("status", tmp_path, "--json", "--nonsense")
    assert done.code == done.json()["error"]["exit_code"] == 1
    assert "--nonsense" in done.json()["error"]["what"]


def test_verbose_tells_each_step(converted: Converted) -> None:
    converted.dataset.manifest.unlink()
    done = run_cli("merge", converted.out, "--verbose")
    assert "ctrate_convert.store.merger: " in done.stderr
    assert run_cli("merge", converted.out).stderr == ""
    failed = run_cli("merge", converted.out / "nowhere", "--verbose")
    assert "Traceback" in failed.stderr
