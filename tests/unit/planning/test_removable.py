"""Whether sources can be removed at all is looked at before anything is converted."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.planning.removable import why_some_stay
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import convert_words, needs, plan_words, run_cli, sources_left

WITHOUT_PRIVILEGES = ("setpriv", "--bounding-set=-all") if os.geteuid() == 0 else ()
"""Root may write into any folder, unless it gave its capabilities away."""


@pytest.fixture
def closed(make_ctrate: Callable[..., SyntheticCtRate]) -> SyntheticCtRate:
    """Volumes, one of them in a folder that its user may not change."""
    if WITHOUT_PRIVILEGES:
        needs("setpriv", *WITHOUT_PRIVILEGES, "true")
    made = make_ctrate(3, kinds=("data",))
    folder = made.data_folder / "closed"
    folder.mkdir()
    key, path = next(iter(made.sources.items()))
    sources = {**made.sources, key: path.rename(folder / path.name)}
    folder.chmod(0o500)
    return dataclasses.replace(made, sources=sources)


def test_each_command_that_would_delete_warns_and_goes_on(
    closed: SyntheticCtRate, tmp_path: Path
) -> None:
    """`plan` says it as a note, `run` and `delete` before the first source; the rest goes."""
    out = tmp_path / "out"
    example = f"such as {closed.data_folder / 'closed'}: what lies there is converted and stays"

    def give(*words: object) -> str:
        done = run_cli(*words, before=WITHOUT_PRIVILEGES)
        assert done.code == (ExitCode.DONE if words[0] == "plan" else ExitCode.REFUSED), done.text
        assert " ".join(done.text.split()).count(example) == 1, done.text
        return done.text

    assert "Note: this user may not remove files from 1 of" in give(
        *plan_words(closed, out, "--delete_source_files", "--probe", 0)
    )
    text = give("run", out, "--yes")
    assert "WARNING: This user may not" in text
    assert "1 file was NOT deleted." in text
    assert len(sources_left(closed)) == 1
    assert "1 file was NOT deleted." in give("delete", out, "--yes")
    closed.data_folder.joinpath("closed").chmod(0o700)
    assert run_cli("delete", out, "--yes").code == ExitCode.DONE
    assert not sources_left(closed)


def test_without_deletion_nothing_is_said(closed: SyntheticCtRate, tmp_path: Path) -> None:
    done = run_cli(*convert_words(closed, tmp_path / "out"), before=WITHOUT_PRIVILEGES)
    assert done.code == ExitCode.DONE
    assert "may not remove" not in done.text


def test_a_folder_that_is_away_says_nothing(tmp_path: Path) -> None:
    assert why_some_stay([str(tmp_path / "away"), str(tmp_path)]) == ""
