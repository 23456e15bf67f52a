"""Screens as they are kept in ``screens/``: whoever changes one looks at it, at 80 and 120 columns.

``CTRATE_KEEP_SCREENS=1`` writes them anew. What differs from run to run stands there as a word.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import at_terminal_of, plan_words, run_here

Make = Callable[..., SyntheticCtRate]
SCREENS = Path(__file__).with_name("screens")
WIDTHS = (80, 120)

VARYING = (
    (r"Plan [0-9a-f]{12}", "Plan 0123456789ab"),
    (r",\s+[\d.]+\s+[KMGT]iB\s+free\s+at\s+the\s+output", ", … free"),
    (r"less than a second|\d:\d\d:\d\d with", "less than a second"),
)


def screen(width: int, *words: object) -> str:
    """What a terminal of that width shows in the end, without colours and bars."""
    # Without a PATH there is no Slurm, whatever is installed here.
    env = {"TERM": "xterm-256color", "NO_COLOR": "1", "LC_ALL": "C.UTF-8", "PATH": ""}
    shown = at_terminal_of(width, *words, env=env)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r\n", "\n")
    rows = [row.rpartition("\r")[2].rstrip() for row in shown.split("\n")]
    text = "\n".join(row for row in rows if "━" not in row).strip("\n")
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text)
    return text + "\n"


def compare(name: str, width: int, seen: str) -> None:
    path = SCREENS / f"{name}-{width}.txt"
    if os.environ.get("CTRATE_KEEP_SCREENS") == "1":
        path.write_text(seen)
    assert seen == path.read_text(), f"look at it: git diff after CTRATE_KEEP_SCREENS=1, {path}"
    longest = max(seen.splitlines(), key=len)
    assert len(longest) <= width or " " not in longest.strip(), longest


@pytest.fixture
def here(make_ctrate: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SyntheticCtRate:
    """A set of one kind with one volume without a report; the working directory is its folder."""
    made = make_ctrate(6, faults=("no_report",), kinds=("nii.gz",), shape=(16, 16, 8))
    monkeypatch.chdir(tmp_path)
    return made


@pytest.mark.parametrize("width", WIDTHS)
def test_help(width: int) -> None:
    compare("help", width, screen(width, "--help"))


@pytest.mark.parametrize("width", WIDTHS)
def test_plan(width: int, here: SyntheticCtRate) -> None:
    words = plan_words(
        here, Path("out"), "--probe", 0, "--samples_per_shard", 2, "--num_workers", 2
    )
    compare("plan", width, screen(width, *words))


@pytest.mark.parametrize("width", WIDTHS)
def test_status_and_delete(width: int, here: SyntheticCtRate) -> None:
    words = plan_words(here, Path("out"), "--probe", 0, "--samples_per_shard", 2)
    assert run_here(*words).code == ExitCode.DONE
    compare("status", width, screen(width, "status", "out"))
    assert run_here("run", "out", "--task", 0, "--num_workers", 1).code == ExitCode.DONE
    compare("delete", width, screen(width, "delete", "out", "--dry_run"))
