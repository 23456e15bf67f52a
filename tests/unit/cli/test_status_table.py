"""The table of `status`: whole words at any width, colours if wanted, a watch that ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ctrate_convert.cli.status_table import columns_that_fit, print_tasks
from ctrate_convert.cluster.states.status import TaskLine
from ctrate_convert.errors import ExitCode
from tests.support import Converted, at_terminal_of, command

FIRST = ("task", "state", "reason", "job", "samples")
LAST = ("evidence", "attempts", "node", "elapsed", "time", "CPU", "MaxRSS", "mem")
REASON = "OUT_OF_MEMORY: the worker of shard 3 died: killed by SIGKILL (often the kernel)"


def line(task: int, state: str, reason: str = "") -> TaskLine:
    return TaskLine(
        task=task, state=state, evidence="sacct", reason=reason, cause=None, attempts=2,  # type: ignore[arg-type]
        job=f"1234567_{task}", node="node-with-a-long-name-17", elapsed_s=3723.0,
        max_rss_bytes=3 << 30, requested_bytes=4 << 30, time_limit_s=7200, cpu_share=0.93,
        samples_done=5, samples=100, is_straggler=False,
    )  # fmt: skip


@pytest.mark.parametrize("width", [60, 72, 80, 100, 120, 160])
def test_no_word_is_broken(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    lines = [line(0, "done"), line(1, "failed", REASON), line(2, "running"), line(3, "cancelled")]
    print_tasks(lines, long=False)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(len(row.rstrip()) for row in shown.splitlines()) <= width
    words = set(shown.split())
    assert set(REASON.split()) <= words
    assert {"done", "failed", "running", "cancelled", "1234567_1", "5/100"} <= words


def test_columns_go_in_the_order_of_their_worth() -> None:
    rows = [dict.fromkeys((*FIRST, *LAST), "1234567890")]
    before: list[str] = []
    for width in range(30, 180, 5):
        shown = columns_that_fit(rows, width)
        assert set(before) <= set(shown)
        before = shown
    assert len(before) == 13
    assert set(columns_that_fit(rows, 30)) == set(FIRST)


def test_states_are_coloured_unless_nobody_wants_it(converted: Converted) -> None:
    env = {**os.environ, "TERM": "xterm-256color"}
    env.pop("NO_COLOR", None)
    assert "\x1b[32mdone" in at_terminal_of(80, "status", converted.out, env=env)
    plain = at_terminal_of(80, "status", converted.out, env={**env, "NO_COLOR": "1"})
    assert "\x1b[32m" not in plain
    plain = re.sub(r"\x1b\[[0-9;]*m", "", plain)
    assert max(len(row.rstrip()) for row in plain.split("Tasks:")[0].splitlines()) <= 80


def test_ctrl_c_ends_a_watch_in_peace(converted: Converted, tmp_path: Path) -> None:
    """Something runs, so the watch goes on until it is told to end."""
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\nexit 1\n")  # nobody can be asked, so nothing is at rest
    squeue.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    (converted.out / ".run" / "records" / "shard-000000.json").unlink()
    with subprocess.Popen(
        command("status", converted.out, "--watch"), env=env, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as watch:  # fmt: skip
        assert watch.stdout is not None
        while "Tasks:" not in (watch.stdout.readline() or "Tasks:"):
            pass
        time.sleep(1)
        watch.send_signal(signal.SIGINT)
        _, errors = watch.communicate(timeout=30)
    assert watch.returncode == ExitCode.INTERRUPTED
    assert "no longer watching; nothing was cancelled" in errors
    assert "Traceback" not in errors
