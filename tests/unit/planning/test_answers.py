"""`plan` answers how many, how big, how long and does it fit; and offers only what it accepts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.cli import plan_summary
from ctrate_convert.errors import ExitCode
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import at_terminal_of, plan_words, run_here

Make = Callable[..., SyntheticCtRate]
QUESTIONS = ("how many", "how big", "how long", "fits")


def test_ten_lines_answer_four_questions(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(6, faults=("no_report",), kinds=("volume",))
    done = run_here(*plan_words(made, tmp_path / "out", "--samples_per_shard", 2))
    lines = [line for line in done.stdout.splitlines() if not line.startswith("Note: ")]
    assert len(lines) <= 10
    answers = {name: line for line in lines for name in QUESTIONS if line.startswith(name)}
    assert answers.keys() == set(QUESTIONS)
    assert "5 samples in 3 shards and 3 tasks; left out: 1 no report" in answers["how many"]
    assert re.search(r"yes: .* more at the peak with \d workers?, .* free", answers["fits"])
    assert "as an array of 3 tasks" in answers["how long"]


def test_at_a_terminal_words_stay_whole(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(4, faults=())
    shown = at_terminal_of(80, *plan_words(made, tmp_path / "out"), env={"TERM": "dumb"})
    rows = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", row) for row in shown.splitlines()]
    about = [row for row in rows if not row.startswith(("Next:", "Details:", "plan"))]
    assert [row for row in about if len(row.rstrip()) > 80] == []
    assert any(row.startswith("fits") for row in rows)


def test_what_does_not_fit_is_said_in_the_first_lines(
    make_ctrate: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_ctrate(4, faults=())
    monkeypatch.setattr(plan_summary, "free_bytes", lambda folder: 1000)
    done = run_here(*plan_words(made, tmp_path / "out"))
    (fits,) = (line for line in done.stdout.splitlines() if line.startswith("fits"))
    assert "NO: " in fits
    assert "--min_free_gb" in fits
    assert "--delete_source_files frees space" in fits


def test_a_dry_run_writes_nothing(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(4, faults=())
    out = tmp_path / "new" / "out"
    dry = run_here(*plan_words(made, out, "--dry_run"))
    assert dry.code == ExitCode.DONE
    assert "Dry run: nothing was written." in dry.stdout
    assert not out.exists()
    real = run_here(*plan_words(made, out))
    same = [line for line in real.stdout.splitlines() if line.startswith(QUESTIONS[:2])]
    assert same == [line for line in dry.stdout.splitlines() if line.startswith(QUESTIONS[:2])]


def test_promises_are_shown_again(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(4, faults=("no_report",))
    out = tmp_path / "out"
    first = run_here(*plan_words(made, out)).stdout.splitlines()
    again = run_here("plan", "--show", out).stdout.splitlines()
    assert [line for line in again if line.startswith(("Plan", *QUESTIONS[:3]))] == [
        line for line in first if line.startswith(("Plan", *QUESTIONS[:3]))
    ]
    details = run_here("plan", "--show", out, "--details").stdout
    assert "Left out, no report: 1" in details
    assert made.faults.keys() & set(re.findall(r"\w+", details))
    assert "Each way to store the volumes" in details
    json: Any = run_here("plan", "--show", out, "--json").json()
    assert json["plan"]["samples"] == 3
    missing = run_here("plan", "--show", tmp_path)
    assert missing.code == ExitCode.USAGE


def test_a_changed_setting_that_is_ignored_is_said(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(4, faults=())
    out = tmp_path / "out"
    run_here(*plan_words(made, out, "--samples_per_shard", 2))
    again = run_here(*plan_words(made, out, "--samples_per_shard", 3))
    assert "Nothing new to plan." in again.stdout
    said = "Ignored, since nothing new is planned: --samples_per_shard (planned with 2)."
    assert said in again.stdout
    same = run_here(*plan_words(made, out, "--samples_per_shard", 2))
    assert "Ignored" not in same.stdout


@pytest.mark.parametrize(
    "kinds", [("volume",), ("data",), ("arr",), ("arr_0",), ("volume", "arr"), ("nii.gz",)]
)
def test_what_it_advises_it_accepts(
    kinds: tuple[str, ...], make_ctrate: Make, tmp_path: Path
) -> None:
    """The advice of a dry run is a plan; once a plan stands, it is one for another output."""
    made = make_ctrate(6, faults=(), kinds=kinds, shape=(40, 40, 20))
    out = tmp_path / "out"
    dry = run_here(*plan_words(made, out, "--dry_run"))
    advice = re.search(r"would be chosen: (--\S.*?) \(", dry.stdout)
    if advice is None:
        pytest.skip("nothing better was found")
    taken = run_here(*plan_words(made, out, *advice[1].split()))
    assert taken.code == ExitCode.DONE, taken.text
    assert "would be chosen" not in taken.stdout
    assert run_here("run", out, "--num_workers", 1).code == ExitCode.DONE
    first = run_here(*plan_words(made, tmp_path / "two"))
    assert "for that, plan into a new --output_dir" in first.stdout


def test_short_times_are_words() -> None:
    assert plan_summary._time(0.2) == "less than a second"
    assert plan_summary._time(3723) == "1:02:03"
