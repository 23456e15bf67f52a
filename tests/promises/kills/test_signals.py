"""Ctrl+C, SIGTERM and SIGKILL at any moment of a command, sent as a terminal or scheduler does."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path

import psutil
import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.running.parent import parent_is_gone, signals_held
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import command, convert_words, plan_words, run_cli

PATIENCE_S = 60.0
MOMENTS_S = [step * 0.05 for step in range(1, 31)]
FEWER_S = MOMENTS_S[2::3]
SIGNALS = [signal.SIGINT, signal.SIGTERM]

Words = Callable[[Path], list[object]]


@pytest.fixture
def planned(make_ctrate: Callable[..., SyntheticCtRate], tmp_path: Path) -> Path:
    """Eight shards that are pending."""
    made = make_ctrate(8, shape=(40, 64, 64))
    out = tmp_path / "planned"
    assert run_cli(*plan_words(made, out, "--samples_per_shard", 1)).code == 0
    return out


def start(*words: object) -> subprocess.Popen[str]:
    """A command that leads a process group of its own."""
    return subprocess.Popen(
        command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def signal_group_after(seconds: float, number: signal.Signals, *words: object) -> tuple[int, str]:
    """The exit code and all that was said, where every process of the command got the signal."""
    process = start(*words)
    time.sleep(seconds)
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        assert process.poll() is not None
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    return process.returncode, stdout + stderr


def _began_to_import(text: str) -> bool:
    """True if Python was stopped before the command line, which is loaded with signals heeded."""
    return text.rstrip().endswith("KeyboardInterrupt") and "/ctrate_convert/cli/" not in text


def assert_ended_in_order(code: int, text: str, *done: int) -> None:
    """Interrupted, or finished before; -2 and -15 are those of an interpreter not yet running."""
    early = code in (-signal.SIGINT, -signal.SIGTERM) and (not text or _began_to_import(text))
    if early:
        return
    assert code in (ExitCode.INTERRUPTED, *done), f"{code}: {text}"
    assert "Traceback" not in text and "exit code 255" not in text and "EOFError" not in text, text
    if code == ExitCode.INTERRUPTED:
        assert "error: interrupted" in text or "Stopped by SIG" in text, text


def outcomes(out: Path) -> set[tuple[str, str]]:
    ends = [json.loads(path.read_text()) for path in out.glob(".run/attempts/*/end.json")]
    return {(end["outcome"], end["reason"]) for end in ends}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_may_be_stopped_at_any_moment(
    planned: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Exit code 130, no traceback; the attempt was interrupted or had not begun."""
    for seconds in MOMENTS_S:
        out = tmp_path / "out"
        shutil.copytree(planned, out)
        code, text = signal_group_after(seconds, number, "run", out, "--num_workers", 2)
        assert_ended_in_order(code, text, ExitCode.DONE)
        assert outcomes(out) <= {("interrupted", number.name), ("done", "")}
        shutil.rmtree(out)
    assert run_cli("run", planned).code == ExitCode.DONE


@pytest.mark.parametrize("number", SIGNALS)
def test_a_conversion_may_be_stopped_at_any_moment(
    make_ctrate: Callable[..., SyntheticCtRate], tmp_path: Path, number: signal.Signals
) -> None:
    """The command that also plans is no exception; at last it finishes what is left."""
    out = tmp_path / "out"
    words = convert_words(make_ctrate(4), out, "--samples_per_shard", 1)
    for seconds in FEWER_S:
        code, text = signal_group_after(seconds, number, *words)
        assert_ended_in_order(code, text, ExitCode.DONE)
    assert outcomes(out) <= {("interrupted", number.name), ("done", "")}
    assert run_cli(*words).code == ExitCode.DONE


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "words", [("verify", "--full"), ("delete", "--yes")], ids=["verify", "delete"]
)
def test_other_commands_with_workers_may_be_stopped_at_any_moment(
    planned: Path, words: tuple[str, str], number: signal.Signals
) -> None:
    """Neither finds damage nor calls a worker dead."""
    assert run_cli("run", planned).code == ExitCode.DONE
    for seconds in FEWER_S:
        code, text = signal_group_after(
            seconds, number, words[0], planned, words[1], "--num_workers", 2
        )
        assert_ended_in_order(code, text, ExitCode.DONE, ExitCode.REFUSED)
        assert "died" not in text and "DAMAGE" not in text, text
    assert outcomes(planned) <= {("interrupted", number.name), ("done", "")}


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that the fork server of a command has forked."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None
        for child in psutil.Process(process.pid).children():
            if "forkserver" in " ".join(child.cmdline()) and any(map(has_begun, child.children())):
                return [child, *child.children()]
        time.sleep(0.002)
    raise TimeoutError


def has_begun(worker: psutil.Process) -> bool:
    """A worker lets SIGTERM through once it is set up."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{worker.pid}/status").read_text()
        blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
        return not blocked & 1 << signal.SIGTERM - 1
    return False


@pytest.mark.parametrize("words", [("run",), ("verify", "--full")], ids=["run", "verify"])
def test_no_worker_outlives_a_killed_command(planned: Path, words: tuple[str, ...]) -> None:
    """SIGKILL of the command alone ends its fork server and its workers, stopped ones too."""
    if words[0] == "verify":
        assert run_cli("run", planned).code == ExitCode.DONE
    process = start(words[0], planned, *words[1:], "--num_workers", 2)
    family = workers_of(process)
    next(one for one in family[1:] if has_begun(one)).suspend()
    process.kill()
    process.communicate(timeout=PATIENCE_S)  # none of them holds its output open any more
    gone, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert not alive and len(gone) == len(family)


def test_nothing_is_deleted_once_the_command_was_killed(planned: Path, tmp_path: Path) -> None:
    """Whichever moment it is killed at, after a moment no source goes any more."""
    assert run_cli("run", planned).code == ExitCode.DONE
    sources = tmp_path / "ctrate"
    for _ in range(6):
        process = start("delete", planned, "--yes", "--num_workers", 2)
        family = workers_of(process)
        process.kill()
        process.communicate(timeout=PATIENCE_S)
        psutil.wait_procs(family, timeout=PATIENCE_S)
        left = sorted(sources.rglob("*.npz"))
        time.sleep(0.3)
        assert sorted(sources.rglob("*.npz")) == left


@pytest.mark.parametrize("duplex", [False, True])
def test_a_worker_sees_that_nobody_listens_any_more(duplex: bool) -> None:
    """By a look at its end of the pipe, without sending anything."""
    here, there = Pipe(duplex=duplex)
    assert not parent_is_gone(there)
    there.send("something unread")
    assert not parent_is_gone(there)
    here.close()
    assert parent_is_gone(there)


def test_a_signal_that_comes_in_between_is_not_lost() -> None:
    """It waits for the end of the block."""
    with pytest.raises(KeyboardInterrupt):
        with signals_held():
            os.kill(os.getpid(), signal.SIGINT)
            select.select([], [], [], 0.01)
            reached = True
        raise AssertionError("not told")
    assert reached
